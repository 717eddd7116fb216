"""What a face detector is: the seam between pictures and the libraries that find faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fer.errors import DetectorError

if TYPE_CHECKING:
    from fer.params import FacesParams

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Detection:
    """One face: a box in pixels and the detector's score.

    `left` and `top` lie on the box, `right` and `bottom` one past it, all counted from the
    upper left corner of the picture as it is shown. A box may reach outside the picture where
    the face does. Scores of different detectors do not compare: dlib's is a distance from the
    decision surface (0 is the threshold), YuNet's lies between 0 and 1.
    """

    left: float
    top: float
    right: float
    bottom: float
    score: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def scaled(self, factor: float) -> Detection:
        """The same face in a picture `factor` times as large."""
        return Detection(
            self.left * factor,
            self.top * factor,
            self.right * factor,
            self.bottom * factor,
            self.score,
        )


class Detector(Protocol):
    """Finds faces. Implementations may be called from several threads at once."""

    @property
    def name(self) -> str:
        """The name params.yaml and the results use."""
        ...

    @property
    def colour(self) -> bool:
        """Whether colour finds more faces than grey; grey is accepted either way."""
        ...

    @property
    def max_side(self) -> int:
        """Longest side looked at, px; larger images are scaled down first."""
        ...

    @property
    def smallest_face(self) -> float:
        """Side of the smallest face found, px of an image no larger than `max_side`.

        In a larger image it grows with the scale: times `max(width, height) / max_side`.
        """
        ...

    def detect(self, image: Image) -> list[Detection]:
        """Faces of one image, best score first, boxes in the image's own pixels.

        Args:
            image: uint8, (height, width) grey or (height, width, 3) RGB.

        Raises:
            DetectorError: the array is neither.
        """
        ...


def make_detector(params: FacesParams | None = None) -> Detector:
    """The detector that params.yaml's `faces` section describes.

    Example:
        >>> import numpy as np
        >>> make_detector().detect(np.zeros((480, 640), np.uint8))
        []

    Raises:
        DetectorError: the library or its model file is missing; the message says how to get it.
    """
    # Params need pydantic, whose import takes longer than all else `Recognizer` needs.
    from fer.params import FacesParams

    params = params or FacesParams()
    if params.detector == "opencv-yunet":
        from fer.faces.opencv_detector import YuNetDetector
        from fer.settings import settings

        return YuNetDetector(settings().yunet, max_side=params.max_side, min_score=params.min_score)
    if params.detector == "dlib-mmod":
        from fer.faces.mmod_detector import DlibMmodDetector
        from fer.settings import settings

        return DlibMmodDetector(
            settings().mmod,
            upsample=params.upsample,
            max_side=params.max_side,
            min_score=params.min_score,
        )
    from fer.faces.dlib_detector import DlibHogDetector

    return DlibHogDetector(
        upsample=params.upsample, max_side=params.max_side, min_score=params.min_score
    )


def checked(image: Image) -> Image:
    """`image` as contiguous memory, if it is one a detector accepts.

    Raises:
        DetectorError: it is not uint8, or not (height, width) or (height, width, 3).
    """
    array = np.asarray(image)
    grey_or_rgb = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not grey_or_rgb:
        raise DetectorError(
            f"A detector wants uint8 pixels of shape (height, width) or (height, width, 3), "
            f"not {array.dtype} {array.shape}. fer.inference.images.read_image makes them."
        )
    return np.ascontiguousarray(array)


def shrunk(image: Image, max_side: int) -> tuple[Image, float, float]:
    """The image no larger than `max_side`, and how many times it was shrunk across and down."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= max_side:
        return image, 1.0, 1.0
    import cv2

    size = (
        max(1, round(width * max_side / longest)),
        max(1, round(height * max_side / longest)),
    )
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small, width / size[0], height / size[1]
