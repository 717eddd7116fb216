"""Challenger and champion on the same test images: the evidence that the gate decides on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.dataset.table import FaceTable
from fer.errors import TableError
from fer.evaluation.calibration import expected_calibration_error
from fer.evaluation.evaluate import _digest
from fer.evaluation.gate import GateDecision, check_gate
from fer.evaluation.latency import measure
from fer.evaluation.metrics import class_figures, confusion_matrix, macro_f1
from fer.params import GateParams
from fer.registry.package import ModelPackage

_BATCH: Final = 256
_DIGITS: Final = 6
_LATENCY_RUNS: Final = 50


@dataclass(frozen=True)
class _Measured:
    """One model on the test images."""

    probabilities: NDArray[np.float32]
    figures: dict[str, Any]


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test (McNemar 1947; the binomial form).

    Images that both models get right, or both wrong, tell nothing of which is better. Of those
    that one alone gets right, equal models would split like a fair coin.

    Args:
        only_first: images that only the first model gets right.
        only_second: images that only the second gets right.

    Raises:
        ValueError: a count is negative.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"{only_first} and {only_second} are no counts")
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, hits) for hits in range(fewer + 1))
    # Whole numbers to the end: for thousands of images the terms exceed what a float can hold.
    return min(1.0, 2 * tail / (1 << n))


def judge(
    challenger: ModelPackage,
    champion: ModelPackage | None,
    table: FaceTable,
    params: GateParams,
    *,
    bins: int = 15,
    progress: Callable[[int, int], None] | None = None,
) -> GateDecision:
    """Evaluate both packages on the test images of `table` and decide.

    The packages' own models are run, with their calibration, one after the other on this
    machine; what their metrics say is not used.

    Args:
        challenger: the candidate.
        champion: the present champion; None where there is none.
        table: the prepared table; rows of other splits are ignored.
        params: section `gate` of params.yaml.
        bins: of the calibration error.
        progress: called with (images done, images in all), of both models together.

    Returns:
        The decision; its `figures` hold `test_set`, `images`, the figures of both models, and
        `mcnemar`.

    Raises:
        TableError: the table has no test image.
        PackageError: a package's model cannot be run.
    """
    test = table.rows(table.split == "test")
    if not len(test):
        raise TableError("The prepared table has no test image. Run `dvc repro prepare`.")
    models = [challenger] if champion is None else [challenger, champion]
    total, done = len(test) * len(models), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    measured = [_measure(one, test, bins, advance) for one in models]
    ours = measured[0]
    test_set = _digest(test)
    figures: dict[str, Any] = {"test_set": test_set, "images": len(test)}
    figures["challenger"] = ours.figures | {"digest": challenger.digest}
    metrics = _as_metrics(ours.figures, test_set)
    theirs = None
    if champion is not None:
        actual = test.expression.astype(np.int64)
        figures["champion"] = measured[1].figures | {"digest": champion.digest}
        theirs = _as_metrics(measured[1].figures, test_set)
        figures["mcnemar"] = metrics["mcnemar"] = _disagreements(
            *(one.probabilities.argmax(axis=1) == actual for one in measured)
        )
    return replace(check_gate(metrics, theirs, params), figures=figures)


def _measure(
    package: ModelPackage, test: FaceTable, bins: int, advance: Callable[[int], None]
) -> _Measured:
    from fer.inference.classifier import Classifier

    classifier = Classifier(package.model)
    parts = []
    for start in range(0, len(test), _BATCH):
        pixels = test.pixels[start : start + _BATCH]
        parts.append(classifier.probabilities(pixels))
        advance(len(pixels))
    probabilities = np.concatenate(parts)
    actual = test.expression.astype(np.int64)
    predicted = probabilities.argmax(axis=1)
    correct = predicted == actual
    confusion = confusion_matrix(actual, predicted)
    figures = {
        "accuracy": float(correct.mean()),
        "macro_f1": float(macro_f1(confusion)),
        "ece": expected_calibration_error(probabilities.max(axis=1), correct, bins),
        "latency_ms": measure(classifier, _LATENCY_RUNS)["batch_1_p50_ms"],
    }
    figures = {name: round(value, _DIGITS) for name, value in figures.items()}
    recall = {one.expression: round(one.recall, _DIGITS) for one in class_figures(confusion)}
    return _Measured(probabilities, figures | {"recall": recall})


def _disagreements(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> dict[str, Any]:
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return {
        "both_right": int((ours & theirs).sum()),
        "only_challenger_right": only_ours,
        "only_champion_right": only_theirs,
        "p_value": mcnemar(only_ours, only_theirs),
    }


def _as_metrics(figures: dict[str, Any], test_set: str) -> dict[str, Any]:
    """Measured figures in the form of metrics.json, which `check_gate` reads."""
    test = {name: figures[name] for name in ("accuracy", "macro_f1", "ece")}
    more = {name: figures[name] for name in ("recall", "latency_ms")}
    return {"test": test, "test_set": test_set} | more
