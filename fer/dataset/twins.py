"""Copies of an image elsewhere in the data: exact ones, and near ones shifted a little.

FER2013 was collected by web search, so one photograph often appears several times, cropped a
few pixels apart, on both sides of the train/test line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Images = NDArray[np.uint8]

_CELL = 4
_NEAREST = 24
_BLOCK = 256
_COARSE_SLACK = 0.2
"""A true copy correlates at cell level too; this much below the threshold is generous."""
_SLACK = 1e-3
"""What comes this close to the threshold in float32 is computed again in whole numbers."""


def near_twins(
    queries: Images,
    references: Images,
    *,
    correlation: float,
    shift: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.bool_]:
    """Which queries have a near copy among the references.

    Two images are near copies when, for some shift of up to `shift` pixels along each axis,
    the normalised cross-correlation of their overlap exceeds `correlation`.

    All pairs at all shifts would be some 10^13 operations on FER2013. So candidates are found
    first, on 4-pixel cell means: for each query and coarse shift, the `_NEAREST` most alike
    references. Only these are compared in full: all of a query's, at all shifts, in one matrix
    product, and exactly where that comes near the threshold. An image whose copy is not among
    its 24 most alike would be missed; none of FER2013's exact copies are.

    Args:
        queries: uint8 (n, 48, 48).
        references: uint8 (m, 48, 48).
        correlation: threshold, above 0.5.
        shift: pixels, 0 or more.
        advance: called with the number of queries done since the last call.

    Returns:
        bool (n,).
    """
    found = np.zeros(len(queries), bool)
    if not len(references):
        return found
    # Coarse shifts in steps of one cell cover every fine shift to within half a cell.
    reach = (shift + _CELL // 2) // _CELL
    coarse = _cells(references)
    windows = {
        (dy, dx): _normalised(_overlap(coarse, -dy, -dx))
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
    }
    sums = _Sums.of(references, shift, -1)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        own = _Sums.of(block, shift, 1)
        for row, chosen in _candidates(_cells(block), windows, correlation - _COARSE_SLACK):
            found[start + row] = _any_copy(
                block[row], own.rows([row]), references[chosen], sums.rows(chosen), correlation
            )
        advance(len(block))
    return found


def _candidates(
    cells: Floats, windows: Mapping[tuple[int, int], Floats], threshold: float
) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Of each query's cells that resemble any reference: the row, and those references."""
    alike_to: list[list[NDArray[np.intp]]] = [[] for _ in cells]
    for (dy, dx), window in windows.items():
        alike = _normalised(_overlap(cells, dy, dx)) @ window.T
        rows, columns = np.nonzero(alike > threshold)
        bounds = np.searchsorted(rows, np.arange(len(cells) + 1))
        for row in np.flatnonzero(np.diff(bounds)):
            some = columns[bounds[row] : bounds[row + 1]]
            if len(some) > _NEAREST:
                some = some[np.argpartition(-alike[row, some], _NEAREST - 1)[:_NEAREST]]
            alike_to[row].append(some)
    for query, parts in enumerate(alike_to):
        if parts:
            yield query, np.unique(np.concatenate(parts))


@dataclass(frozen=True)
class _Sums:
    """Sums over the overlap with another image, for every shift (row by row): exact.

    `total` is the sum of grey levels; `spread` is count x sum of squares - total^2, that is
    count x the squared length of the overlap less its mean. Both are int64 (n, shifts).
    """

    shift: int
    total: NDArray[np.int64]
    spread: NDArray[np.int64]

    @classmethod
    def of(cls, images: Images, shift: int, sign: int) -> Self:
        """For shifts of `images` against others (sign 1) or of others against them (-1)."""
        _, height, width = images.shape
        shifts = _shifts(shift)
        total = np.empty((len(images), len(shifts)), np.int64)
        spread = np.empty_like(total)
        for start in range(0, len(images), _BLOCK):
            block = slice(start, start + _BLOCK)
            levels = images[block].astype(np.int32)
            plain, squared = _integral(levels), _integral(levels * levels)
            for index, (dy, dx) in enumerate(shifts):
                down, right = sign * dy, sign * dx
                top, bottom = max(down, 0), height + min(down, 0)
                left, end = max(right, 0), width + min(right, 0)
                one, two = (
                    table[:, bottom, end].astype(np.int64)
                    - table[:, top, end]
                    - table[:, bottom, left]
                    + table[:, top, left]
                    for table in (plain, squared)
                )
                total[block, index] = one
                spread[block, index] = (bottom - top) * (end - left) * two - one * one
        return cls(shift, total, spread)

    def rows(self, chosen: Any) -> Self:
        return type(self)(self.shift, self.total[chosen], self.spread[chosen])


