"""How far a head is turned, from points whose turn is known."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer.faces.detector import Detection
from fer.faces.landmarks import Landmarks
from fer.faces.pose import NOSE, Pose

# Eyes' corners and base of the nose of a head that looks at the camera: x, y, and depth towards it.
HEAD = np.array(
    [(50.0, 0, 0), (18, 0, 0), (-50, 0, 0), (-18, 0, 0), (0, 45, NOSE * 100)], np.float64
)


def seen(yaw: float, roll: float) -> np.ndarray:
    """The head's points in a picture, turned by degrees."""
    turn, lean = math.radians(yaw), math.radians(roll)
    across = HEAD[:, 0] * math.cos(turn) + HEAD[:, 2] * math.sin(turn)
    flat = np.column_stack([across, HEAD[:, 1]])
    spin = np.array([[math.cos(lean), -math.sin(lean)], [math.sin(lean), math.cos(lean)]])
    return np.asarray(flat @ spin.T + 200)


@pytest.mark.parametrize("yaw", [-35, -10, 0, 20])
@pytest.mark.parametrize("roll", [-20, 0, 30])
def test_a_turn_is_told(yaw: float, roll: float) -> None:
    pose = Pose.of(seen(yaw, roll))
    assert pose.yaw == pytest.approx(yaw, abs=1e-6)
    assert pose.roll == pytest.approx(roll, abs=1e-6)
    assert pose.angle == pytest.approx(math.hypot(yaw, roll))


def test_points_that_are_no_face_tell_nothing() -> None:
    assert Pose.of(seen(0, 80)) == Pose(0.0, 0.0)
    assert Pose.of(np.full((5, 2), 7.0)) == Pose(0.0, 0.0)


def test_a_mirror_turns_a_photograph_round(landmarks_file: Path, astronaut: np.ndarray) -> None:
    grey = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)
    landmarks, (height, width) = Landmarks(landmarks_file), grey.shape
    assert height == width == 512
    here = landmarks.pose(grey, Detection(175, 76, 266, 167, 1))
    mirrored = np.ascontiguousarray(grey[:, ::-1])
    there = landmarks.pose(mirrored, Detection(width - 266, 76, width - 175, 167, 1))
    assert here.yaw == pytest.approx(-there.yaw, abs=8)
    assert here.roll == pytest.approx(-there.roll, abs=4)
