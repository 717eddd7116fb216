"""Detection, crop and quality of every face of one picture, in one step."""

from __future__ import annotations

from dataclasses import dataclass

from fer.faces.crop import crop_face
from fer.faces.detector import Detection, Detector, Image
from fer.faces.landmarks import Landmarks
from fer.faces.quality import Quality, measure


@dataclass(frozen=True)
class FoundFace:
    """One face of a picture.

    Attributes:
        detection: box in pixels of the original picture.
        quality: see `fer.faces.quality`.
        crop: uint8 (48, 48), what the classifier sees.
    """

    detection: Detection
    quality: Quality
    crop: Image


def find_faces(
    grey: Image,
    detector: Detector,
    *,
    margin: float = 0.0,
    rgb: Image | None = None,
    reduction: float = 1.0,
    landmarks: Landmarks | None = None,
    align: bool = False,
) -> list[FoundFace]:
    """Every face of a picture, best score first.

    Args:
        grey: uint8 (h, w), perhaps a reduced copy of the picture.
        detector: from `fer.faces.detector.make_detector`.
        margin: see `fer.faces.crop.crop_face`.
        rgb: uint8 (h, w, 3), for a detector that profits from colour.
        reduction: original pixels per pixel of `grey`; boxes and sizes are given in the original's.
        landmarks: what tells the pose; None leaves it untold.
        align: turn crops upright by the landmarks; else faces stay as they lean.
    """
    image = rgb if rgb is not None and detector.colour else grey
    return [
        found_face(grey, one, margin, reduction, landmarks, align) for one in detector.detect(image)
    ]


def found_face(
    grey: Image,
    box: Detection,
    margin: float = 0.0,
    reduction: float = 1.0,
    landmarks: Landmarks | None = None,
    align: bool = False,
) -> FoundFace:
    """Crop and quality of one face whose box, in pixels of `grey`, is known; see `find_faces`."""
    pose = landmarks.pose(grey, box) if landmarks else None
    crop = crop_face(grey, box, margin, tilt=pose.roll if pose and align else 0.0)
    original = box.scaled(reduction)
    size = max(original.width, original.height)
    return FoundFace(original, measure(crop, size, pose.angle if pose else None), crop)
