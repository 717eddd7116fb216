"""How far long work is, on stderr: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_SECONDS = 30.0
"""Between two lines in a log; work that is done sooner says nothing there."""


class Progress:
    """One bar; use it as a context manager and call `update(done, total)`.

    A bar redraws ten times a second at most, and a line comes every `LINE_SECONDS`, so `update`
    may be called for every item.

    Args:
        title: what is being done, or counted.
        now: s, from any moment on.
    """

    def __init__(self, title: str, now: Callable[[], float] = time.monotonic) -> None:
        self.title = title
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._lines = _Lines(title, now)

    def __enter__(self) -> Self:
        if not sys.stderr.isatty():
            return self
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bars.start()
        self._task = self._bars.add_task(self.title, total=None)
        return self

    def update(self, done: int, total: int) -> None:
        """Say how far the work is; a total of 0 means it is not known."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total or None)
        else:
            self._lines.update(done, total)

    def start(self, title: str) -> None:
        """Begin another part of the work on the same bar."""
        if self._bars is not None and self._task is not None:
            # A new task: a total that is not known yet cannot be set on an old one.
            self._bars.remove_task(self._task)
            self._task = self._bars.add_task(title, total=None)
        else:
            self._lines.start(title)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()


class _Lines:
    """What a log gets in place of a bar."""

    def __init__(self, title: str, now: Callable[[], float]) -> None:
        self.title, self.now = title, now
        self._next = now() + LINE_SECONDS
        self._first: tuple[float, int] | None = None  # when this part began, and at which item
        self._last = 0

    def start(self, title: str) -> None:
        self.title, self._first = title, None

    def update(self, done: int, total: int) -> None:
        now = self.now()
        if self._first is None or done < self._last:  # another part, or the same work again
            self._first = now, done
        self._last = done
        if now < self._next:
            return
        self._next = now + LINE_SECONDS
        said = f"{self.title}: {done:,}"
        if total:
            said += f" of {total:,} ({done / total:.0%})"
        began, before = self._first
        if total and done > before:
            # What an earlier run had done took no time of this one.
            left = (now - began) / (done - before) * (total - done)
            said += f", {_clock(left)} left"
        sys.stderr.write(f"{said}\n")
        sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
