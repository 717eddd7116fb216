"""Five points of a face, and from them how far it leans to one side.

Source: V. Kazemi and J. Sullivan, One Millisecond Face Alignment with an Ensemble of Regression
Trees, 2014, as dlib has it; the model file is not part of dlib.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fer.errors import DetectorError
from fer.faces.detector import Detection, Image
from fer.faces.model_files import LANDMARKS, model_file

if TYPE_CHECKING:
    from fer.params import FacesParams

_INSTEAD = "faces.align to false"
_MOST_TILT = 50.0
"""Degrees: no detector here finds a face that leans further, so the points are wrong."""


class Landmarks:
    """Corners of the eyes and base of the nose. May be called from several threads.

    Args:
        model: shape_predictor_5_face_landmarks.dat; None looks where packages put it.

    Raises:
        DetectorError: dlib or the file is missing, or the file is none of dlib's.
    """

    def __init__(self, model: Path | None = None) -> None:
        path = model_file(LANDMARKS, model, "faces.align", _INSTEAD)
        try:
            import dlib
        except ImportError as error:
            raise DetectorError(
                f"dlib cannot be imported ({error}). Install its wheel with "
                f"`pip install dlib-bin`, or set {_INSTEAD}."
            ) from None
        self._rectangle: Any = dlib.rectangle
        try:
            self._predictor: Any = dlib.shape_predictor(str(path))
            count = self._predictor(np.zeros((64, 64), np.uint8), dlib.rectangle(8, 8, 55, 55))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise DetectorError(
                f"dlib cannot load {path} as landmarks: {reason} "
                f"Set FER_LANDMARKS to a whole {LANDMARKS}, or {_INSTEAD}."
            ) from None
        if count.num_parts != 5:
            raise DetectorError(
                f"{path} gives {count.num_parts} points, not 5. Set FER_LANDMARKS to {LANDMARKS}, "
                f"or {_INSTEAD}."
            )

    def points(self, grey: Image, box: Detection) -> NDArray[np.float64]:
        """Where the five points are.

        Args:
            grey: uint8 (h, w).
            box: the face, in pixels of `grey`.

        Returns:
            (5, 2), x and y, px: outer and inner corner of the eye at the right of the picture,
            the same of the eye at its left, the base of the nose.
        """
        edges = (box.left, box.top, box.right - 1, box.bottom - 1)
        shape = self._predictor(
            np.ascontiguousarray(grey), self._rectangle(*(round(edge) for edge in edges))
        )
        return np.array([(part.x, part.y) for part in shape.parts()], np.float64)

    def tilt(self, grey: Image, box: Detection) -> float:
        """Degrees by which the line of the eyes falls to the right; 0 where it cannot be told."""
        points = self.points(grey, box)
        x, y = points[:2].mean(axis=0) - points[2:4].mean(axis=0)
        degrees = math.degrees(math.atan2(y, x))
        return degrees if abs(degrees) <= _MOST_TILT else 0.0


def make_landmarks(params: FacesParams) -> Landmarks | None:
    """The landmarks that params.yaml's `faces` section asks for; None where it asks for none.

    Raises:
        DetectorError: dlib or the model file is missing; the message says how to get it.
    """
    if not params.align:
        return None
    from fer.settings import settings

    return Landmarks(settings().landmarks)
