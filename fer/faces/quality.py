"""What a face crop is worth: size, sharpness, brightness, pose. It marks, it never drops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer.faces.crop import CROP_SIZE
from fer.faces.detector import Image

# Beyond these a crop is unlike what the network learnt from: the first and the last percentile
# of 6,000 FER2013 images drawn with seed 0 (sharpness 1 % 422; brightness 1 % 53, 99 % 203).
MIN_SHARPNESS = 422.0
BRIGHTNESS = (53.0, 203.0)
# Likewise, of validation images (benchmarks/pose.py --faces): 99 % are turned by less.
MAX_POSE = 60.0
# A smaller face is enlarged to the crop: it has less detail than any FER2013 image.
MIN_SIZE = float(CROP_SIZE)


@dataclass(frozen=True)
class Quality:
    """Measures of one face.

    Attributes:
        size: longer side of the detection box, px of the original picture.
        sharpness: variance of the Laplacian of the 48 px crop, in squared grey levels.
        brightness: mean grey level of the crop, 0 to 255.
        pose: degrees by which the head is turned away from upright and frontal, as
            `fer.faces.pose` tells from landmarks; None where their file is missing.
    """

    size: float
    sharpness: float
    brightness: float
    pose: float | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """Which of `small`, `blurred`, `dark`, `bright`, `turned` hold; () for a face as FER2013's
        are. Without a pose nothing is called turned."""
        holds = {
            "small": self.size < MIN_SIZE,
            "blurred": self.sharpness < MIN_SHARPNESS,
            "dark": self.brightness < BRIGHTNESS[0],
            "bright": self.brightness > BRIGHTNESS[1],
            "turned": self.pose is not None and self.pose > MAX_POSE,
        }
        return tuple(name for name, true in holds.items() if true)


def measure(crop: Image, size: float, pose: float | None = None) -> Quality:
    """Measure one crop.

    Args:
        crop: uint8 (48, 48), from `fer.faces.crop.crop_face`.
        size: longer side of the face's box in the original picture, px.
        pose: see `Quality`.
    """
    import cv2

    sharpness = float(cv2.Laplacian(crop, cv2.CV_64F).var())
    return Quality(float(size), sharpness, float(np.mean(crop)), pose)
