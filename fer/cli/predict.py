"""`fer predict` and `fer batch`: expressions of pictures, one by one or by the folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer.cli.console import JsonFlag, emit, note
from fer.errors import ImageError, StoreError

if TYPE_CHECKING:
    from fer.inference.batch import BatchSummary
    from fer.inference.recognizer import Prediction, Recognizer
    from fer.params import FacesParams

app = typer.Typer()

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="name@alias, name:7, a package folder, a model.onnx or a model.tflite. "
        "Default: the champion of a registry that holds one model.",
    ),
]
RegistryOption = Annotated[
    str | None,
    typer.Option(help="A folder or s3://bucket/prefix. Default: FER_REGISTRY."),
]
ParamsOption = Annotated[
    Path | None,
    typer.Option(
        "--params",
        help="File whose `faces` section says how faces are found. Default: params.yaml where "
        "there is one, else built-in values.",
    ),
]
AlignOption = Annotated[
    bool | None,
    typer.Option(
        "--align/--no-align",
        help="Turn crops upright by the line of the eyes; needs dlib's 5-point landmarks. "
        "Default: faces.align.",
    ),
]


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Picture files.")],
    model: ModelOption = None,
    registry: RegistryOption = None,
    params: ParamsOption = None,
    align: AlignOption = None,
    crop: Annotated[
        bool,
        typer.Option("--crop", help="Each file is a face crop already: do not look for faces."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what the faces of pictures express.

    Prints box, expression, confidence and the seven probabilities of every face. A picture that
    cannot be read is named and the rest is done; the exit status is then 2.
    """
    from fer.inference.recognizer import Recognizer

    recognizer = Recognizer.load(model, registry=registry, faces=_faces(params, align))
    pictures = [_predict_one(recognizer, image, crop) for image in images]
    document = {
        "model": {
            "name": recognizer.model.name,
            "version": recognizer.model.version,
            "digest": recognizer.model.digest,
        },
        "pictures": pictures,
    }
    emit(document, as_json, lambda: "\n\n".join(_picture_text(one) for one in pictures))
    bad = [one for one in pictures if one["error"]]
    if bad:
        raise ImageError(f"{len(bad)} of {len(pictures)} pictures could not be read: see above.")


@app.command()
def batch(
    input: Annotated[str, typer.Argument(help="A folder, a picture, or s3://bucket/prefix.")],
    output: Annotated[str, typer.Argument(help="A folder or s3://bucket/prefix for the results.")],
    model: ModelOption = None,
    registry: RegistryOption = None,
    params: ParamsOption = None,
    align: AlignOption = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Write CSV beside every Parquet file.")
    ] = False,
    part_size: Annotated[
        int, typer.Option(min=1, help="Pictures per Parquet file: what a killed run may redo.")
    ] = 256,
    as_json: JsonFlag = False,
) -> None:
    """Analyse every picture of a folder or bucket into Parquet.

    Run it again after a kill and it goes on; run it again later and it takes what is new. What
    cannot be decoded goes to OUTPUT/quarantine with the reason.
    """
    from fer.inference.batch import run_batch
    from fer.progress import Progress

    with Progress("pictures") as bar:
        summary = run_batch(
            input,
            output,
            model=model,
            registry=registry,
            faces=_faces(params, align),
            part_size=part_size,
            csv=csv,
            progress=bar.update,
        )
    emit(summary.as_dict(), as_json, lambda: _batch_text(summary))
    if summary.failed:
        raise StoreError(
            f"{summary.failed} files could not be read for now. Run the same command again to "
            "try only them."
        )


def _faces(path: Path | None, align: bool | None) -> FacesParams:
    """The `faces` section of a named params file, of ./params.yaml, or the defaults."""
    from fer.params import FacesParams, load_params

    named = path is not None or Path("params.yaml").is_file()
    faces = load_params(path or Path("params.yaml")).faces if named else FacesParams()
    return faces if align is None else faces.model_copy(update={"align": align})


def _predict_one(recognizer: Recognizer, image: str, crop: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"picture": image, "error": None, "faces": []}
    try:
        picture = recognizer.read(image)
        document |= {"width": picture.width, "height": picture.height}
        if crop:
            from fer.faces.crop import crop_face
            from fer.faces.detector import Detection

            height, width = picture.grey.shape
            square = crop_face(picture.grey, Detection(0, 0, width, height, 0.0))
            (prediction,) = recognizer.predict(square)
            document["faces"] = [{"box": None, **_prediction(prediction)}]
            return document
        for face in recognizer.analyze_picture(picture):
            box = face.detection
            document["faces"].append(
                {
                    "box": [round(edge, 1) for edge in (box.left, box.top, box.right, box.bottom)],
                    "detection_score": box.score,
                    "quality": {
                        "size": face.quality.size,
                        "sharpness": face.quality.sharpness,
                        "brightness": face.quality.brightness,
                        "pose": face.quality.pose,
                        "marks": list(face.quality.marks),
                    },
                    **_prediction(face.prediction),
                }
            )
    except ImageError as error:
        document["error"] = str(error)
        note(f"[red]{_plain(str(error))}[/red]")
    return document


def _prediction(prediction: Prediction) -> dict[str, Any]:
    return {
        "expression": prediction.expression,
        "confidence": prediction.confidence,
        "probabilities": prediction.probabilities,
    }


def _picture_text(document: dict[str, Any]) -> str:
    from fer.expressions import Expression

    lines = [f"[bold]{_plain(document['picture'])}[/bold]"]
    if document["error"]:
        return f"{lines[0]}\n  [red]not read[/red]"
    if not document["faces"]:
        lines.append("  no face found")
    for face in document["faces"]:
        where = ""
        if face["box"]:
            left, top, right, bottom = (round(edge) for edge in face["box"])
            where = f"  box {left},{top} to {right},{bottom}"
        marks = face.get("quality", {}).get("marks", [])
        lines.append(
            f"  [bold]{face['expression']}[/bold] {face['confidence']:.0%}{where}"
            + (f"  ({', '.join(marks)})" if marks else "")
        )
        for expression in Expression:
            share = face["probabilities"][expression.label]
            bar = "█" * round(share * 30)
            lines.append(f"    {expression.label:<9}{share:>5.0%} [{expression.colour}]{bar}[/]")
    return "\n".join(lines)


def _batch_text(summary: BatchSummary) -> str:
    shares = ", ".join(f"{name} {count}" for name, count in summary.expressions.items())
    lines = [
        f"[bold]{summary.analysed}[/bold] pictures analysed, {summary.skipped} recorded before, "
        f"in {summary.seconds:.1f} s ({summary.pictures_per_second:.1f} pictures/s)",
        f"[bold]{summary.faces}[/bold] faces ({shares or 'none'}); "
        f"{summary.without_face} pictures without a face",
    ]
    if summary.quarantined:
        lines.append(f"[yellow]{summary.quarantined}[/yellow] quarantined:")
    lines += [
        f"  {one['kind']}: {_plain(one['uri'])}: {_plain(one['reason'])}"
        for one in summary.problems
    ]
    if summary.ignored:
        lines.append(f"{summary.ignored} files ignored: their names are no pictures'")
    lines.append(f"Results: {_plain(summary.output)}/parts (run {summary.run_id})")
    return "\n".join(lines)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
