"""A package's model in integers: made, judged on validation, calibrated anew.

    python -m fer.training.quantize PACKAGE FACES OUT

It runs in a process of its own (`fer.training.start.quantize`), which says on stdout how far it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.dataset.table import FaceTable
from fer.errors import PackageError, TableError, TrainingError
from fer.evaluation.calibration import AS_TRAINED, Calibration, fit_calibration
from fer.evaluation.figures import DIGITS
from fer.files import write_json
from fer.registry.package import ModelPackage
from fer.training.litert import CLIPPED, FLOATS, float_model, in_integers, ranges

MODEL: Final = "model.tflite"
RECORD: Final = "quantization.json"
MAX_LOSS: Final = 0.003
"""Validation accuracy that integers may cost."""
STEPS: Final = 6

_FACES: Final = 256
"""Training faces that the ranges are taken from."""


def quantize(package: Path, faces: Path, out: Path, step: Callable[[int], None]) -> None:
    """Write model.tflite, and quantization.json with what it costs, to the folder `out`.

    Args:
        package: folder of the package, with `network.weights.h5` or a model.onnx of this project.
        faces: the prepared table. Ranges come from training faces; what integers cost, and the
            calibration, from validation.
        out: folder, which exists.
        step: called with the number of steps done, of `STEPS`.

    Raises:
        PackageError: no package, or its model is not this project's EfficientNetB2, or is in
            integers already.
        TableError: no table, or it lacks training or validation faces.
        TrainingError: integers cost more than `MAX_LOSS`.
    """
    from fer.inference.classifier import Classifier
    from fer.training.warm_start import network_of

    opened = ModelPackage.open(package)
    if "quantization" in opened.manifest.lineage:
        raise PackageError(
            f"{package} is in integers already. Name the package that it was made of: digest "
            f"{opened.manifest.lineage.get('made_of', 'unknown')}."
        )
    table = FaceTable.read(faces)
    train, validation = table.part("train"), table.part("validation")
    if not len(train) or not len(validation):
        raise TableError(f"{faces} lacks training or validation faces. Run: dvc repro prepare")
    generator = np.random.default_rng(0)
    chosen = generator.choice(len(train), min(_FACES, len(train)), replace=False)
    crops = train.pixels[np.sort(chosen)]
    network = network_of(opened)
    step(1)

    def answers(calibration: Calibration) -> NDArray[np.float32]:
        """Write the model with its calibration: what it says of the validation images."""
        model = float_model(network, calibration)
        (out / MODEL).write_bytes(in_integers(model, ranges(model, crops)))
        return Classifier(out / MODEL).logits(validation.pixels)

    actual = validation.expression.astype(np.int64)
    before = Classifier(opened.model).logits(validation.pixels)
    step(2)
    after = answers(AS_TRAINED)
    step(4)
    record = _compared(before, after, actual)
    if record["accuracy"] < record["accuracy_before"] - MAX_LOSS:
        (out / MODEL).unlink()
        raise TrainingError(
            f"In integers the model is right on {record['accuracy']:.2%} of the validation images, "
            f"before it was on {record['accuracy_before']:.2%}: more is lost than the "
            f"{MAX_LOSS:.1%} that are allowed. Keep the model that there is."
        )
    fitted = fit_calibration(after, actual)
    if not np.array_equal(answers(Calibration(*(round(one, DIGITS) for one in fitted))), after):
        raise TrainingError(
            "LiteRT's converter made another model of the same network the second time, so its "
            "calibration would be that of the first. Try again, or keep the model that there is."
        )
    step(STEPS)
    kept = {"bits": 8, "floats": list(FLOATS), "clipped_percent": CLIPPED, "faces": len(crops)}
    write_json(out / RECORD, kept | {"validation": record})


def _compared(before: Any, after: Any, actual: Any) -> dict[str, Any]:
    """What integers change on the validation images."""
    then, now = before.argmax(axis=1), after.argmax(axis=1)
    figures = {
        "accuracy_before": float((then == actual).mean()),
        "accuracy": float((now == actual).mean()),
        "same_answers": float((then == now).mean()),
    }
    return {"images": len(actual)} | {name: round(one, DIGITS) for name, one in figures.items()}


def _say(done: int) -> None:
    print(f"step {done} of {STEPS}", flush=True)  # noqa: T201 - read by the process that waits


if __name__ == "__main__":
    quantize(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), _say)
