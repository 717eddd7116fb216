"""What every command shares: JSON or text on stdout, everything else on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ParamsFile = Annotated[Path, typer.Option(help="The parameters of the run.")]


def emit(document: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print the command's result: `document` as JSON, or `text()` for people (rich markup)."""
    if as_json:
        typer.echo(json.dumps(document, indent=2, default=str))
    else:
        from rich.console import Console

        Console(highlight=False, soft_wrap=True).print(text())


def note(text: str) -> None:
    """Say something beside the result: progress, warnings, where things are. Goes to stderr."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text)


def of_the_disk(error: OSError) -> str | None:
    """What to say of a file that cannot be written or read; None where it is something else."""
    import errno

    place = error.filename or "a file"
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return (
            f"the disk is full, or a limit on file sizes is reached ({place}). Free some space "
            "and run again: nothing half-written was left."
        )
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{place}: {error.strerror}. Choose another folder, or change its permissions."
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}:
        return f"{place}: {error.strerror}. Choose another path."
    return None
