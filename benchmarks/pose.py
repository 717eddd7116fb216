"""How well five landmarks tell the turn of a head, on drawn heads whose turn is known.

    python benchmarks/pose.py --count 200                     # FER_LANDMARKS names dlib's file
    python benchmarks/pose.py --faces fer2013.zip --count 2000

Heads are drawn at random turns, up to 20 degrees to a side and leaning up to 14, found by HOG and
measured; printed are the mean absolute error and the line through the answers. With --faces,
FER2013's validation images are measured too, whose truth nobody knows: how far they are turned,
and whether their mirror images are turned as far to the other side.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import cv2
import numpy as np
from casting import read_faces
from numpy.typing import NDArray

from fer.dataset.drawing.person import Pose as DrawnPose
from fer.dataset.scenes import draw_scene
from fer.expressions import Expression
from fer.faces.detector import Detection, Image, make_detector
from fer.faces.landmarks import Landmarks
from fer.faces.pose import Pose
from fer.params import FacesParams
from fer.settings import settings

# Where HOG's box lies in a FER2013 image; see tests/moving.py.
FRAMED, LOWER = 0.87, 0.07


def drawn(seed: int, yaw: float, roll: float) -> Image:
    """A drawn head, grey, turned by degrees: the sign is a photograph's, right is positive."""
    rng = np.random.default_rng(seed)
    pose = DrawnPose(np.radians(yaw), 0.0, np.radians(roll), (0.1, -0.3), 0.5)
    with patch.object(DrawnPose, "random", return_value=pose):
        picture, _ = draw_scene([Expression.NEUTRAL], rng, 260, 280)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)


def known(count: int, seed: int, landmarks: Landmarks) -> NDArray[np.float64]:
    """(found, 4): the heads' yaw and roll, and what the landmarks say."""
    rng = np.random.default_rng(seed)
    detector, rows = make_detector(), []
    for number in range(count):
        yaw, roll = rng.uniform(-20, 20), rng.uniform(-14, 14)
        grey = drawn(seed * 100_003 + number, yaw, roll)
        found = detector.detect(grey)
        if found:
            pose = landmarks.pose(grey, found[0])
            rows.append((yaw, roll, pose.yaw, pose.roll))
    return np.array(rows)


def real(source: Path, count: int, seed: int, landmarks: Landmarks) -> list[tuple[Pose, Pose]]:
    """The poses of validation images and of their mirror images."""
    side = 48 * FRAMED
    box = Detection(
        24 - side / 2, 24 + 48 * LOWER - side / 2, 24 + side / 2, 24 + 48 * LOWER + side / 2, 1.0
    )
    pixels = read_faces(source, "validation").shuffled(seed, count).pixels
    # Enlarged, since the points that come back are whole pixels.
    big = [np.asarray(cv2.resize(one, None, fx=3, fy=3), np.uint8) for one in pixels]
    box = box.scaled(3)
    return [
        (landmarks.pose(one, box), landmarks.pose(np.ascontiguousarray(one[:, ::-1]), box))
        for one in big
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, help="prepared table or archive of FER2013")
    parser.add_argument("--count", type=int, default=200, help="heads, and images")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    landmarks = Landmarks(settings().landmarks)
    rows = known(arguments.count, arguments.seed, landmarks)
    print(f"{len(rows)} of {arguments.count} drawn heads found by {FacesParams().detector}")
    for name, truth, said in (("yaw", rows[:, 0], rows[:, 2]), ("roll", rows[:, 1], rows[:, 3])):
        slope, offset = np.polyfit(truth, said, 1)
        error, alike = np.abs(said - truth).mean(), np.corrcoef(truth, said)[0, 1]
        print(
            f"{name:<5} mean error {error:.1f} degrees, correlation {alike:.2f}, "
            f"said = {slope:.2f} x true {offset:+.1f}"
        )
    if arguments.faces:
        pairs = real(arguments.faces, arguments.count, arguments.seed, landmarks)
        parts = np.percentile([one.angle for one, _ in pairs], [50, 90, 95, 99])
        print("FER2013: 50, 90, 95, 99 % within " + ", ".join(f"{part:.0f}" for part in parts))
        # A mirror turns both signs round; what is left of the sum is an error.
        for name in ("yaw", "roll"):
            here = np.array([getattr(one, name) for one, _ in pairs])
            there = np.array([getattr(other, name) for _, other in pairs])
            print(
                f"{name:<5} of images and mirror images: correlation "
                f"{np.corrcoef(here, -there)[0, 1]:.2f}, mean difference "
                f"{np.abs(here + there).mean():.1f}, bias {(here + there).mean() / 2:+.1f} degrees"
            )


if __name__ == "__main__":
    main()
