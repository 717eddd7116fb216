"""`fer train`, `evaluate`, `export`, `package` and `quantize`: what comes after the data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fer.cli.console import JsonFlag, ParamsFile, emit

app = typer.Typer()

_FACES = Path("data/prepared/faces.parquet")
_TRAINED = Path("models/trained")
_EXPORTED = Path("models/exported")

ExportedFolder = Annotated[Path, typer.Option(help="Folder of the exported model.")]
TrainedFolder = Annotated[Path, typer.Option(help="Folder of the trained model.")]
FacesFile = Annotated[Path, typer.Option(help="The prepared table.")]
PreparedFolder = Annotated[Path, typer.Option(help="Folder of the prepared table.")]
SourceFolder = Annotated[Path, typer.Option(help="Folder of the source table.")]


@app.command()
def train(
    params: ParamsFile = Path("params.yaml"),
    faces: FacesFile = _FACES,
    out: TrainedFolder = _TRAINED,
    curves: Annotated[Path, typer.Option(help="Folder for DVCLive.")] = Path("reports/training"),
    checkpoints: Annotated[Path, typer.Option(help="Folder of unfinished runs.")] = Path(
        "build/training"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Train in two phases. A run that was killed goes on from its last epoch.

    On a GPU or several, where TensorFlow sees them. KERAS_BACKEND=jax trains on JAX.

    Example: FER_WEIGHTS=weights.h5 fer train
    """
    from fer.params import load_params
    from fer.training.start import train as run

    document = run(
        params=load_params(params), faces=faces, out=out, curves=curves, checkpoints=checkpoints
    )
    emit(
        document,
        as_json,
        lambda: (
            f"Validation accuracy {document['validation_accuracy']:.4f} after epoch "
            f"{document['best_epoch']} of {document['epochs']}; curves: {out / 'curves.png'}"
        ),
    )


@app.command()
def weights(
    out: Annotated[Path, typer.Argument(metavar="NAME.weights.h5", help="The file to write.")],
    package: Annotated[
        Path | None,
        typer.Option(help="A package's folder. Default: the model that ships with the library."),
    ] = None,
) -> None:
    """Write a model's backbone as initial weights, to fine-tune it on other faces.

    Example: fer weights start.weights.h5 && FER_WEIGHTS=start.weights.h5 dvc repro
    """
    from fer.training.start import warm_start as run

    run(package, out)


@app.command()
def export(
    trained: TrainedFolder = _TRAINED,
    out: ExportedFolder = _EXPORTED,
) -> None:
    """Write the trained model as ONNX with the preprocessing inside, checked against Keras.

    Example: fer export --trained models/trained
    """
    from fer.training.start import export as run

    run(trained, out)


@app.command()
def evaluate(
    params: ParamsFile = Path("params.yaml"),
    faces: FacesFile = _FACES,
    exported: ExportedFolder = _EXPORTED,
    votes: Annotated[Path, typer.Option(help="FER+ votes, as fetched.")] = Path(
        "data/source/ferplus.parquet"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the reports.")] = Path("reports/evaluation"),
    as_json: JsonFlag = False,
) -> None:
    """Evaluate on the test set, full and clean, with intervals; calibrate on validation.

    Example: fer evaluate --json
    """
    from fer.evaluation.evaluate import evaluate as run
    from fer.params import load_params

    loaded = load_params(params)
    result = run(
        faces=faces,
        model=exported,
        ferplus=votes,
        params=loaded.evaluate,
        seed=loaded.seed,
        out=out,
    )
    emit(result.metrics, as_json, lambda: result.text)


@app.command()
def package(
    params: ParamsFile = Path("params.yaml"),
    trained: TrainedFolder = _TRAINED,
    exported: ExportedFolder = _EXPORTED,
    evaluation: Annotated[Path, typer.Option(help="Folder of the evaluation's reports.")] = Path(
        "reports/evaluation"
    ),
    prepared: PreparedFolder = Path("data/prepared"),
    source: SourceFolder = Path("data/source"),
    out: Annotated[Path, typer.Option(help="Folder of the package.")] = Path("models/package"),
    as_json: JsonFlag = False,
) -> None:
    """Assemble the model package: calibrated model, weights, card, figures, lineage.

    Example: fer package && fer models register models/package
    """
    from fer.packaging import package_model
    from fer.params import load_params

    made = package_model(
        load_params(params),
        trained=trained,
        exported=exported,
        evaluation=evaluation,
        prepared=prepared,
        source=source,
        out=out,
    )
    emit(
        {"folder": str(out), "digest": made.digest},
        as_json,
        lambda: f"{out}: {made.manifest.name}, digest {made.digest[:12]}",
    )


@app.command()
def quantize(
    package: Annotated[Path, typer.Option(help="Folder of the package.")] = Path("models/package"),
    params: ParamsFile = Path("params.yaml"),
    prepared: PreparedFolder = Path("data/prepared"),
    source: SourceFolder = Path("data/source"),
    out: Annotated[Path, typer.Option(help="Folder of the new package.")] = Path(
        "models/quantized"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Make a package in 8-bit integers: a third of the size, faster, evaluated anew.

    Refused where integers cost more than 0.3 points of validation accuracy. Wants the extra
    quantize.

    Example: fer quantize && fer models register models/quantized
    """
    from fer.params import load_params
    from fer.quantized import quantize_package

    made = quantize_package(
        load_params(params),
        package=package,
        prepared=prepared,
        source=source,
        out=out,
    )
    lineage: dict[str, Any] = made.manifest.lineage
    judged = lineage["quantization"]["validation"]
    emit(
        {"folder": str(out), "digest": made.digest, "validation": judged},
        as_json,
        lambda: (
            f"{out}: {made.manifest.name}, {made.model.stat().st_size / 1e6:.1f} MB; validation "
            f"accuracy {judged['accuracy']:.4f}, before {judged['accuracy_before']:.4f}; "
            f"{judged['same_answers']:.1%} of the answers are the same"
        ),
    )
