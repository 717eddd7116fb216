"""FER2013 faces for made scenes: read where the data lies, and chosen for their parts."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import moving
import numpy as np
from numpy.typing import NDArray

from fer.expressions import EXPRESSIONS
from fer.faces.crop import crop_face
from fer.faces.detector import Detection, Detector, Image
from fer.inference.classifier import Classifier

TABLE = Path("data/prepared/faces.parquet")
SURE = 0.6
"""Probability that the model gives the label of a face which is to show it in a scene."""

CLEAR = 0.3
"""HOG's score of such a face: one at the threshold is found in one frame and not in the next."""

_SIDE = 132  # px, of the squares in which faces are looked for
_TOGETHER = 6


@dataclass(frozen=True)
class Faces:
    """uint8 (n, 48, 48), and the expression's index of each."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def shuffled(self, seed: int, count: int | None = None) -> Faces:
        """So many of them, in an order that depends on the seed alone."""
        order = np.random.default_rng(seed).permutation(len(self.labels))[:count]
        return Faces(self.pixels[order], self.labels[order])


def read_faces(source: Path, split: str = "test") -> Faces:
    """One split of the prepared table, or of the archive that FER_DATA may name."""
    if source.suffix == ".parquet":
        from fer.dataset.table import FaceTable

        part = FaceTable.read(source).part(split)
        return Faces(part.pixels.reshape(-1, 48, 48), part.expression.astype(np.int64))
    from fer.dataset.sources.layout import image_of, is_image

    prefix = {"train": "Training_", "validation": "PublicTest_", "test": "PrivateTest_"}[split]
    with zipfile.ZipFile(source) as archive:
        names = [name for name in archive.namelist() if is_image(name) and prefix in name]
        images = [image_of(name, archive.read(name)) for name in sorted(names)]
    if not images:
        raise SystemExit(f"{source} has no files named {prefix}*, so it tells no test set.")
    pixels = np.stack([one.pixels for one in images if one.pixels is not None])
    labels = [EXPRESSIONS.index(one.label) for one in images if one.pixels is not None]
    return Faces(pixels, np.array(labels))


def default_source() -> Path:
    """The prepared table where there is one, else the archive that FER_DATA names."""
    from fer.settings import settings

    source = TABLE if TABLE.is_file() else settings().data
    if source is None or not source.is_file():
        raise SystemExit(
            "There is no prepared table and FER_DATA names no archive. Run `dvc repro prepare`, "
            "or name a table or archive with --faces."
        )
    return source


def find_in_stills(
    faces: Faces, detector: Detector, seed: int
) -> Iterator[tuple[int, Image, moving.Box, Detection | None]]:
    """Each face pasted into a still: its number, the picture, its square, and what was found."""
    for first in range(0, len(faces.labels), _TOGETHER):
        part = faces.pixels[first : first + _TOGETHER]
        picture, squares = moving.still(list(part), _SIDE, np.random.default_rng([seed, first]))
        found = detector.detect(picture)
        for place, square in enumerate(squares):
            here = [one for one in found if _within(one, square)]
            yield first + place, picture, square, here[0] if here else None


def choose_looks(
    faces: Faces, classifier: Classifier, detector: Detector, count: int, seed: int
) -> list[moving.Look]:
    """Faces that HOG clearly finds in a still, where the model is sure of what they show.

    Tracks and dates can only be judged on faces that are found and read; what becomes of the
    others is measured by `benchmarks/crops.py`.
    """
    shuffled = faces.shuffled(seed, 20 * count)
    scores = classifier.probabilities(shuffled.pixels)
    sure = scores[np.arange(len(scores)), shuffled.labels] >= SURE
    fitting = Faces(shuffled.pixels[sure], shuffled.labels[sure])
    looks = []
    for number, picture, _, box in find_in_stills(fitting, detector, seed):
        if box is None or box.score < CLEAR:
            continue
        label = int(fitting.labels[number])
        if classifier.probabilities(crop_face(picture, box)[None])[0, label] >= SURE:
            looks.append(moving.Look(fitting.pixels[number], label))
        if len(looks) == count:
            return looks
    raise SystemExit(f"Only {len(looks)} faces fit, of {count}. Ask for fewer.")


def _within(found: Detection, square: moving.Box) -> bool:
    x, y = (found.left + found.right) / 2, (found.top + found.bottom) / 2
    return square[0] < x < square[2] and square[1] < y < square[3]
