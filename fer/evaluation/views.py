"""Test-time views: each face seen several times over, and the probabilities averaged.

What others publish is often measured so. It costs as many predictions as there are views, and
prediction in this library takes one, so the figures stand apart from the headline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.evaluation.calibration import Calibration, softmax
from fer.evaluation.figures import compared

# Side of a window as a share of the face's: 44 of 48 pixels, as in Krizhevsky et al. 2012, whose
# windows are seven eighths. A face fills its crop more than an object does its picture.
_WINDOW: Final = 11 / 12

Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def further_views(faces: NDArray[np.uint8], views: int) -> Iterator[NDArray[np.uint8]]:
    """What the model is shown besides the faces as they are, one view at a time.

    Args:
        faces: (n, h, w).
        views: 1: nothing; 2: the mirror image; 10: windows at the centre and in the four corners
            and their mirror images. The model enlarges a window as it does any crop.
    """
    if views == 2:
        yield np.ascontiguousarray(faces[:, :, ::-1])
    elif views == 10:
        height, width = faces.shape[1:]
        high, wide = round(height * _WINDOW), round(width * _WINDOW)
        bottom, right = height - high, width - wide
        corners = ((0, 0), (0, right), (bottom, 0), (bottom, right))
        for top, left in ((bottom // 2, right // 2), *corners):
            window = faces[:, top : top + high, left : left + wide]
            yield np.ascontiguousarray(window)
            yield np.ascontiguousarray(window[:, :, ::-1])
    elif views != 1:
        raise ValueError(f"views is {views}; 1, 2 or 10 is wanted")


def predictions(
    faces: NDArray[np.uint8],
    logits: NDArray[np.float32],
    views: int,
    calibration: Calibration,
    run: Logits,
) -> NDArray[np.int64]:
    """The expression of each face (n,) by the mean probability of its views.

    Args:
        faces: (n, h, w).
        logits: (n, 7) of the faces as they are: one of two views, none of ten.
        views: see `further_views`.
        calibration: of the probabilities, as the served model has it.
        run: gives the logits of crops.
    """
    total = np.zeros(logits.shape) if views == 10 else softmax(logits, calibration)
    for crops in further_views(faces, views):
        total += softmax(run(crops), calibration)
    expressions: NDArray[np.int64] = total.argmax(axis=1)
    return expressions


def views_section(
    views: int,
    averaged: NDArray[np.int64],
    single: NDArray[np.int64],
    subsets: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.int64]]],
    level: float,
) -> dict[str, Any]:
    """The section `views` of metrics.json: `count`, and each subset's figures.

    Each figure has its `difference` from the single view, of the same images.

    Args:
        views: how many.
        averaged: (n,) predictions by all views.
        single: (n,) predictions by one.
        subsets: by the name that metrics.json gives them: which rows, and their labels (n,).
        level: of the intervals.
    """
    section: dict[str, Any] = {"count": views}
    for name, (rows, labels) in subsets.items():
        right, before = averaged[rows] == labels[rows], single[rows] == labels[rows]
        figure = "agreement" if name.startswith("ferplus") else "accuracy"
        section[name] = compared(figure, right, before, level)
    return section
