"""What varies from face to face: who it is, what it shows, how it is turned and lit.

Expressions are action units of the Facial Action Coding System (Ekman, Friesen, Hager 2002),
each in its own measure, so that no two faces show an expression alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from fer.dataset.drawing.canvas import Bgr, bgr
from fer.expressions import Expression

# Action units of each expression with their strongest intensity, after EMFACS.
ACTIONS: Final[Mapping[Expression, Mapping[str, float]]] = {
    Expression.ANGRY: {"AU4": 1.0, "AU7": 0.9, "AU23": 0.9, "AU17": 0.5, "AU5": 0.25},
    Expression.DISGUST: {"AU9": 1.0, "AU10": 1.0, "AU4": 0.5, "AU7": 0.6, "AU17": 0.4, "AU15": 0.2},
    Expression.FEAR: {
        "AU1": 1.0, "AU2": 0.55, "AU4": 0.55, "AU5": 1.0, "AU20": 1.0, "AU25": 0.8, "AU26": 0.25,
    },
    Expression.HAPPY: {"AU6": 0.9, "AU12": 1.0, "AU25": 1.0},
    Expression.SAD: {"AU1": 1.0, "AU4": 0.6, "AU15": 1.0, "AU17": 0.5, "AU43": 0.35},
    Expression.SURPRISE: {"AU1": 0.9, "AU2": 1.0, "AU5": 0.9, "AU26": 1.0},
    Expression.NEUTRAL: {},
}  # fmt: skip


class Actions(dict[str, float]):
    """Intensities of action units, 0 to 1; a unit that is not named rests."""

    def __missing__(self, unit: str) -> float:
        return 0.0

    @classmethod
    def of(cls, expression: Expression, rng: np.random.Generator) -> Actions:
        """An expression shown faintly to fully, each unit in its own measure, some noise on all."""
        strength = rng.uniform(0.55, 1.0)
        units = cls()
        for unit, peak in ACTIONS[expression].items():
            units[unit] = float(np.clip(peak * strength * rng.uniform(0.65, 1.2), 0, 1.1))
        if expression is Expression.HAPPY and rng.random() < 0.3:
            units["AU25"] = 0.0  # a smile with closed lips
        # People rest their faces differently: a trace of other units in everybody.
        for unit in ("AU1", "AU2", "AU4", "AU7", "AU12", "AU15", "AU23", "AU25"):
            if rng.random() < 0.3:
                units[unit] = units[unit] + float(rng.uniform(0, 0.15))
        return units


@dataclass(frozen=True)
class Look:
    """Who it is: shape, colours, hair."""

    width: float
    jaw: float
    eye_size: float
    eye_gap: float
    nose: float
    lips: float
    mouth: float
    brow: float
    age: float
    skin: Bgr
    hair: Bgr
    iris: Bgr
    hairline: float
    style: str
    beard: float
    seed: int

    @classmethod
    def random(cls, rng: np.random.Generator) -> Look:
        """Somebody."""
        tone = rng.beta(2.2, 1.6)
        dark, light = np.array([0.20, 0.28, 0.42]), np.array([0.70, 0.78, 0.94])
        skin = dark + (light - dark) * tone + rng.uniform(-0.03, 0.03, 3)
        hairs = ((0.07, 0.08, 0.09), (0.09, 0.13, 0.20), (0.14, 0.24, 0.36), (0.38, 0.55, 0.68),
                 (0.55, 0.56, 0.57), (0.13, 0.22, 0.44))  # fmt: skip
        share = np.array([0.34, 0.28, 0.16, 0.1, 0.06, 0.06])
        if tone < 0.35:
            share = np.array([0.75, 0.19, 0.0, 0.0, 0.06, 0.0])
        hair = np.array(hairs[rng.choice(6, p=share)]) * rng.uniform(0.85, 1.15)
        irises = ((0.08, 0.12, 0.2), (0.12, 0.2, 0.3), (0.4, 0.34, 0.26), (0.2, 0.3, 0.26))
        styles = ["short", "side", "long", "fringe", "bald"]
        style = str(rng.choice(styles, p=[0.38, 0.22, 0.25, 0.1, 0.05]))
        bearded = style in ("short", "bald") and rng.random() < 0.3
        return cls(
            width=rng.uniform(0.68, 0.8),
            jaw=rng.uniform(0.55, 0.85),
            eye_size=rng.uniform(0.9, 1.15),
            eye_gap=rng.uniform(0.3, 0.35),
            nose=rng.uniform(0.85, 1.2),
            lips=rng.uniform(0.8, 1.25),
            mouth=rng.uniform(0.9, 1.12),
            brow=rng.uniform(0.75, 1.3),
            age=rng.uniform(0.2, 1.0),
            skin=bgr(skin),
            hair=bgr(hair),
            iris=bgr(irises[int(rng.integers(4))]),
            hairline=rng.uniform(-0.8, -0.68),
            style=style,
            beard=float(rng.uniform(0.15, 0.5)) if bearded else 0.0,
            seed=int(rng.integers(2**31)),
        )  # fmt: skip


@dataclass(frozen=True)
class Pose:
    """How the head is turned (radians) and lit (direction of the lamp, its hardness)."""

    yaw: float
    pitch: float
    roll: float
    light: tuple[float, float]
    ambient: float

    @classmethod
    def random(cls, rng: np.random.Generator, spread: float = 1.0) -> Pose:
        """A pose near the frontal one; `spread` 1 reaches 20 degrees of yaw, 12 of roll."""
        return cls(
            yaw=float(np.clip(rng.normal(0, 0.17 * spread), -0.36, 0.36)),
            pitch=float(np.clip(rng.normal(0, 0.07 * spread), -0.15, 0.15)),
            roll=float(np.clip(rng.normal(0, 0.1 * spread), -0.24, 0.24)),
            light=(rng.uniform(-0.55, 0.55), rng.uniform(-0.65, 0.0)),
            ambient=rng.uniform(0.35, 0.6),
        )
