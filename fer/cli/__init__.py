"""The `fer` command: a thin shell over the library."""

from __future__ import annotations

import sys

import typer

from fer.cli import data, demo, doctor, drift, live, models, predict, report, train, video
from fer.cli.console import of_the_disk
from fer.errors import FerError

app = typer.Typer(
    name="fer",
    help="Facial expressions: prepare FER2013, train, register, and predict.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,  # rich takes half a second to lay out a help page
)
app.add_typer(demo.app)
app.add_typer(data.app, name="data")
app.add_typer(train.app)
app.add_typer(models.app, name="models")
app.add_typer(predict.app)
app.add_typer(drift.app, name="drift")
app.add_typer(video.app)
app.add_typer(report.app)
app.add_typer(live.app)
app.add_typer(doctor.app)


def main() -> None:
    """Run the command; print an error of ours as one message and exit with its status."""
    try:
        app()
    except FerError as error:
        print(f"fer: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except OSError as error:
        if (text := of_the_disk(error)) is None:
            raise
        print(f"fer: {text}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
