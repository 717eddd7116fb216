"""The maps a head is drawn on, and the shapes and colours to draw with.

Coordinates: x to the right, y down, the middle of the face at 0, its half height about 1.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Points = NDArray[np.float64]
Bgr = tuple[float, float, float]

EXTENT: Final = 1.5
"""The canvas spans -EXTENT .. EXTENT both ways: the head with its hair."""


class Canvas:
    """The maps a head is drawn on; all are `side` px square and span EXTENT both ways."""

    def __init__(self, side: int, grey: bool = False) -> None:
        self.side = side
        self.grey = grey
        self.unit = side / (2 * EXTENT)
        self.x, self.y = grid(side)
        self.height: Field = np.zeros((side, side), np.float32)
        # One plane a colour: three times as fast to paint as interleaved colours.
        self.planes: Field = np.zeros((1 if grey else 3, side, side), np.float32)

    def bump(self, x: float, y: float, sx: float, sy: float, amount: float) -> None:
        """Raise (or dent, below 0) the relief by a Gaussian."""
        self.height += np.float32(amount) * self.spot(x, y, sx, sy)

    def area(self, points: Points, soft: float = 0.0) -> Field:
        """Coverage 0 to 1 of a closed polygon, its edge softened by `soft` face units."""
        import cv2

        mask = np.zeros((self.side, self.side), np.uint8)
        cv2.fillPoly(mask, [self._pixels(points)], 255, cv2.LINE_AA, 4)
        return self._soften(mask, soft)

    def line(self, points: Points, width: float, soft: float = 0.0) -> Field:
        """Coverage 0 to 1 of an open line `width` face units wide."""
        import cv2

        mask = np.zeros((self.side, self.side), np.uint8)
        thick = max(1, round(width * self.unit))
        cv2.polylines(mask, [self._pixels(points)], False, 255, thick, cv2.LINE_AA, 4)
        # A line thinner than a pixel covers only part of it.
        return self._soften(mask, soft) * np.float32(min(1.0, width * self.unit / thick))

    def paint(self, mask: Field, colour: Bgr, opacity: float = 1.0) -> None:
        """Lay a colour over the map of colours where `mask` covers."""
        weight = mask if opacity == 1 else mask * np.float32(opacity)
        values = (grey_of(colour),) if self.grey else colour
        for plane, value in zip(self.planes, values, strict=True):
            plane += weight * (np.float32(value) - plane)

    def spot(self, x: float, y: float, sx: float, sy: float) -> Field:
        """A Gaussian of height 1."""
        column = np.exp(-(((self.y[:, :1] - y) / sy) ** 2) / 2)
        row = np.exp(-(((self.x[:1] - x) / sx) ** 2) / 2)
        return np.asarray(column * row, np.float32)

    def _pixels(self, points: Points) -> NDArray[np.int32]:
        return np.rint(((points + EXTENT) * self.unit - 0.5) * 16).astype(np.int32)

    def _soften(self, mask: NDArray[np.uint8], soft: float) -> Field:
        import cv2

        field = mask.astype(np.float32) / np.float32(255)
        if soft * self.unit > 0.3:
            field = np.asarray(cv2.GaussianBlur(field, (0, 0), soft * self.unit), np.float32)
        return field


@functools.lru_cache(maxsize=8)
def grid(side: int) -> tuple[Field, Field]:
    axis = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32) * np.float32(EXTENT)
    x, y = np.meshgrid(axis, axis)
    return x, y


def to_pixels(values: Field, unit: float) -> Field:
    return np.asarray((values + EXTENT) * unit - 0.5, np.float32)


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def arc(wide: float, high: float, base: float) -> Points:
    """The upper half of an ellipse, left to right."""
    angle = np.linspace(np.pi, 0, 40)
    return np.stack([wide * np.cos(angle), base - (high + base) * np.sin(angle)], 1)


def curve(points: Points, steps: int = 10) -> Points:
    """A Catmull-Rom spline through the points."""
    ends = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts: list[Any] = []
    for p0, p1, p2, p3 in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        parts.append(
            0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
                   + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
        )  # fmt: skip
    return np.concatenate([*parts, points[-1:]])


def grey_of(colour: Bgr) -> float:
    """Luma (ITU-R BT.601)."""
    return 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]


def bgr(values: Any) -> Bgr:
    b, g, r = (float(np.clip(value, 0, 1)) for value in values)
    return b, g, r


def scaled(colour: Bgr, factor: float) -> Bgr:
    return bgr([value * factor for value in colour])


def mixed(first: Bgr, second: Bgr, share: float) -> Bgr:
    return bgr([one + (two - one) * share for one, two in zip(first, second, strict=True)])
