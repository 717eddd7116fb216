"""A face box as the 48 px grey square that FER2013 has and the network was trained on."""

from __future__ import annotations

import numpy as np

from fer.errors import UsageError
from fer.faces.detector import Detection, Image

CROP_SIZE = 48
"""Side of FER2013's images, px."""


def crop_face(image: Image, box: Detection, margin: float = 0.0, size: int = CROP_SIZE) -> Image:
    """Cut one face out of a grey image.

    The square is centred on the box, its side `1 + margin` times the box's longer side. Where
    it reaches outside the image the nearest edge pixels are repeated: a black border would
    look like shadow. Shrinking averages areas, enlarging interpolates linearly.

    Args:
        image: uint8 (height, width).
        box: in this image's pixels.
        margin: -0.5 to 2, params.yaml's `faces.margin`.
        size: side of the result, px.

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
    import cv2

    pixels = max(1, round(side))
    first_row = round((box.top + box.bottom) / 2 - pixels / 2)
    first_column = round((box.left + box.right) / 2 - pixels / 2)
    # Clipped indices are edge replication, also for a box wholly outside.
    rows = np.clip(np.arange(first_row, first_row + pixels), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(first_column, first_column + pixels), 0, image.shape[1] - 1)
    # Only the rows and columns that the square covers, before the two index look-ups.
    inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    square = inside[rows - rows[0]][:, columns - columns[0]]
    if pixels == size:
        return np.ascontiguousarray(square)
    method = cv2.INTER_AREA if pixels > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=method), np.uint8)
