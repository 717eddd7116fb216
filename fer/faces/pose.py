"""How far a head is turned, from five points of its face."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOSE = 0.2
"""How far the base of the nose stands out before the eyes, over the distance of the eyes' outer
corners: 2.1 of 10.6 cm in the rigid head that pose from landmarks is commonly fitted with (wings of
the nose 2.0 before the mean of the eyes' corners, the base 0.1 to 0.4 more)."""

_MOST_ROLL = 50.0
"""Degrees: no detector here finds a face that leans further, so the points are wrong."""


@dataclass(frozen=True)
class Pose:
    """A head's turn in degrees; both are 0 for a face that is upright and looks at the camera.

    Attributes:
        roll: by which the line of the eyes falls to the right of the picture; 0 where it cannot
            be told.
        yaw: by which the face looks to the right of the picture. A proxy: it supposes a nose of
            usual length, so it is good to a third of its value. Nodding is not measured.
    """

    roll: float
    yaw: float

    @property
    def angle(self) -> float:
        """Degrees away from upright and frontal; what the results call pose."""
        return math.hypot(self.roll, self.yaw)

    @classmethod
    def of(cls, points: NDArray[np.float64]) -> Pose:
        """From the points that `fer.faces.landmarks.Landmarks.points` gives.

        A turned head shows its nose aside of the middle between the eyes, by the nose's depth
        times the sine of the angle, and its eyes closer together, by the cosine.
        """
        right, left, nose = points[:2].mean(axis=0), points[2:4].mean(axis=0), points[4]
        x, y = right - left
        roll = math.degrees(math.atan2(y, x))
        apart = float(np.linalg.norm(points[0] - points[2]))
        if abs(roll) > _MOST_ROLL or apart < 1.0:
            return cls(0.0, 0.0)
        aside = float(np.dot(nose - (left + right) / 2, (right - left) / math.hypot(x, y)))
        return cls(roll, math.degrees(math.atan2(aside, NOSE * apart)))
