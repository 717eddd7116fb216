"""How well each way to scale is calibrated on images that it was not fitted on.

    python benchmarks/calibration.py --faces data/prepared/faces.parquet --model models/package

Five-fold cross-validation within the validation split: fitted on four fifths, measured on the rest,
all of it and without near copies of training images. What is chosen is chosen on these figures; the
test split is not read. `fer evaluate` reports it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import report
from numpy.typing import NDArray

from fer.dataset.table import FaceTable
from fer.evaluation.calibration import (
    AS_TRAINED,
    Calibration,
    expected_calibration_error,
    fit_calibration,
    fit_temperature,
    negative_log_likelihood,
    softmax,
)
from fer.inference.classifier import Classifier

FITS: dict[str, Callable[[NDArray[np.float32], NDArray[np.int64]], Calibration]] = {
    "as trained": lambda logits, actual: AS_TRAINED,
    "temperature": lambda logits, actual: Calibration(fit_temperature(logits, actual)),
    "temperature and curvature": fit_calibration,
}


def held_out(
    name: str, logits: NDArray[np.float32], faces: FaceTable, on: NDArray[np.bool_], seed: int
) -> NDArray[np.float64]:
    """Probabilities (n, 7) of each image by the fit that did not see it; `on`: what may be seen."""
    actual = faces.expression.astype(np.int64)
    folds = np.random.default_rng(seed).permutation(len(faces)) % 5
    result = np.empty(logits.shape)
    for fold in range(5):
        seen = (folds != fold) & on
        found = FITS[name](logits[seen], actual[seen])
        result[folds == fold] = softmax(logits[folds == fold], found)
    return result


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, default=Path("data/prepared/faces.parquet"))
    parser.add_argument("--model", type=Path, default=Path("models/package"))
    parser.add_argument("--repeats", type=int, default=5, help="divisions into folds")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    faces = FaceTable.read(arguments.faces).part("validation")
    logits = Classifier(arguments.model / "model.onnx").logits(faces.pixels)
    actual, correct = faces.expression.astype(np.int64), logits.argmax(axis=1) == faces.expression
    clean = ~faces.near_twin
    rows = []
    for name in FITS:
        for whence, on in (("all", np.ones(len(faces), bool)), ("clean", clean)):
            parts = []
            for seed in range(arguments.repeats):
                shares = held_out(name, logits, faces, on, seed)
                # Logarithms of probabilities are logits: their likelihood as they are.
                logs = np.log(np.maximum(shares, 1e-300))
                for rows_of in (np.ones(len(faces), bool), clean):
                    parts += [
                        negative_log_likelihood(logs[rows_of], actual[rows_of]),
                        expected_calibration_error(
                            shares[rows_of].max(axis=1), correct[rows_of], 15
                        ),
                    ]
            means = np.mean(np.reshape(parts, (arguments.repeats, 4)), axis=0).round(4).tolist()
            keys = ("nll", "ece", "nll_clean", "ece_clean")
            rows.append(
                {"scaling": name, "fitted_on": whence} | dict(zip(keys, means, strict=True))
            )
    document = {
        "machine": report.machine("numpy", "scipy", "onnxruntime"),
        "images": len(faces),
        "clean": int(clean.sum()),
        "repeats": arguments.repeats,
        "rows": rows,
    }
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    print(
        f"{document['machine']}: {len(faces):,} validation images, "
        f"{document['clean']:,} of them clean; means of {arguments.repeats} divisions\n"
        f"{'':<28}{'fitted on':<11}{'nll':>8}{'ece':>8}{'nll clean':>11}{'ece clean':>11}"
    )
    for row in rows:
        print(
            f"{row['scaling']:<28}{row['fitted_on']:<11}{row['nll']:>8.4f}{row['ece']:>8.4f}"
            f"{row['nll_clean']:>11.4f}{row['ece_clean']:>11.4f}"
        )


if __name__ == "__main__":
    main()
