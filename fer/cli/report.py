"""`fer report`: what `fer video` found, as something to look at and hand on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer.cli.console import JsonFlag, emit, note
from fer.cli.video import load_sections

if TYPE_CHECKING:
    from fer.reports.video_report import VideoReport

app = typer.Typer()

_SHOWN = 20  # participants that the text for people lists


@app.command()
def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT...", help="NAME.parquet of fer video, or a folder of them."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report; made if absent.")
    ] = Path("report"),
    segments: Annotated[
        Path | None,
        typer.Option(
            metavar="SEGMENTS.csv",
            help="What was shown when: columns name,start,end and, where not for all, video.",
        ),
    ] = None,
    people: Annotated[
        Path | None,
        typer.Option(
            metavar="PEOPLE.csv",
            help="Who is who: columns video,track,person. No person: the track is left out.",
        ),
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option(
            "--params",
            help="File whose `video.timeline` says how episodes are made. Default: params.yaml "
            "where there is one, else built-in values.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Report who showed what and when, per participant and segment, as a page and tables.

    Writes index.html, sums.csv, means.csv, seen.csv and episodes.csv. Nothing is analysed again.
    """
    from fer.progress import Progress
    from fer.reports.video_report import video_report

    _, settings = load_sections(params)
    with Progress("videos") as bar:
        written = video_report(
            results,
            output,
            segments=segments,
            people=people,
            params=settings.timeline,
            progress=bar.update,
        )
    for text in written.notes:
        note(f"[yellow]{_plain(text)}[/yellow]")
    emit(written.document(), as_json, lambda: _text(written))


def _text(written: VideoReport) -> str:
    from fer.clock import clock
    from fer.expressions import EXPRESSIONS
    from fer.reports.reported import by_segment
    from fer.reports.sums import WHOLE

    people = by_segment(written.videos)[WHOLE]
    lines = [f"[dim]{'':<24}{'seen for':>10}{''.join(f'{one:>10}' for one in EXPRESSIONS)}[/dim]"]
    for name, sums in list(people.items())[:_SHOWN]:
        cells = ["-"] * len(EXPRESSIONS)
        if sums.shares is not None:
            cells = [f"{share:.1%}" for share in sums.shares]
        shown = name if len(name) <= 23 else f"{name[:22]}…"
        lines.append(
            f"{_plain(f'{shown:<24}')}{clock(sums.visible):>10}"
            f"{''.join(f'{one:>10}' for one in cells)}"
        )
    if len(people) > _SHOWN:
        lines.append(f"... {len(people) - _SHOWN} more participants")
    if not people:
        lines = ["No participant was seen in these videos."]
    lines.append(f"Report: {_plain(str(written.page))}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
