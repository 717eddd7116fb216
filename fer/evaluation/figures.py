"""Shares of images with their intervals, in the form that metrics.json has them.

`<figure>`, `<figure>_low` and `<figure>_high` beside the number of images `n`; a set without
images has nothing but `n`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.evaluation.intervals import Interval, bootstrap_confusion, paired_difference, wilson
from fer.evaluation.metrics import confusion_matrix, macro_f1
from fer.params import EvaluateParams

DIGITS: Final = 6
"""Beyond these a figure says more about the order of additions than about the model."""


def bounded(name: str, value: float, interval: Interval) -> dict[str, float]:
    """A figure beside its bounds."""
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def share(name: str, hits: NDArray[np.bool_], level: float) -> dict[str, Any]:
    """`n` and the share of `hits` (n,), with Wilson's interval."""
    n, count = len(hits), int(hits.sum())
    if n == 0:
        return {"n": 0}
    return {"n": n} | bounded(name, count / n, wilson(count, n, level))


def compared(
    name: str, hits: NDArray[np.bool_], before: NDArray[np.bool_], level: float
) -> dict[str, Any]:
    """`share`, and its `difference` from what the same images gave before, as a paired figure.

    Args:
        name: of the share.
        hits: (n,) whether each image is right.
        before: (n,) whether it was.
        level: of both intervals.
    """
    figures = share(name, hits, level)
    if figures["n"]:
        gained, lost = int((hits & ~before).sum()), int((before & ~hits).sum())
        interval = paired_difference(gained, lost, len(hits), level)
        figures |= bounded("difference", (gained - lost) / len(hits), interval)
    return figures


def classified(
    actual: NDArray[np.int64], predicted: NDArray[np.int64], params: EvaluateParams, seed: int
) -> dict[str, Any]:
    """Accuracy and macro-F1 of a set of images."""
    figures = share("accuracy", actual == predicted, params.confidence)
    if figures["n"]:
        confusion = confusion_matrix(actual, predicted)
        low, high = bootstrap_confusion(
            confusion,
            macro_f1,
            resamples=params.bootstrap,
            seed=seed,
            confidence=params.confidence,
        )
        figures |= bounded("macro_f1", float(macro_f1(confusion)), Interval(low, high))
    return figures


def rounded(document: Any) -> Any:
    """A JSON document with its numbers to six digits."""
    if isinstance(document, Mapping):
        return {name: rounded(value) for name, value in document.items()}
    if isinstance(document, list):
        return [rounded(value) for value in document]
    if isinstance(document, float):
        return round(float(document), DIGITS)
    return document
