"""`fer doctor`: what is here, what works, and what to do about the rest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer.cli.console import JsonFlag, emit, note

if TYPE_CHECKING:
    from fer.doctor.check import Check, Finding

app = typer.Typer()
_MARKS = {
    "ok": "[green]ok  [/green]",
    "skipped": "[dim]--  [/dim]",
    "warning": "[yellow]warn[/yellow]",
    "failed": "[red]FAIL[/red]",
}


@app.command()
def doctor(
    project: Annotated[Path, typer.Option(help="The checkout, for params.yaml and DVC.")] = Path(
        "."
    ),
    as_json: JsonFlag = False,
) -> None:
    """Check this machine, its storage and its Prefect server. Example: fer doctor

    Each check does the thing: it predicts, writes to the registry, asks the server. Exit status
    1 where one fails; a warning or what is not set up here is no failure.
    """
    found: list[Finding] = []
    for check in _checks(project):
        for finding in check.run():
            found.append(finding)
            if not as_json:
                # One by one, for some take seconds.
                emit(None, False, partial(_line, finding))
    failed = [finding for finding in found if finding.status == "failed"]
    if as_json:
        emit({"ok": not failed, "checks": [one.to_dict() for one in found]}, True, str)
    elif not failed:
        note("All that is set up here works.")
    if failed:
        raise typer.Exit(1)


def _checks(project: Path) -> list[Check]:
    from fer.doctor import machine, prefect_api, storage
    from fer.doctor.check import Check

    return [
        Check("packages", machine.versions),
        Check("cache", machine.disk),
        Check("gpu", machine.gpu),
        Check("model", machine.inference),
        Check("params", lambda: machine.project(project)),
        Check("registry", storage.registry),
        Check("dvc lock", lambda: storage.dvc_lock(project)),
        Check("dvc remote", lambda: storage.dvc_remote(project)),
        Check("prefect", prefect_api.server),
    ]


def _line(finding: Finding) -> str:
    from rich.markup import escape

    line = f"{_MARKS[finding.status]} {finding.name:<15} {escape(finding.text)}"
    return line if not finding.advice else f"{line}\n{'':21}{escape(finding.advice)}"
