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
