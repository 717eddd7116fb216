"""Stages of a pipeline that overlap: each runs in a thread of its own, a bounded way ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")

_END = object()
_WAIT = 0.1  # s between looks at whether anybody still wants items


def ahead(
    items: Generator[T, None, None],
    size: int,
    name: str,
    on_end: Callable[[], object] | None = None,
) -> Generator[T, None, None]:
    """The items of a generator, made by a thread that is at most `size` items ahead.

    An error in the generator is raised here, after the items before it. Closing this iterator
    closes the generator and waits for its thread; `on_end` is called before that wait, so that
    it can call off what the thread waits for.
    """
    waiting: queue.Queue[Any] = queue.Queue(maxsize=max(1, size))
    unwanted = threading.Event()
    failures: list[BaseException] = []

    def put(item: Any) -> None:
        while not unwanted.is_set():
            try:
                waiting.put(item, timeout=_WAIT)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                put(item)
                if unwanted.is_set():
                    break
        except BaseException as error:  # raised again where the items are taken
            failures.append(error)
        finally:
            items.close()
            put(_END)

    def taken() -> Generator[T, None, None]:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        try:
            while (item := waiting.get()) is not _END:
                yield item
            if failures:
                raise failures[0]
        finally:
            unwanted.set()
            if on_end:
                on_end()
            thread.join()

    return taken()
