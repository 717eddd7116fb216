"""The outline of a head, its ears and its hair."""

from __future__ import annotations

import numpy as np

from fer.dataset.drawing.canvas import Canvas, Field, Points, arc, curve, ellipse
from fer.dataset.drawing.person import Actions, Look


def head_outline(look: Look, a: Actions) -> Points:
    """Skull and jaw as a closed polygon."""
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    x, y = np.sin(angle), -np.cos(angle)
    below = np.clip(y, 0, None)
    # A lower exponent squares the jaw, a higher one points the chin.
    width = look.width * (1 - 0.2 * (1.2 - look.jaw) * below**1.5)
    length = np.where(y > 0, 1.0 + 0.15 * a["AU26"], 0.98)
    return np.stack([x * width, y * length], 1)


def ear_outline(look: Look, side: int) -> Points:
    return ellipse(side * (look.width + 0.035), -0.1, 0.085, 0.2)


def hair_behind(look: Look) -> Points | None:
    """Hair that shows behind the head, if the style has any."""
    if look.style == "long":
        wide = look.width + 0.24
        return np.array([
            *arc(wide, 1.2, -0.12), [wide + 0.03, 0.5], [wide, 1.1], [wide - 0.12, 1.3],
            [0.5, 1.3], [0.42, 0.6], [-0.42, 0.6], [-0.5, 1.3], [0.12 - wide, 1.3],
            [-wide, 1.1], [-wide - 0.03, 0.5],
        ])  # fmt: skip
    if look.style == "bald":
        return None
    return np.array([*arc(look.width + 0.09, 1.12, -0.12), [look.width, 0.05], [-look.width, 0.05]])


def hair_over(canvas: Canvas, look: Look, face: Field) -> Field:
    """Coverage of the hair that lies over the face: the cap above the hair line, sideburns."""
    if look.style == "bald":
        return np.zeros_like(face)
    wide, line = look.width, look.hairline
    # Left to right; the right half of the symmetric styles mirrors the left.
    halves = {
        "fringe": [[-wide, -0.2], [-0.6, -0.5], [-0.3, -0.6]],
        "long": [[-wide, 0.75], [0.1 - wide, 0.2], [-0.6, -0.35], [-0.4, line + 0.08]],
        "short": [[-wide, -0.05], [0.06 - wide, -0.3], [-0.55, -0.55], [-0.4, line]],
    }
    middle = {"fringe": -0.585, "long": line - 0.1, "short": line - 0.04}
    if look.style == "side":
        s = 1 if look.seed % 2 else -1
        edge = [[-wide, -0.2], [-0.62, -0.45], [-0.45, line + 0.1 - 0.05 * s]]
        edge += [
            [0.15 * s, line - 0.05],
            [0.45, line + 0.1 + 0.05 * s],
            [0.62, -0.45],
            [wide, -0.2],
        ]
    else:
        left = halves[look.style]
        edge = [*left, [0.0, middle[look.style]], *([-x, y] for x, y in left[::-1])]
    below = curve(np.array(edge, float))[::-1]
    cap = np.array([*arc(wide + 0.09, 1.12, -0.12)])
    return canvas.area(np.concatenate([cap, below]), 0.02)


def strands(canvas: Canvas, look: Look) -> Field:
    """Light on the hair: a soft band with streaks that follow the skull."""
    rng = np.random.default_rng(look.seed)
    angle = np.arctan2(canvas.x, -(canvas.y - 0.3))
    phases = rng.uniform(0, 6.3, 3)
    streak = np.zeros_like(angle)
    for frequency, phase in zip((23.0, 41.0, 67.0), phases, strict=True):
        streak += np.sin(angle * frequency + phase + 2 * canvas.y)
    band = np.exp(-((np.hypot(canvas.x, canvas.y + 0.1) - 0.92) ** 2) / 0.02)
    return np.asarray(0.85 + 0.13 * streak / 3 + 0.55 * band * (1 + 0.25 * streak / 3), np.float32)
