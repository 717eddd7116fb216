"""Five points of a face, from which `fer.faces.pose` tells how it is turned.

Source: V. Kazemi and J. Sullivan, One Millisecond Face Alignment with an Ensemble of Regression
Trees, 2014, as dlib has it; the model file is not part of dlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fer.errors import DetectorError
from fer.faces.detector import Detection, Image
from fer.faces.model_files import LANDMARKS, has_model_file, model_file
from fer.faces.pose import Pose

if TYPE_CHECKING:
    from fer.params import FacesParams

_INSTEAD = "faces.align to false"


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

    def pose(self, grey: Image, box: Detection) -> Pose:
        """How the face is turned; see `points`."""
        return Pose.of(self.points(grey, box))


def make_landmarks(params: FacesParams) -> Landmarks | None:
    """Landmarks to turn crops upright by and to tell poses; None where nothing brings the file.

    Raises:
        DetectorError: crops are to be turned upright or FER_LANDMARKS names a file, and it or dlib
            is missing; the message says how to get it.
    """
    from fer.settings import settings

    named = settings().landmarks
    if not params.align and named is None and not has_model_file(LANDMARKS):
        return None
    return Landmarks(named)
