"""Challenger and champion on the same test images, classified by several processes.

`fer.evaluation.gate_data.judge`, in parts: a worker classifies some of the images with one of the
two models and sends the probabilities back; here they are put together, and decided on by the same
functions. Speed is measured here alone, where nothing else runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.dataset.table import SIDE, FaceTable
from fer.errors import PackageError, TableError
from fer.evaluation.calibration import expected_calibration_error
from fer.evaluation.evaluate import _digest
from fer.evaluation.gate import GateDecision, check_gate
from fer.evaluation.gate_data import (
    _BATCH,
    _DIGITS,
    _LATENCY_RUNS,
    _as_metrics,
    _disagreements,
)
from fer.evaluation.latency import measure
from fer.evaluation.metrics import class_figures, confusion_matrix, macro_f1
from fer.inference.classifier import Classifier
from fer.params import GateParams
from fer.registry.package import ModelPackage
from fer.registry.registry import Registry

# Of whole batches, so that every batch holds the images that it would hold without shares.
SHARE_IMAGES: Final = 4 * _BATCH


@dataclass(frozen=True)
class ImageShare:
    """What a worker must know to classify some of the test images; all of it plain values.

    Attributes:
        model: a version, name:7.
        digest: what the worker's model must be.
        registry: its address; None where the worker's own setting names it.
        pixels: uint8, 48 x 48 for each image.
    """

    model: str
    digest: str
    registry: str | None
    pixels: bytes


def gate_images(table: FaceTable) -> FaceTable:
    """The test split of the prepared table.

    Raises:
        TableError: it is empty.
    """
    test = table.rows(table.split == "test")
    if not len(test):
        raise TableError("The prepared table has no test image. Run `dvc repro prepare`.")
    return test


def shares(model: str, digest: str, registry: str | None, test: FaceTable) -> Iterator[ImageShare]:
    """The test images for one model, a thousand at a time, in order."""
    for start in range(0, len(test), SHARE_IMAGES):
        pixels = test.pixels[start : start + SHARE_IMAGES]
        yield ImageShare(model, digest, registry, pixels.tobytes())


def classify_share(share: ImageShare) -> NDArray[np.float32]:
    """Probabilities (n, 7) of a share's images, in whatever process this is.

    Raises:
        PackageError: the model is not the one that was meant, or cannot be run.
    """
    classifier = _classifier(share.model, share.digest, share.registry)
    pixels = np.frombuffer(share.pixels, np.uint8).reshape(-1, SIDE, SIDE)
    batches = range(0, len(pixels), _BATCH)
    return np.concatenate(
        [classifier.probabilities(pixels[start : start + _BATCH]) for start in batches]
    )


@lru_cache(maxsize=2)
def _classifier(model: str, digest: str, registry: str | None) -> Classifier:
    package = Registry.open(registry).pull(model)
    if package.digest != digest:
        raise PackageError(
            f"A worker has another model than the run under {model}: {package.digest[:12]}, not "
            f"{digest[:12]}. Give all workers the same registry."
        )
    return Classifier(package.model)


def decide(
    models: list[tuple[ModelPackage, NDArray[np.float32]]],
    test: FaceTable,
    params: GateParams,
    *,
    bins: int = 15,
) -> GateDecision:
    """The gate's decision, as `judge` makes it, from probabilities that are there already.

    Args:
        models: the challenger, and the champion where there is one, each with the probabilities
            (n, 7) that it gives the test images.
        test: the test images.
        params: section `gate` of params.yaml.
        bins: of the calibration error.
    """
    actual = test.expression.astype(np.int64)
    test_set = _digest(test)
    figures: dict[str, Any] = {"test_set": test_set, "images": len(test)}
    found = []
    for role, (package, probabilities) in zip(("challenger", "champion"), models, strict=False):
        measured = _figures(package, probabilities, actual, bins)
        figures[role] = measured | {"digest": package.digest}
        found.append(_as_metrics(measured, test_set))
    metrics, *others = found
    if others:
        figures["mcnemar"] = metrics["mcnemar"] = _disagreements(
            *(probabilities.argmax(axis=1) == actual for _, probabilities in models)
        )
    theirs = others[0] if others else None
    return replace(check_gate(metrics, theirs, params), figures=figures)


def _figures(
    package: ModelPackage,
    probabilities: NDArray[np.float32],
    actual: NDArray[np.int64],
    bins: int,
) -> dict[str, Any]:
    predicted = probabilities.argmax(axis=1)
    correct = predicted == actual
    confusion = confusion_matrix(actual, predicted)
    speed = measure(Classifier(package.model), _LATENCY_RUNS)
    figures = {
        "accuracy": float(correct.mean()),
        "macro_f1": float(macro_f1(confusion)),
        "ece": expected_calibration_error(probabilities.max(axis=1), correct, bins),
        "latency_ms": speed["batch_1_p50_ms"],
    }
    figures = {name: round(value, _DIGITS) for name, value in figures.items()}
    recall = {one.expression: round(one.recall, _DIGITS) for one in class_figures(confusion)}
    return figures | {"recall": recall}
