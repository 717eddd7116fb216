"""`fer drift`: whether a model now sees and says something else than it used to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer.cli.console import JsonFlag, emit, note

if TYPE_CHECKING:
    from fer.monitoring.compare import Comparison
    from fer.monitoring.history import Period
    from fer.monitoring.profile import Profile
    from fer.monitoring.watch import Drift
    from fer.params import MonitoringParams

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Compare what batches find now with what was usual. Example: fer drift check ./results",
)
FOUND = 3
"""Exit status of `fer drift check` where something drifted."""

Results = Annotated[
    str, typer.Argument(help="What batches write to: a folder or s3://bucket/prefix.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Whose results: name, name:7 or the beginning of a digest. "
        "Default: the model that made the newest.",
    ),
]
ParamsOption = Annotated[
    Path | None,
    typer.Option(
        "--params",
        help="File whose `monitoring` section says what drift is. Default: params.yaml where "
        "there is one, else built-in values.",
    ),
]


@app.command()
def check(
    results: Results,
    model: ModelOption = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="A file of `fer drift baseline`, or a package's reference.json (the test images "
            "of its evaluation). Default: the baseline kept with the results, else the first "
            "faces that this model analysed."
        ),
    ] = None,
    baseline_since: Annotated[
        str | None, typer.Option(metavar="DATE", help="The baseline is what was made from here ...")
    ] = None,
    baseline_until: Annotated[
        str | None, typer.Option(metavar="DATE", help="... to here (UTC, the whole day).")
    ] = None,
    days: Annotated[
        float | None,
        typer.Option(min=0.0, help="Look at so many days. Default: monitoring.window_days."),
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Look at the last runs that found something new.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Look no further. Default: the newest result."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write index.html, drift.png and drift.json to this folder."),
    ] = None,
    params: ParamsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say whether predictions, faces or pictures have changed. Example: fer drift check ./results

    Exit status 0: no drift, or too few faces to tell; 3: drift; 1: failed; 2: wrong input.
    Nothing here knows which answers were right: drift is not accuracy.
    """
    from fer.monitoring.compare import DRIFT
    from fer.monitoring.history import moment
    from fer.monitoring.watch import watch
    from fer.progress import Progress

    with Progress("files") as bar:
        found = watch(
            results,
            _params(params),
            model=model,
            baseline=baseline,
            baseline_period=_period(baseline_since, baseline_until),
            days=days,
            runs=runs,
            until=None if until is None else moment(until, last=True),
            progress=bar.update,
        )
    if report is not None:
        from fer.reports.drift import drift_report

        note(f"Report: {_plain(str(drift_report(found, report)))}")
    emit(found.document(), as_json, lambda: _text(found))
    if found.comparison.verdict == DRIFT:
        raise typer.Exit(FOUND)


@app.command()
def baseline(
    results: Results,
    out: Annotated[
        Path | None,
        typer.Option(help="The file. Default: RESULTS/baselines, where `check` finds it."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Take what was made from here ...")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="... to here (UTC, the whole day).")
    ] = None,
    model: ModelOption = None,
    params: ParamsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep what is usual as a file of counts and quantiles. Example: fer drift baseline ./results

    Without dates: the first faces of the model (monitoring.baseline_faces). A later call replaces
    the file. It holds no address of a picture and no face.
    """
    from fer.monitoring.watch import write_baseline
    from fer.progress import Progress

    with Progress("files") as bar:
        profile, where = write_baseline(
            results,
            _params(params),
            out=out,
            model=model,
            period=_period(since, until),
            progress=bar.update,
        )
    document = {"file": where} | {
        name: value for name, value in profile.document().items() if name != "values"
    }
    emit(document, as_json, lambda: f"{_window(profile)}\nKept in {_plain(where)}")


def _params(path: Path | None) -> MonitoringParams:
    """The `monitoring` section of a named params file, of ./params.yaml, or the defaults."""
    from fer.params import MonitoringParams, load_params

    if path is None and not Path("params.yaml").is_file():
        return MonitoringParams()
    return load_params(path or Path("params.yaml")).monitoring


def _period(since: str | None, until: str | None) -> Period | None:
    from fer.monitoring.history import Period, moment

    if since is None and until is None:
        return None
    return Period(
        None if since is None else moment(since),
        None if until is None else moment(until, last=True),
    )


def _text(found: Drift) -> str:
    comparison = found.comparison
    lines = [
        f"[bold]{_plain(str(found.analysis))}[/bold]  {_plain(found.results)}",
        f"baseline  {_window(comparison.baseline)}",
        f"now       {_window(comparison.now)}",
        "",
        *_table(comparison),
        "",
        f"[bold]{_plain(comparison.text)}[/bold]",
    ]
    if found.others:
        others = ", ".join(_plain(str(one)) for one in found.others)
        lines.append(f"Not looked at: results of {others} (--model names one).")
    return "\n".join(lines)


def _window(profile: Profile) -> str:
    """One line about a window."""
    parts = [_plain(profile.title), f"{profile.faces:,} faces"]
    if profile.pictures is not None:
        parts.append(f"{profile.pictures:,} pictures")
    if profile.since and profile.until:
        parts.append(f"{profile.since:%Y-%m-%d %H:%M} to {profile.until:%Y-%m-%d %H:%M} UTC")
    return ", ".join(parts)


def _table(comparison: Comparison) -> list[str]:
    from fer.monitoring.compare import shown

    colours = {"drift": "red", "steady": "green"}
    heads = f"{'':<19}{'baseline':>10}{'now':>10}   {'statistic':<16}{'threshold':>9}   verdict"
    rows = [f"[dim]{heads}[/dim]"]
    for line in comparison.lines:
        effect = "-" if line.effect is None else f"{line.effect:.3f}"
        colour = colours.get(line.verdict, "yellow")
        rows.append(
            f"{line.name:<19}{shown(line, line.baseline):>10}{shown(line, line.now):>10}   "
            f"{line.statistic:<10}{effect:<6}{line.threshold:>9g}   "
            f"[{colour}]{line.verdict}[/{colour}]"
        )
    return rows


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
