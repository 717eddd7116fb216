"""A drawn head: a height map lit by one lamp under a map of colours, turned by its pose.

The face is an ellipsoid with a nose, sockets, cheeks, lips, chin and furrows; its colours are
skin, lips, brows, eyes and hair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer.dataset.drawing.canvas import EXTENT, Canvas, Field, scaled, to_pixels
from fer.dataset.drawing.features import (
    paint_brows,
    paint_eyes,
    paint_mouth,
    paint_skin,
    shape_relief,
)
from fer.dataset.drawing.hair import ear_outline, hair_behind, hair_over, head_outline, strands
from fer.dataset.drawing.person import Actions, Look, Pose


def render_head(
    look: Look, actions: Actions, pose: Pose, side: int, grey: bool = False
) -> tuple[Field, Field, Field]:
    """Draw a head facing the viewer, lit.

    Returns:
        Colours (side, side, 3) BGR 0 to 1, or (side, side) where `grey`; coverage (side, side)
        0 to 1; and the relief (side, side) in face units that `project` turns by.
    """
    canvas = Canvas(side, grey)
    head = head_outline(look, actions)
    face = canvas.area(head, 0.012)
    ears = np.maximum(*(canvas.area(ear_outline(look, s), 0.01) for s in (-1, 1)))
    if look.style == "long":
        ears = np.zeros_like(ears)  # under the hair
    behind = hair_behind(look)
    back = canvas.area(behind, 0.02) if behind is not None else np.zeros_like(face)
    canvas.paint(np.ones_like(face), look.hair)
    shape_relief(canvas, look, actions)
    smooth = canvas.height.copy()
    canvas.paint(ears, scaled(look.skin, 0.86))
    canvas.paint(face, look.skin)
    paint_skin(canvas, look, actions)
    paint_eyes(canvas, look, actions)
    paint_mouth(canvas, look, actions)
    paint_brows(canvas, look, actions)
    shade = _shading(canvas, pose)
    hair = hair_over(canvas, look, face)
    canvas.paint(hair, look.hair)
    shine = strands(canvas, look)
    cover = np.maximum(hair, back * (1 - np.maximum(face, ears)))
    shade = shade * (1 - cover) + shine * cover
    planes = np.clip(canvas.planes * shade, 0, 1)
    colour = planes[0] if grey else np.ascontiguousarray(planes.transpose(1, 2, 0))
    alpha = np.clip(np.maximum.reduce([face, ears, hair, back]), 0, 1)
    return colour, alpha, smooth


def project(
    images: Sequence[Field],
    relief: Field,
    pose: Pose,
    side: int,
    scale: float,
    centre: tuple[float, float],
) -> list[Field]:
    """Turn a drawn head by its pose and place it in a picture.

    Args:
        images: maps of the head, square and of one size.
        relief: its height map, which decides how far each point moves when the head turns.
        side: of the square picture that comes back, px.
        scale: picture px per face unit.
        centre: picture px (x, y) where the middle of the face goes.

    Points are found by inverting x' = x cos(yaw) + z sin(yaw) (y with pitch alike) in a few
    fixed-point steps, which converge for the small angles a `Pose` has.
    """
    import cv2

    unit = relief.shape[0] / (2 * EXTENT)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    dx, dy = (columns - centre[0]) / scale, (rows - centre[1]) / scale
    cosine, sine = np.cos(pose.roll), np.sin(pose.roll)
    tx, ty = dx * cosine + dy * sine, -dx * sine + dy * cosine
    depth = np.asarray(cv2.GaussianBlur(relief, (0, 0), 0.03 * unit), np.float32) - 0.3
    x, y = tx.astype(np.float32), ty.astype(np.float32)
    for _ in range(4):
        z = cv2.remap(
            depth, to_pixels(x, unit), to_pixels(y, unit), cv2.INTER_LINEAR, None,
            cv2.BORDER_REPLICATE,
        )  # fmt: skip
        x = ((tx - z * np.sin(pose.yaw)) / np.cos(pose.yaw)).astype(np.float32)
        y = ((ty - z * np.sin(pose.pitch)) / np.cos(pose.pitch)).astype(np.float32)
    mx, my = to_pixels(x, unit), to_pixels(y, unit)
    return [
        np.asarray(
            cv2.remap(image, mx, my, cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT, 0), np.float32
        )
        for image in images
    ]


def _shading(canvas: Canvas, pose: Pose) -> Field:
    """Lambert shading of the relief by a lamp, about 1 where the face looks at the viewer."""
    slope_y, slope_x = np.gradient(canvas.height * canvas.unit)
    limit = 2.2
    slope_x, slope_y = np.clip(slope_x, -limit, limit), np.clip(slope_y, -limit, limit)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    lx, ly = pose.light
    lamp = np.array([lx, ly, 1.0]) / np.sqrt(lx**2 + ly**2 + 1)
    facing = (-slope_x * lamp[0] - slope_y * lamp[1] + lamp[2]) / length
    diffuse = np.clip(facing, 0, None) / lamp[2]
    return np.asarray(pose.ambient + (1 - pose.ambient) * diffuse, np.float32)
