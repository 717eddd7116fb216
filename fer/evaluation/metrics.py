"""Classification figures, all of them functions of the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fer.expressions import EXPRESSIONS

CLASSES = len(EXPRESSIONS)


def confusion_matrix(actual: ArrayLike, predicted: ArrayLike) -> NDArray[np.int64]:
    """Counts, shape (7, 7): row = actual expression, column = predicted expression.

    Args:
        actual: (n,) indices 0 to 6.
        predicted: (n,) indices 0 to 6.

    Raises:
        ValueError: the lengths differ, or an index is outside 0 to 6.
    """
    rows, columns = _indices(actual, "actual"), _indices(predicted, "predicted")
    if len(rows) != len(columns):
        raise ValueError(f"{len(rows)} actual labels beside {len(columns)} predicted ones")
    flat = np.bincount(rows * CLASSES + columns, minlength=CLASSES * CLASSES)
    return flat.reshape(CLASSES, CLASSES).astype(np.int64)


def accuracy(confusion: NDArray[np.int64]) -> float:
    """Share of images on the diagonal; 0.0 for an empty matrix."""
    total = int(confusion.sum())
    return float(np.trace(confusion) / total) if total else 0.0


def f1_scores(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 per class, shape (..., 7), of one matrix or a stack of them (..., 7, 7).

    A class that is neither actual nor predicted anywhere has no F1: nan.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores: NDArray[np.float64] = np.where(either > 0, 2.0 * hits / either, np.nan)
    return scores


def macro_f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean F1 over the classes that occur, shape (...): scikit-learn's `average="macro"`.

    0.0 for an empty matrix.
    """
    scores = f1_scores(confusion)
    present = ~np.isnan(scores)
    count = present.sum(axis=-1)
    total = np.where(present, scores, 0.0).sum(axis=-1)
    mean: NDArray[np.float64] = total / np.maximum(count, 1)
    return mean


@dataclass(frozen=True)
class ClassFigures:
    """One class: `support` images carry the label, `predicted` were given it, `hits` both."""

    expression: str
    support: int
    predicted: int
    hits: int

    @property
    def precision(self) -> float:
        """Share of the images given this label that carry it; 0.0 where none was given it."""
        return self.hits / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the images that carry this label that were given it; 0.0 without any."""
        return self.hits / self.support if self.support else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0.0 where both are."""
        either = self.support + self.predicted
        return 2 * self.hits / either if either else 0.0


def class_figures(confusion: NDArray[np.int64]) -> list[ClassFigures]:
    """The seven classes of a confusion matrix, in index order."""
    return [
        ClassFigures(
            expression=name,
            support=int(confusion[index].sum()),
            predicted=int(confusion[:, index].sum()),
            hits=int(confusion[index, index]),
        )
        for index, name in enumerate(EXPRESSIONS)
    ]


def confusions(confusion: NDArray[np.int64], count: int = 3) -> list[tuple[str, str, int, float]]:
    """The commonest mistakes: (actual, predicted, images, share of the actual class)."""
    support = confusion.sum(axis=1)
    pairs = [
        (EXPRESSIONS[row], EXPRESSIONS[column], int(confusion[row, column]), int(support[row]))
        for row in range(CLASSES)
        for column in range(CLASSES)
        if row != column and confusion[row, column] > 0
    ]
    pairs.sort(key=lambda pair: (-pair[2], pair[0], pair[1]))
    return [(one, other, images, images / all_) for one, other, images, all_ in pairs[:count]]


def _indices(values: ArrayLike, what: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{what} labels have shape {array.shape}; one dimension is wanted")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{what} labels are {array.dtype}; whole numbers are wanted")
    result = array.astype(np.int64)
    if result.size and (result.min() < 0 or result.max() >= CLASSES):
        raise ValueError(f"{what} labels reach from {result.min()} to {result.max()}, not 0 to 6")
    return result
