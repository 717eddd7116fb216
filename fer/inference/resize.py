"""Crops of any size to the size that a network takes, as ONNX's antialiased Resize does it.

A model.onnx has that in its graph; what runs a model without it resizes here, so that both see the
same pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def resized(faces: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Faces (n, h, w, 1) as float32 (n, side, side, 1), in grey levels that are not rounded."""
    if faces.shape[1:3] == (side, side):
        return faces.astype(np.float32)
    rows, columns = _weights(faces.shape[1], side), _weights(faces.shape[2], side)
    return (rows @ faces[..., 0].astype(np.float32) @ columns.T)[..., None]


@lru_cache(maxsize=256)
def _weights(size: int, side: int) -> NDArray[np.float32]:
    """How much each of `size` pixels counts in each of `side`, (side, size); rows sum to 1.

    A triangle as wide as two pixels of the smaller of both pictures: linear interpolation, or a
    mean of what falls together. What it has outside of the picture counts for the pixel at the
    edge.
    """
    reduction = max(size / side, 1.0)
    centres = (np.arange(side) + 0.5) * size / side
    beyond = math.ceil(reduction)
    pixels = np.arange(-beyond, size + beyond)
    triangle = np.maximum(1 - np.abs(pixels + 0.5 - centres[:, None]) / reduction, 0)
    triangle /= triangle.sum(axis=1, keepdims=True)
    weights = np.zeros((size, side), np.float32)
    np.add.at(weights, pixels.clip(0, size - 1), triangle.T)
    return weights.T
