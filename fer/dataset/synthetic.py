"""Synthetic faces: a small dataset of drawn expressions, for demonstrations and tests.

Nothing is downloaded and nobody is shown: `fer.dataset.drawing` draws every face. The same
seed gives the same pixels (with one version of OpenCV and NumPy).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer.dataset.drawing.canvas import EXTENT, Field
from fer.dataset.drawing.person import Actions, Look, Pose
from fer.dataset.drawing.portrait import project, render_head
from fer.dataset.scenes import draw_scene
from fer.dataset.table import SIDE, SourceImage
from fer.expressions import Expression

__all__ = ["draw_face", "draw_scene", "synthetic_dataset"]

_SHARES: Final = {"validation": 0.1, "test": 0.1}


def draw_face(
    expression: Expression, rng: np.random.Generator, size: int = SIDE
) -> NDArray[np.uint8]:
    """Draw one face that fills its picture, as FER2013's do.

    Identity, pose, light, background, blur and noise are drawn from `rng`.

    Args:
        expression: what the face shows.
        rng: source of everything that varies; the same state gives the same bytes.
        size: side of the picture, px.

    Returns:
        (size, size) uint8, grey.
    """
    import cv2

    look, actions, pose = Look.random(rng), Actions.of(expression, rng), Pose.random(rng, 0.7)
    # Drawn larger and averaged down: smooth edges at 48 px.
    fine = size * (3 if size <= 64 else 2)
    scale = fine / 2 * rng.uniform(0.92, 1.06)
    centre = fine / 2 * (1 + rng.normal(0, 0.03, 2)) + [0, -0.02 * fine]
    side = round(2 * EXTENT * scale)
    tone, alpha, relief = render_head(look, actions, pose, side, grey=True)
    tone, alpha = project(
        [tone, alpha], relief, pose, fine, scale, (float(centre[0]), float(centre[1]))
    )
    picture = _backdrop(fine, rng)
    _shoulders(picture, centre, scale, look, rng)
    picture += alpha * (tone - picture)
    grey = np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    # A camera: exposure and contrast, focus, noise that grows as the light goes.
    grey = (grey - 0.45) * rng.uniform(0.85, 1.35) + rng.uniform(0.42, 0.6)
    blur = rng.uniform(0, 0.012) * size
    if blur > 0.2:
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), blur), np.float32)
    grey += rng.normal(0, rng.uniform(0.004, 0.03), grey.shape)
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)


def synthetic_dataset(images_per_class: int, duplicates: float, seed: int) -> Iterator[SourceImage]:
    """Draw a dataset in the shape of FER2013, with faults for cleaning to find.

    Each class has `images_per_class` images: 80 % train, 10 % validation, 10 % test. A share
    `duplicates` of all images repeats a training image of the same class pixel for pixel, by
    turns inside train and in test; one training image is all black.

    Args:
        images_per_class: at least 10.
        duplicates: 0 to 1; no more than half the training images and no more than the
            test images of a class are ever copies.
        seed: the same seed gives the same images, whatever was drawn before.

    Yields:
        Images in the order of splits, classes, numbers.
    """
    held = {split: max(1, round(images_per_class * share)) for split, share in _SHARES.items()}
    counts = {"train": images_per_class - sum(held.values()), **held}
    copies = _copies(counts, duplicates)
    for split, count in counts.items():
        for expression in Expression:
            for number in range(1, count + 1):
                key = (split, expression, number)
                if key == ("train", Expression.NEUTRAL, counts["train"]):
                    pixels = np.zeros((SIDE, SIDE), np.uint8)
                else:
                    drawn = copies.get(key, key)
                    stream = [seed, list(counts).index(drawn[0]), int(expression), drawn[2]]
                    pixels = draw_face(expression, np.random.default_rng(stream))
                name = f"{split}/{expression.label}/{number:05d}"
                yield SourceImage(name, split, expression.label, pixels)


_Key = tuple[str, Expression, int]


def _copies(counts: dict[str, int], share: float) -> dict[_Key, _Key]:
    """Which images repeat which: the later half of train and the test images repeat early train."""
    wanted = round(share * sum(counts.values()) * len(Expression))
    half = counts["train"] // 2
    inside: list[tuple[_Key, _Key]] = []
    across: list[tuple[_Key, _Key]] = []
    for step in range(half - 1):
        for expression in Expression:
            source: _Key = ("train", expression, 1 + step)
            inside.append((("train", expression, counts["train"] - 1 - step), source))
            if step < counts["test"]:
                across.append((("test", expression, counts["test"] - step), source))
    turns = [pair for both in zip(inside, across, strict=False) for pair in both]
    return dict((turns + inside[len(across) :])[:wanted])


def _backdrop(side: int, rng: np.random.Generator) -> Field:
    """A room out of focus: a gradient and a few soft patches."""
    import cv2

    coarse = rng.uniform(0.1, 0.9) + rng.normal(0, 0.13, (4, 4)).astype(np.float32)
    coarse = np.asarray(coarse, np.float32)
    wide = np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.clip(wide, 0.0, 1.0)


def _shoulders(
    picture: Field, centre: NDArray[np.float64], scale: float, look: Look, rng: np.random.Generator
) -> None:
    """Neck and clothes, in place."""
    from fer.dataset.scenes import draw_body

    tone = rng.uniform(0.1, 0.8)
    draw_body(picture, (float(centre[0]), float(centre[1])), scale, look, (tone, tone, tone))
