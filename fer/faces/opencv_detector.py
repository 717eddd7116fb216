"""OpenCV's YuNet face detector (`cv2.FaceDetectorYN`), the second implementation.

Source: W. Wu, H. Peng, S. Yu, YuNet: A Tiny Millisecond-level Face Detector, 2023. Its model
file (face_detection_yunet_2023mar.onnx, 230 kB, MIT licence) is not part of OpenCV's wheel.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from fer.errors import DetectorError
from fer.faces.detector import Detection, Image, checked, shrunk

_HOW = (
    "Download face_detection_yunet_2023mar.onnx from OpenCV's model zoo "
    "(github.com/opencv/opencv_zoo, models/face_detection_yunet) and set FER_YUNET to its path, "
    "or set faces.detector to dlib-hog, which needs no file."
)
_NMS = 0.3  # overlap above which two boxes are one face; OpenCV's own default
_TOP_K = 5000


class YuNetDetector:
    """A small convolutional network: finds smaller and more turned faces than HOG.

    Args:
        model: the ONNX file.
        max_side: larger images are scaled down to this first, px.
        min_score: the threshold between 0 and 1; None is 0.7.

    Raises:
        DetectorError: no file is named, it is absent, or OpenCV cannot load it.
    """

    name = "opencv-yunet"
    colour = True
    smallest_face = 10.0  # as its authors state

    def __init__(
        self, model: Path | None, *, max_side: int = 1600, min_score: float | None = None
    ) -> None:
        if model is None:
            raise DetectorError(f"faces.detector is opencv-yunet, but FER_YUNET is unset. {_HOW}")
        if not model.is_file():
            raise DetectorError(f"FER_YUNET names {model}, which is not a file. {_HOW}")
        self.max_side = max_side
        self.min_score = 0.7 if min_score is None else min_score
        self._model = model
        # The input size is state of the network, so each thread needs its own.
        self._local = threading.local()
        self._of_this_thread()

    def detect(self, image: Image) -> list[Detection]:
        import cv2

        array, across, down = shrunk(checked(image), self.max_side)
        code = cv2.COLOR_GRAY2BGR if array.ndim == 2 else cv2.COLOR_RGB2BGR
        bgr = cv2.cvtColor(array, code)
        network = self._of_this_thread()
        network.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, rows = network.detect(bgr)
        if rows is None:
            return []
        found = [to_detection(row, across, down) for row in np.asarray(rows, np.float64)]
        return sorted(found, key=lambda one: -one.score)

    def _of_this_thread(self) -> Any:
        if not hasattr(self._local, "network"):
            import cv2

            if not hasattr(cv2, "FaceDetectorYN"):
                raise DetectorError(
                    f"OpenCV {cv2.__version__} has no FaceDetectorYN. "
                    "Install opencv-python-headless>=4.12,<5, or set faces.detector to dlib-hog."
                )
            try:
                self._local.network = cv2.FaceDetectorYN.create(
                    str(self._model), "", (320, 320), self.min_score, _NMS, _TOP_K
                )
            except cv2.error as error:
                reason = " ".join(str(error).split())
                raise DetectorError(
                    f"OpenCV cannot load {self._model} as YuNet: {reason}. {_HOW}"
                ) from None
        return self._local.network


def to_detection(row: np.ndarray[Any, Any], across: float, down: float) -> Detection:
    """One row of YuNet's answer: x, y, width, height, ten landmark coordinates, score."""
    left, top, width, height = (float(value) for value in row[:4])
    return Detection(
        left * across,
        top * down,
        (left + width) * across,
        (top + height) * down,
        float(row[14]),
    )
