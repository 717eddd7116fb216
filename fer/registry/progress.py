"""A progress bar for bytes, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fer.registry.store import Progress


@contextmanager
def transfer_bar(label: str, total: int, asked: bool = False) -> Iterator[Progress]:
    """Yield a function to call with each block's bytes; safe from several threads.

    The bar shows where stderr is a terminal or where it was `asked` for.
    """
    if not (asked or sys.stderr.isatty()):
        yield lambda moved: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda moved: bar.advance(task, moved)
