"""Face boxes carried from one frame to another by optical flow.

Source: B. D. Lucas and T. Kanade, 1981, in J.-Y. Bouguet's pyramidal form (OpenCV); the median
of the points' motion and the check forward and backward are those of Z. Kalal, K. Mikolajczyk
and J. Matas, Forward-Backward Error, 2010. The window was chosen on scenes of validation faces
(benchmarks/tracking.py): one of 15 px takes longer and followed no better there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer.faces.detector import Detection, Image, shrunk

WORK_SIDE = 640
"""Longest side of the copy in which motion is looked for, px."""

_GRID = 6  # points a side
_INSIDE = 0.7  # of the box: its rim is background
_WINDOW = (11, 11)
_LEVELS = 3
_BACK = 1.5  # px that a point may miss its start by when followed back
_AROUND = 64  # px beyond half a face in which motion is looked for
_ENOUGH = 0.4  # of the points
_ZOOM = 0.15  # no face grows or shrinks more than this from frame to frame


@dataclass(frozen=True)
class Moment:
    """One frame, as the flow needs it: a small grey copy, by how much smaller, and its time."""

    small: Image
    reduction: float
    time: float

    @classmethod
    def of(cls, grey: Image, time: float) -> Moment:
        """From a grey frame, uint8 (h, w)."""
        small, across, down = shrunk(grey, WORK_SIDE)
        return cls(small, max(across, down), time)


def carry(before: Moment, after: Moment, boxes: Sequence[Detection]) -> list[Detection | None]:
    """Where each box of one frame is in another; None where too few points could be followed.

    A box moves by the median motion of a grid of points and grows by the median change of their
    distances. Scores stay as they were.
    """
    if not boxes:
        return []
    import cv2

    follow: Any = cv2.calcOpticalFlowPyrLK  # its stub knows no None for the points to find
    scale = 1.0 / before.reduction
    small = [box.scaled(scale) for box in boxes]
    rows, columns = _surroundings(small, before.small.shape)
    old, new = before.small[rows, columns], after.small[rows, columns]
    starts = np.concatenate([_grid(box) for box in small])
    starts -= np.array([columns.start, rows.start], np.float32)
    shape = starts.reshape(-1, 1, 2)
    options: dict[str, Any] = {"winSize": _WINDOW, "maxLevel": _LEVELS}
    ends, there, _ = follow(old, new, shape, None, **options)
    back, again, _ = follow(new, old, ends, None, **options)
    ends = ends.reshape(-1, 2)
    missed = np.linalg.norm(back.reshape(-1, 2) - starts, axis=1)
    good = (there.ravel() == 1) & (again.ravel() == 1) & (missed < _BACK)
    count = _GRID * _GRID
    return [
        _moved(
            box,
            starts[part := slice(place * count, (place + 1) * count)],
            ends[part],
            good[part],
            before.reduction,
        )
        for place, box in enumerate(boxes)
    ]


def _surroundings(boxes: Sequence[Detection], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns around all boxes: most of the time goes into the pictures' pyramids."""
    far = _AROUND + max(max(box.width, box.height) for box in boxes) / 2
    # A multiple of 8, so that each of the pyramid's pixels is the same as in the whole picture.
    top = max(0, min(shape[0] - _AROUND, int(min(box.top for box in boxes) - far))) // 8 * 8
    left = max(0, min(shape[1] - _AROUND, int(min(box.left for box in boxes) - far))) // 8 * 8
    bottom = max(top + _AROUND, int(max(box.bottom for box in boxes) + far))
    right = max(left + _AROUND, int(max(box.right for box in boxes) + far))
    return slice(top, min(bottom, shape[0])), slice(left, min(right, shape[1]))


def _grid(box: Detection) -> np.ndarray[Any, np.dtype[np.float32]]:
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    across = np.linspace(-_INSIDE / 2, _INSIDE / 2, _GRID)
    columns, rows = np.meshgrid(x + across * box.width, y + across * box.height)
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)


def _moved(
    box: Detection,
    starts: np.ndarray[Any, Any],
    ends: np.ndarray[Any, Any],
    good: np.ndarray[Any, Any],
    reduction: float,
) -> Detection | None:
    if good.sum() < _ENOUGH * len(starts):
        return None
    starts, ends = starts[good], ends[good]
    shift = np.median(ends - starts, axis=0) * reduction
    # Distances between points half the list apart: few pairs say as much as all.
    half = len(starts) // 2
    old = np.linalg.norm(starts[:half] - starts[-half:], axis=1)
    new = np.linalg.norm(ends[:half] - ends[-half:], axis=1)
    far = old > 1.0
    zoom = float(np.median(new[far] / old[far])) if far.any() else 1.0
    zoom = min(max(zoom, 1 - _ZOOM), 1 + _ZOOM)
    x = (box.left + box.right) / 2 + float(shift[0])
    y = (box.top + box.bottom) / 2 + float(shift[1])
    across, down = box.width * zoom / 2, box.height * zoom / 2
    return Detection(x - across, y - down, x + across, y + down, box.score)
