"""`fer data`: from a source to the prepared table, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fer.cli.console import JsonFlag, ParamsFile, emit

app = typer.Typer(
    help="Fetch, validate and prepare the dataset.", no_args_is_help=True, rich_markup_mode=None
)

_SOURCE = Path("data/source")
_PREPARED = Path("data/prepared")


@app.command()
def fetch(
    params: ParamsFile = Path("params.yaml"),
    out: Annotated[Path, typer.Option(help="Folder of the source table.")] = _SOURCE,
    as_json: JsonFlag = False,
) -> None:
    """Read the source that params.yaml names (or FER_DATA, a local copy of it).

    Example: FER_DATA=~/fer2013.zip fer data fetch
    """
    from rich.markup import escape

    from fer.dataset.fetch import fetch as run
    from fer.params import load_params

    loaded = load_params(params)
    facts = run(loaded.data, loaded.seed, out)
    splits = ", ".join(f"{name} {count}" for name, count in sorted(facts["splits"].items()))
    # The source names its splits, and rich would take brackets for markup.
    emit(facts, as_json, lambda: escape(f"{facts['images']} images ({splits}) in {out}"))


@app.command()
def validate(
    params: ParamsFile = Path("params.yaml"),
    source: Annotated[Path, typer.Option(help="Folder of the source table.")] = _SOURCE,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports/validation"),
    as_json: JsonFlag = False,
) -> None:
    """Hold the source table against the data gate; a breach exits with 1.

    Example: fer data validate --json
    """
    from rich.markup import escape

    from fer.dataset.gate import run_gate
    from fer.params import load_params

    report = run_gate(source / "images.parquet", load_params(params).validate_, out)
    emit(
        report.document(),
        as_json,
        lambda: escape(f"The data passed. Data Docs: {out / 'data_docs' / 'index.html'}"),
    )


@app.command()
def prepare(
    params: ParamsFile = Path("params.yaml"),
    source: Annotated[Path, typer.Option(help="Folder of the source table.")] = _SOURCE,
    out: Annotated[Path, typer.Option(help="Folder of the prepared table.")] = _PREPARED,
    report: Annotated[Path, typer.Option(help="What cleaning did.")] = Path(
        "reports/cleaning.json"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Split, clean, and mark the near copies of training images.

    Example: fer data prepare
    """
    from fer.dataset.prepare import cleaning_report
    from fer.dataset.prepare import prepare as run
    from fer.params import load_params

    loaded = load_params(params)
    table = run(source / "images.parquet", loaded.prepare, loaded.seed, out, report)
    facts = cleaning_report(table)
    emit(
        facts,
        as_json,
        lambda: (
            f"{facts['kept']} of {facts['training_images']} training images kept "
            f"({facts['dropped_twin']} twins and {facts['dropped_blank']} blanks left), "
            f"{len(table.part('validation'))} validation, {len(table.part('test'))} test; "
            f"{facts['near_twins']['test']} test images are near copies of training images"
        ),
    )


@app.command()
def describe(
    prepared: Annotated[Path, typer.Option(help="Folder of the prepared table.")] = _PREPARED,
    as_json: JsonFlag = False,
) -> None:
    """Counts per split and class of the prepared table.

    Example: fer data describe
    """
    from fer.dataset.table import SPLITS, FaceTable

    manifest = FaceTable.read(prepared / "faces.parquet").manifest

    def text() -> str:
        rows = [f"{'split':<11}{'images':>8}" + "".join(f"{c:>9}" for c in manifest["classes"])]
        for name in SPLITS:
            split = manifest["splits"][name]
            counts = "".join(f"{split['classes'][c]:>9}" for c in manifest["classes"])
            rows.append(f"{name:<11}{split['images']:>8}{counts}")
        return "\n".join([*rows, f"splits: {manifest['splits_rule']}"])

    emit(manifest, as_json, text)
