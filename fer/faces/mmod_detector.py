"""dlib's convolutional face detector: more turned and hidden faces than HOG, at a high price.

Source: D. E. King, Max-Margin Object Detection, 2015; its network and training data are those of
dlib's dnn_mmod_face_detection example. The model file is not part of dlib.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from fer.errors import DetectorError
from fer.faces.detector import Detection, Image, checked, shrunk
from fer.faces.model_files import MMOD, model_file

# Measured by scaling one face: found at 60 px by itself, reliably from 80 on.
_WINDOW = 80.0
_LEAST_SIDE = 40  # of the searched image: below it there is no window, and dlib may fail
_BYTES = 1250  # of memory per searched pixel, measured at 640x480
_MOST_MEMORY = 8 << 30
_INSTEAD = "faces.detector to dlib-hog, which needs no file"


class DlibMmodDetector:
    """A convolutional network in a pyramid of scales: made for GPUs, slow on a CPU.

    One frame of 640x480 takes some 2 s of one core, a hundred times as long as HOG without
    upsampling, and 0.4 GB; time and memory grow with the number of pixels searched, fourfold
    for each `upsample`. dlib holds Python's lock meanwhile, so threads do not help.

    Args:
        model: mmod_human_face_detector.dat; None looks where packages put it.
        upsample: times the image is doubled before the search; see `smallest_face`.
        max_side: larger images are scaled down to this first, px.
        min_score: the threshold; None is the network's own, 0. Certain faces score about 1.

    Raises:
        DetectorError: dlib or the file is missing, the file is none of dlib's, or pictures of
            `max_side` would take more than 8 GB.
    """

    name = "dlib-mmod"
    colour = True

    def __init__(
        self,
        model: Path | None = None,
        *,
        upsample: int = 1,
        max_side: int = 1600,
        min_score: float | None = None,
    ) -> None:
        self.upsample = upsample
        self.max_side = max_side
        self.min_score = 0.0 if min_score is None else min_score
        path = model_file(MMOD, model, "faces.detector dlib-mmod", _INSTEAD)
        self._network = _load(path)
        needed = _BYTES * (max_side * 2**upsample) ** 2
        if needed > _MOST_MEMORY:
            raise DetectorError(
                f"dlib-mmod with faces.max_side {max_side} and faces.upsample {upsample} would "
                f"take up to {needed / 2**30:.0f} GB. Set them lower: 960 and 0 take 1 GB."
            )
        # A network keeps what its layers computed, and gains nothing from threads.
        self._one_at_a_time = threading.Lock()

    @property
    def smallest_face(self) -> float:
        return _WINDOW * 0.5**self.upsample

    def detect(self, image: Image) -> list[Detection]:
        array, across, down = shrunk(checked(image), self.max_side)
        if min(array.shape[:2]) * 2**self.upsample < _LEAST_SIDE:
            return []
        if array.ndim == 2:
            array = np.repeat(array[:, :, None], 3, axis=2)
        with self._one_at_a_time:
            faces = self._network(array, self.upsample)
        found = [
            # dlib's right and bottom edges are the last pixel inside.
            Detection(
                face.rect.left() * across,
                face.rect.top() * down,
                (face.rect.right() + 1) * across,
                (face.rect.bottom() + 1) * down,
                float(face.confidence),
            )
            for face in faces
            if face.confidence >= self.min_score
        ]
        return sorted(found, key=lambda one: -one.score)


def _load(path: Path) -> Any:
    try:
        import dlib
    except ImportError as error:
        raise DetectorError(
            f"dlib cannot be imported ({error}). Install its wheel with `pip install dlib-bin`, "
            "or set faces.detector to opencv-yunet."
        ) from None
    try:
        return dlib.cnn_face_detection_model_v1(str(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DetectorError(
            f"dlib cannot load {path} as its face detector: {reason} "
            f"Set FER_MMOD to a whole {MMOD}, or {_INSTEAD}."
        ) from None
