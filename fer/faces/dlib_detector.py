"""dlib's frontal face detector: histograms of oriented gradients and a linear classifier.

Source: N. Dalal and B. Triggs, Histograms of Oriented Gradients for Human Detection, 2005;
D. E. King, Max-Margin Object Detection, 2015. The detector is part of dlib: no model file.
"""

from __future__ import annotations

import copy
import threading
from functools import cache
from typing import Any

import numpy as np

from fer.errors import DetectorError
from fer.faces.detector import Detection, Image, checked, shrunk

# Measured with upright frontal faces: the sliding window is 80 px.
_WINDOW = 80.0
# Below this side even the upsampled image holds no window, and dlib has nothing to scan.
_LEAST_SIDE = 8


class DlibHogDetector:
    """The default detector: quick on a CPU, few false alarms, upright faces near frontal.

    Args:
        upsample: times the image is doubled before the search; each quadruples the time and
            halves the smallest face (0: about 80 px, 1: about 40 px).
        max_side: larger images are scaled down to this first, px.
        min_score: the threshold; None is dlib's own, 0. Lower finds more faces and more noise.
    """

    name = "dlib-hog"
    colour = False  # grey takes three quarters of the time and finds the same faces

    def __init__(
        self, *, upsample: int = 1, max_side: int = 1600, min_score: float | None = None
    ) -> None:
        self.upsample = upsample
        self.max_side = max_side
        self.min_score = 0.0 if min_score is None else min_score
        # A dlib detector keeps the image pyramid it scans, so each thread needs its own.
        self._local = threading.local()
        self._of_this_thread()  # a missing library is reported now, not in a worker thread

    @property
    def smallest_face(self) -> float:
        return _WINDOW * 0.5**self.upsample

    def halved(self) -> DlibHogDetector:
        """The same detector with one doubling less: for faces of twice the size, in a quarter of
        the time. Both share what each thread keeps."""
        other = copy.copy(self)
        other.upsample -= 1
        return other

    def detect(self, image: Image) -> list[Detection]:
        array = checked(image)
        if array.ndim == 3:
            import cv2

            array = np.asarray(cv2.cvtColor(array, cv2.COLOR_RGB2GRAY), np.uint8)
        small, across, down = shrunk(array, self.max_side)
        if min(small.shape) < _LEAST_SIDE:
            return []
        boxes, scores, _ = self._of_this_thread().run(small, self.upsample, self.min_score)
        found = [
            # dlib's right and bottom edges are the last pixel inside.
            Detection(
                box.left() * across,
                box.top() * down,
                (box.right() + 1) * across,
                (box.bottom() + 1) * down,
                float(score),
            )
            for box, score in zip(boxes, scores, strict=True)
        ]
        return sorted(found, key=lambda one: -one.score)

    def _of_this_thread(self) -> Any:
        if not hasattr(self._local, "detector"):
            self._local.detector = copy.deepcopy(_pristine())
        return self._local.detector


@cache
def _pristine() -> Any:
    """dlib's detector, to be copied and never run: dlib takes much longer to unpack another."""
    try:
        import dlib
    except ImportError as error:
        raise DetectorError(
            f"dlib cannot be imported ({error}). Install its wheel with "
            "`pip install dlib-bin`, or set faces.detector to opencv-yunet."
        ) from None
    return dlib.get_frontal_face_detector()
