"""Take the picture of `fer live` that docs/video.md shows: docs/images/live.png.

    python docs/live.py

Needs an OpenCV with windows (`pip install --force-reinstall --no-deps opencv-python`) and Xvfb. The
video is made of scikit-image's astronaut, a photograph of NASA's, over which the camera pans.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import clips
import cv2
import display
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut

from fer import Recognizer
from fer.inference.camera import Camera
from fer.inference.live import Live, LiveFrame
from fer.inference.screen import Screen, open_window
from fer.params import VideoParams

TARGET = Path(__file__).parent / "images" / "live.png"
SECONDS = 12
SETTLED = 30  # frames with a face, after which the smoothed probabilities are the face's


class Photographed:
    """The window, until its picture has been taken."""

    def __init__(self, window: Screen, screen: str) -> None:
        self.window, self.screen = window, screen
        self.faces = 0

    def show(self, picture: NDArray[np.uint8]) -> bool:
        go_on = self.window.show(picture)
        if self.faces < SETTLED:
            return go_on
        # 128 colours: a third of the size.
        taken = Image.fromarray(display.screenshot(self.screen)).quantize(128)
        taken.save(TARGET, optimize=True)
        return False

    def close(self) -> None:
        self.window.close()

    def count(self, frame: LiveFrame) -> None:
        self.faces += bool(frame.faces)


def pan(path: Path) -> Path:
    """A camera that moves over the photograph, 640x480 at 15 frames/s."""
    picture = cv2.cvtColor(np.asarray(astronaut()), cv2.COLOR_RGB2BGR)
    frames = []
    for number in range(SECONDS * 15):
        left = 40 + round(30 * np.sin(number / 30))
        part = picture[:330, left : left + 440]
        frames.append(np.asarray(cv2.resize(part, (640, 480)), np.uint8))
    return clips.write(path, frames, 15)


def main() -> None:
    """Show, wait, take the picture."""
    if reason := display.without_windows():
        raise SystemExit(f"There is no window to take a picture of: {reason}.")
    recognizer = Recognizer.load()
    # A busy machine may take longer to detect than a face is otherwise carried.
    params = VideoParams(max_carried=60, max_missing=60)
    with tempfile.TemporaryDirectory() as folder, display.virtual_display(640, 480) as screen:
        os.environ["DISPLAY"] = screen
        window, why = open_window()
        if window is None:
            raise SystemExit(f"No window: {why}.")
        taken = Photographed(window, screen)
        with Camera(str(pan(Path(folder) / "pan.mp4")), repeat=True) as camera:
            Live(camera, recognizer, params, screen=taken).run(on_frame=taken.count)
    print(f"{TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
