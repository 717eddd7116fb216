"""Drawn photographs: one or more synthetic people in front of a room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fer.dataset.drawing.canvas import EXTENT, Bgr, Field, grey_of
from fer.dataset.drawing.person import Actions, Look, Pose
from fer.dataset.drawing.portrait import project, render_head
from fer.expressions import Expression

Box = tuple[int, int, int, int]
"""left, top, right, bottom in px; right and bottom are exclusive."""


def draw_scene(
    expressions: Sequence[Expression], rng: np.random.Generator, width: int = 640, height: int = 480
) -> tuple[NDArray[np.uint8], list[Box]]:
    """Draw people side by side, one for each expression.

    Faces are 100 to 200 px high, less where the picture has no room for that.

    Returns:
        The picture, (height, width, 3) uint8 BGR, and the box of each face (brows to chin, as
        dlib's frontal detector frames it) in the order of `expressions`.
    """
    import cv2

    picture = _room(width, height, rng)
    boxes: list[Box] = []
    column = width / max(1, len(expressions))
    for index, expression in enumerate(expressions):
        look, actions = Look.random(rng), Actions.of(expression, rng)
        pose = Pose.random(rng, spread=0.6)
        face = min(rng.uniform(120, 200), column * 0.72, height * 0.5)
        scale = face / 1.7
        spare = max(0.0, column - 2.1 * scale) / 2
        x = column * (index + 0.5) + rng.uniform(-spare, spare) * 0.8
        low, high = 1.25 * scale, max(1.25 * scale, height - 1.35 * scale)
        y = low + (high - low) * rng.uniform(0.15, 0.75)
        clothes = np.clip(rng.uniform(0.08, 0.75, 3) * 0.6 + rng.uniform(0, 0.3), 0, 1)
        draw_body(picture, (x, y), scale, look, (clothes[0], clothes[1], clothes[2]))
        _place(picture, look, actions, pose, (x, y), scale)
        side = 1.55 * scale
        left, top = round(x - side / 2), round(y + 0.17 * scale - side / 2)
        boxes.append((left, top, left + round(side), top + round(side)))
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.6), np.float32)
    picture += rng.normal(0, 0.012, picture.shape)
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8), boxes


def draw_body(
    picture: Field, centre: tuple[float, float], scale: float, look: Look, clothes: Bgr
) -> None:
    """Draw neck and shoulders below a head at `centre`, in place.

    `picture` is (h, w, 3) BGR or (h, w) grey; `scale` is px per face unit.
    """
    import cv2

    def area(points: list[tuple[float, float]], soft: float) -> Field:
        shape = np.array(points) * scale + centre
        mask = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.rint(shape * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        field = mask.astype(np.float32) / np.float32(255)
        return np.asarray(cv2.GaussianBlur(field, (0, 0), max(0.5, soft * scale)), np.float32)

    def paint(mask: Field, colour: Bgr, opacity: float = 1.0) -> None:
        if picture.ndim == 2:
            picture[:] += mask * np.float32(opacity) * (np.float32(grey_of(colour)) - picture)
        else:
            weight = (mask * np.float32(opacity))[..., None]
            picture[:] += weight * (np.asarray(colour, np.float32) - picture)

    skin = look.skin
    neck = [(-0.42, 0.4), (0.42, 0.4), (0.44, 1.2), (0.6, 1.6), (-0.6, 1.6), (-0.44, 1.2)]
    paint(area(neck, 0.02), (skin[0] * 0.72, skin[1] * 0.72, skin[2] * 0.72))
    paint(area([(-0.5, 0.7), (0.5, 0.7), (0.4, 1.15), (0.0, 1.25), (-0.4, 1.15)], 0.06),
          (skin[0] * 0.4, skin[1] * 0.4, skin[2] * 0.4), 0.8)  # fmt: skip
    body = [(-0.5, 1.22), (-0.95, 1.38), (-1.35, 1.6), (-1.6, 2.2), (-1.7, 9.0), (1.7, 9.0),
            (1.6, 2.2), (1.35, 1.6), (0.95, 1.38), (0.5, 1.22), (0.25, 1.45), (0.0, 1.52),
            (-0.25, 1.45)]  # fmt: skip
    paint(area(body, 0.015), clothes)
    for side in (-1, 1):
        fold = [(side * 0.5, 1.22), (side * 0.3, 1.45), (side * 0.36, 1.5), (side * 0.58, 1.25)]
        paint(area(fold, 0.02), (clothes[0] * 0.6, clothes[1] * 0.6, clothes[2] * 0.6), 0.8)
        arm = [(side * 1.0, 2.2), (side * 1.05, 9.0), (side * 1.15, 9.0), (side * 1.1, 2.2)]
        paint(area(arm, 0.06), (clothes[0] * 0.5, clothes[1] * 0.5, clothes[2] * 0.5), 0.7)


def _place(
    picture: Field,
    look: Look,
    actions: Actions,
    pose: Pose,
    centre: tuple[float, float],
    scale: float,
) -> None:
    """Draw a head into the picture, in place."""
    import cv2

    maps = render_head(look, actions, pose, round(2 * EXTENT * scale * 2))
    side = 2 * round(EXTENT * scale) + 2
    left, top = round(centre[0] - side / 2), round(centre[1] - side / 2)
    # Twice as fine, then averaged: no jagged edges.
    middle = (2 * (centre[0] - left), 2 * (centre[1] - top))
    turned = project([maps[0], maps[1]], maps[2], pose, 2 * side, 2 * scale, middle)
    colour, alpha = (cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in turned)
    rows, columns = picture.shape[:2]
    x0, y0, x1, y1 = max(0, left), max(0, top), min(columns, left + side), min(rows, top + side)
    part = picture[y0:y1, x0:x1]
    inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    part += alpha[inside][..., None] * (colour[inside] - part)


def _room(width: int, height: int, rng: np.random.Generator) -> Field:
    """A wall in soft light with a few things out of focus."""
    import cv2

    wall = np.array([0.62, 0.68, 0.72]) * rng.uniform(0.7, 1.2) + rng.uniform(-0.08, 0.08, 3)
    picture = np.empty((height, width, 3), np.float32)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * rng.uniform(-0.14, 0.14)
    down = np.linspace(0.08, -0.12, height, dtype=np.float32)[:, None]
    picture[:] = (across + down)[..., None] + wall.astype(np.float32)
    things = picture.copy()
    for _ in range(int(rng.integers(3, 6))):
        x, y = rng.uniform(-0.1, 0.95) * width, rng.uniform(-0.1, 0.7) * height
        w, h = rng.uniform(0.08, 0.3) * width, rng.uniform(0.15, 0.5) * height
        colour = np.clip(wall * rng.uniform(0.5, 1.3) + rng.uniform(-0.12, 0.12, 3), 0, 1)
        cv2.rectangle(
            things, (round(x), round(y)), (round(x + w), round(y + h)), colour.tolist(), -1
        )
    soft = cv2.GaussianBlur(things, (0, 0), width / 60)
    return np.clip(np.asarray(soft, np.float32), 0.0, 1.0)
