"""Copies of an image elsewhere in the data: exact ones, and near ones shifted a little.

FER2013 was collected by web search, so one photograph often appears several times, cropped a
few pixels apart, on both sides of the train/test line.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_CELL = 4
_NEAREST = 24
_BLOCK = 256


def near_twins(
    queries: NDArray[np.uint8],
    references: NDArray[np.uint8],
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
    references. Only these are compared in full. An image whose copy is not among its
    24 most alike would be missed; none of FER2013's exact copies are.

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
    steps = range(-((shift + _CELL // 2) // _CELL), (shift + _CELL // 2) // _CELL + 1)
    coarse_queries, coarse_references = _cells(queries), _cells(references)
    windows = {
        (dy, dx): _normalised(_overlap(coarse_references, -dy, -dx)) for dy in steps for dx in steps
    }
    smooth = references.astype(np.float32)
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(queries)))
        candidates: list[NDArray[np.intp]] = []
        for (dy, dx), window in windows.items():
            alike = _normalised(_overlap(coarse_queries[block], dy, dx)) @ window.T
            count = min(_NEAREST, alike.shape[1])
            nearest = np.argpartition(-alike, count - 1, axis=1)[:, :count]
            # A true copy correlates at cell level too; 0.2 below the threshold is generous.
            keep = np.take_along_axis(alike, nearest, axis=1) > correlation - 0.2
            candidates.append(np.where(keep, nearest, -1))
        for row, query in enumerate(queries[block]):
            chosen = np.unique(np.concatenate([one[row] for one in candidates]))
            chosen = chosen[chosen >= 0]
            found[start + row] = len(chosen) > 0 and _any_copy(
                query.astype(np.float32), smooth[chosen], correlation, shift
            )
        advance(block.stop - block.start)
    return found


def _any_copy(query: Floats, references: Floats, correlation: float, shift: int) -> bool:
    """Whether any reference correlates with the query above the threshold at any shift."""
    for dy in sorted(range(-shift, shift + 1), key=abs):
        for dx in sorted(range(-shift, shift + 1), key=abs):
            mine = _normalised(_overlap(query[None], dy, dx))
            theirs = _normalised(_overlap(references, -dy, -dx))
            if (theirs @ mine[0]).max() > correlation:
                return True
    return False


def _cells(images: NDArray[np.uint8]) -> Floats:
    """Means over cells of 4 x 4 pixels: (n, 48, 48) -> (n, 12, 12)."""
    n, height, width = images.shape
    cells = images.reshape(n, height // _CELL, _CELL, width // _CELL, _CELL)
    means: Floats = cells.mean(axis=(2, 4), dtype=np.float32)
    return means


def _overlap(images: Floats, dy: int, dx: int) -> Floats:
    """The part of each image that overlaps another one shifted by (dy, dx)."""
    _, height, width = images.shape
    return images[:, max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]


def _normalised(images: Floats) -> Floats:
    """Flatten; remove each image's mean; scale to unit length (a constant image becomes 0)."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-3)
