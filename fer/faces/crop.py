"""A face box as the 48 px grey square that FER2013 has and the network was trained on."""

from __future__ import annotations

import math

import numpy as np

from fer.errors import UsageError
from fer.faces.detector import Detection, Image

CROP_SIZE = 48
"""Side of FER2013's images, px."""


def crop_face(
    image: Image,
    box: Detection,
    margin: float = 0.0,
    size: int = CROP_SIZE,
    tilt: float = 0.0,
) -> Image:
    """Cut one face out of a grey image.

    The square is centred on the box, its side `1 + margin` times the box's longer side. Where
    it reaches outside the image the nearest edge pixels are repeated: a black border would
    look like shadow. Shrinking averages areas, enlarging interpolates linearly.

    Args:
        image: uint8 (height, width).
        box: in this image's pixels.
        margin: -0.5 to 2, params.yaml's `faces.margin`.
        size: side of the result, px.
        tilt: degrees by which the square is turned clockwise about its centre, as
            `fer.faces.pose` measures its roll: the result shows it upright.

    Returns:
        uint8 (size, size).

    Raises:
        UsageError: the image is not grey uint8, or the box has no area.

    Example:
        >>> import numpy as np
        >>> grey = np.arange(10_000, dtype=np.uint8).reshape(100, 100)
        >>> crop_face(grey, Detection(10, 10, 58, 58, 1.0)).shape
        (48, 48)
    """
    if image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
        raise UsageError(
            f"A face is cropped from uint8 pixels (height, width), not {image.dtype} {image.shape}."
        )
    side = (1.0 + margin) * max(box.width, box.height)
    if not np.isfinite(side) or min(box.width, box.height) <= 0:
        raise UsageError(f"The box {box} has no area, so there is nothing to crop.")
    pixels = max(1, round(side))
    if tilt:
        return _resized(_turned(image, box, pixels, tilt), size)
    first_row = round((box.top + box.bottom) / 2 - pixels / 2)
    first_column = round((box.left + box.right) / 2 - pixels / 2)
    # Clipped indices are edge replication, also for a box wholly outside.
    rows = np.clip(np.arange(first_row, first_row + pixels), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(first_column, first_column + pixels), 0, image.shape[1] - 1)
    # Only the rows and columns that the square covers, before the two index look-ups.
    inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _resized(inside[rows - rows[0]][:, columns - columns[0]], size)


def _turned(image: Image, box: Detection, pixels: int, tilt: float) -> Image:
    """The square of `pixels` about the box's centre, turned clockwise, at the image's scale."""
    import cv2

    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    # Pixel centres: the box's edges lie half a pixel before the indices of its pixels.
    x, y = (box.left + box.right - 1) / 2, (box.top + box.bottom - 1) / 2
    half = (pixels - 1) / 2
    back = np.array(
        [[cos, -sin, x - half * (cos - sin)], [sin, cos, y - half * (sin + cos)]], np.float64
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(
        image, back, (pixels, pixels), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(turned, np.uint8)


def _resized(square: Image, size: int) -> Image:
    import cv2

    if len(square) == size:
        return np.ascontiguousarray(square)
    method = cv2.INTER_AREA if len(square) > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=method), np.uint8)
