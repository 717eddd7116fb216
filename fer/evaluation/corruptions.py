"""What cameras, cables and detectors do to a face, in known amounts.

After Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions
and perturbations", with what a face detector adds: a box that lies elsewhere or is of another
size. Colour is not among them: a picture is made grey before the model sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Faces = NDArray[np.uint8]


@dataclass(frozen=True)
class Corruption:
    """One thing done to faces in one strength.

    Attributes:
        kind: what, such as `blur`; corruptions of one kind stand together.
        level: how much, in words.
        change: uint8 (n, h, w) to the same; what is random in it comes from the generator.
    """

    kind: str
    level: str
    change: Callable[[Faces, Generator], Faces]

    def apply(self, faces: Faces, seed: int) -> Faces:
        """The faces changed; equal seeds give equal pixels, whatever else was changed before."""
        generator = np.random.default_rng([seed, *f"{self.kind} {self.level}".encode()])
        return self.change(faces, generator)


def _blur(faces: Faces, _: Generator, sigma: float) -> Faces:
    import cv2

    return np.stack([cv2.GaussianBlur(face, (0, 0), sigma) for face in faces]).astype(np.uint8)


def _noise(faces: Faces, generator: Generator, deviation: float) -> Faces:
    return _levels(faces + generator.normal(0, deviation * 255, faces.shape))


def _jpeg(faces: Faces, _: Generator, quality: int) -> Faces:
    import cv2

    def there_and_back(face: Faces) -> Faces:
        _, data = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        return np.asarray(decoded, np.uint8)

    return np.stack([there_and_back(face) for face in faces])


def _small(faces: Faces, _: Generator, share: float) -> Faces:
    """As from further away: averaged down to `share` of the side, and enlarged again."""
    import cv2

    height, width = faces.shape[1:]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    reduced = [cv2.resize(face, small, interpolation=cv2.INTER_AREA) for face in faces]
    back = [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in reduced]
    return np.stack(back).astype(np.uint8)


def _shift(faces: Faces, generator: Generator, share: float) -> Faces:
    """Moved by `share` of the side, each face in a direction of its own."""
    angles = generator.uniform(0, 2 * math.pi, len(faces))
    height, width = faces.shape[1:]
    return _moved(
        faces,
        [
            (1.0, share * width * math.cos(angle), share * height * math.sin(angle))
            for angle in angles
        ],
    )


def _scale(faces: Faces, _: Generator, factor: float) -> Faces:
    """The face `factor` times as large in its crop, about the centre."""
    return _moved(faces, [(factor, 0.0, 0.0)] * len(faces))


def _moved(faces: Faces, moves: list[tuple[float, float, float]]) -> Faces:
    """Each face scaled about its centre and shifted by (x, y) pixels.

    What lies outside FER2013's crop nobody knows; it is filled by reflection, as in training.
    """
    import cv2

    height, width = faces.shape[1:]
    x, y = (width - 1) / 2, (height - 1) / 2
    moved = [
        cv2.warpAffine(
            face,
            np.array(
                [
                    [factor, 0, x - factor * x + right],
                    [0, factor, y - factor * y + down],
                ]
            ),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        for face, (factor, right, down) in zip(faces, moves, strict=True)
    ]
    return np.stack(moved).astype(np.uint8)


def _brightness(faces: Faces, _: Generator, change: float) -> Faces:
    return _levels(faces + change * 255)


def _contrast(faces: Faces, _: Generator, factor: float) -> Faces:
    """Grey levels `factor` times as far from their face's mean."""
    mean = faces.mean(axis=(1, 2), keepdims=True)
    return _levels((faces - mean) * factor + mean)


def _levels(values: NDArray[np.floating[Any]]) -> Faces:
    levels: Faces = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return levels


CORRUPTIONS: Final = (
    Corruption("blur", "sigma 1 px", partial(_blur, sigma=1.0)),
    Corruption("blur", "sigma 2 px", partial(_blur, sigma=2.0)),
    Corruption("noise", "5 % of the range", partial(_noise, deviation=0.05)),
    Corruption("noise", "10 % of the range", partial(_noise, deviation=0.1)),
    Corruption("JPEG", "quality 30", partial(_jpeg, quality=30)),
    Corruption("JPEG", "quality 10", partial(_jpeg, quality=10)),
    Corruption("low resolution", "32 px", partial(_small, share=32 / 48)),
    Corruption("low resolution", "24 px", partial(_small, share=24 / 48)),
    Corruption("shift of the crop", "5 % of the side", partial(_shift, share=0.05)),
    Corruption("shift of the crop", "10 % of the side", partial(_shift, share=0.1)),
    Corruption("scale of the crop", "face 0.85 times as large", partial(_scale, factor=0.85)),
    Corruption("scale of the crop", "face 1.15 times as large", partial(_scale, factor=1.15)),
    Corruption("brightness", "25 % of the range less", partial(_brightness, change=-0.25)),
    Corruption("brightness", "25 % of the range more", partial(_brightness, change=0.25)),
    Corruption("contrast", "half of it", partial(_contrast, factor=0.5)),
    Corruption("contrast", "one and a half times", partial(_contrast, factor=1.5)),
)
"""What `fer.evaluation.robustness` measures under. Lengths are those of 48 px faces."""