def _any_copy(
    query: Images, own: _Sums, references: Images, sums: _Sums, correlation: float
) -> bool:
    """Whether any reference correlates with the query above the threshold at any shift.

    Both images are taken less their means, which keeps float32 products small. Such a product
    of n pixels is off by no more than n x 2^-24 times the images' lengths (Higham 2002, 3.5);
    where `_SLACK` does not cover that, because the overlap is flat and the rest is not, the
    exact value is computed too.
    """
    height, width = query.shape
    shifts = _shifts(own.shift)
    count = np.array([(height - abs(dy)) * (width - abs(dx)) for dy, dx in shifts])
    middle = len(shifts) // 2
    means = sums.total[:, middle] / query.size
    mean = own.total[0, middle] / query.size

    padded = np.pad(query.astype(np.float32) - np.float32(mean), own.shift)
    shifted = np.lib.stride_tricks.sliding_window_view(padded, query.shape)
    flat = references.reshape(len(references), -1) - means[:, None].astype(np.float32)
    product = flat @ shifted.reshape(len(shifts), -1).T
    product = product - (own.total - count * mean) * (sums.total / count - means[:, None])
    scale = np.sqrt(own.spread.astype(np.float64) * sums.spread) / count
    alike = np.divide(product, scale, out=np.zeros_like(scale), where=scale > 0)

    error = query.size * 2.0**-24 * scale[:, [middle]]
    unsure = (alike > correlation - _SLACK) | ((scale > 0) & (scale * _SLACK < error))
    places = np.argwhere(unsure)
    for reference, index in places[np.argsort(-alike[unsure], kind="stable")]:
        dy, dx = shifts[index]
        mine = _overlap(query[None], dy, dx).astype(np.int64)
        theirs = _overlap(references[[reference]], -dy, -dx).astype(np.int64)
        covariance = int(count[index]) * int((mine * theirs).sum()) - int(
            own.total[0, index]
        ) * int(sums.total[reference, index])
        lengths = math.sqrt(int(own.spread[0, index]) * int(sums.spread[reference, index]))
        if covariance > correlation * lengths:
            return True
    return False


def _shifts(shift: int) -> list[tuple[int, int]]:
    span = range(-shift, shift + 1)
    return [(dy, dx) for dy in span for dx in span]


def _integral(levels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Sums over everything above and left of each pixel: (n, h, w) -> (n, h + 1, w + 1)."""
    table = np.zeros((len(levels), levels.shape[1] + 1, levels.shape[2] + 1), np.int32)
    # 48 x 48 squares of 255 sum to 150 million: int32 holds them.
    np.cumsum(levels, axis=1, dtype=np.int32, out=table[:, 1:, 1:])
    np.cumsum(table[:, 1:, 1:], axis=2, dtype=np.int32, out=table[:, 1:, 1:])
    return table


def _cells(images: Images) -> Floats:
    """Means over cells of 4 x 4 pixels: (n, 48, 48) -> (n, 12, 12)."""
    n, height, width = images.shape
    cells = images.reshape(n, height // _CELL, _CELL, width // _CELL, _CELL)
    means: Floats = cells.mean(axis=(2, 4), dtype=np.float32)
    return means


def _overlap(images: NDArray[Any], dy: int, dx: int) -> NDArray[Any]:
    """The part of each image that overlaps another one shifted by (dy, dx)."""
    _, height, width = images.shape
    return images[:, max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]


def _normalised(images: Floats) -> Floats:
    """Flatten; remove each image's mean; scale to unit length (a constant image becomes 0)."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    unit: Floats = np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-3)
    return unit
