"""A progress bar on stderr for long work; silent where stderr is no terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Progress:
    """One bar; use it as a context manager and call `update(done, total)`.

    A bar redraws ten times a second at most, so `update` may be called for every item.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._bars: Bars | None = None
        self._task: TaskID | None = None

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

    def start(self, title: str) -> None:
        """Begin another part of the work on the same bar."""
        if self._bars is not None and self._task is not None:
            # A new task: a total that is not known yet cannot be set on an old one.
            self._bars.remove_task(self._task)
            self._task = self._bars.add_task(title, total=None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
