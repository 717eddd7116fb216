"""Where live pictures go: a window, where there is one to be had, and a recording."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fer.inference.video_writer import VideoWriter, check_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECORD_FPS = 20.0
"""Frames per second of a recording; live frames come when they come, and are repeated."""


class Screen(Protocol):
    """Shows pictures."""

    def show(self, picture: NDArray[np.uint8]) -> bool:
        """Show a BGR picture; False once the user wants to end."""
        ...

    def close(self) -> None:
        """Take the window away."""
        ...


class Window:
    """A window of OpenCV's. Escape, q, or closing it ends."""

    def __init__(self, title: str = "fer live") -> None:
        import cv2

        self.title = title
        self._sized = False
        # Without the toolbar that Qt would add.
        kind = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
        cv2.namedWindow(title, kind)

    def show(self, picture: NDArray[np.uint8]) -> bool:
        import cv2

        if not self._sized:
            cv2.resizeWindow(self.title, picture.shape[1], picture.shape[0])
            self._sized = True
        cv2.imshow(self.title, picture)
        if cv2.waitKey(1) & 0xFF in (27, ord("q")):
            return False
        return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        import cv2

        cv2.destroyAllWindows()


def open_window() -> tuple[Screen | None, str]:
    """A window, or None and why there is none."""
    import cv2

    # Some builds end the process where there is no display, so it is asked for first.
    if sys.platform.startswith("linux") and not os.environ.get("WAYLAND_DISPLAY"):
        named = os.environ.get("DISPLAY")
        if not named:
            return None, "there is no display (DISPLAY is unset)"
        if not _answers(named):
            return None, f"the display {named}, which DISPLAY names, does not answer"
    try:
        return Window(), ""
    except cv2.error:
        # Both of OpenCV's packages write the same files: which one is there was the last installed.
        return None, (
            "this OpenCV has no windows; one that has is put in its place by "
            "pip install --force-reinstall --no-deps opencv-python"
        )


def _answers(display: str) -> bool:
    """Whether an X server of this machine is there; of another machine only trying tells."""
    import socket

    host, _, rest = display.rpartition(":")
    number = rest.partition(".")[0]
    if host not in {"", "unix"} or not number.isdecimal():
        return True
    path = f"/tmp/.X11-unix/X{number}"  # noqa: S108 - where X servers listen
    for place in (path, f"\0{path}"):
        with socket.socket(socket.AF_UNIX) as server:
            try:
                server.connect(place)
            except OSError:
                continue
            return True
    return False


class Recording:
    """An .mp4 of what the window shows, in real time.

    Args:
        target: appears when the recording is closed, whole.

    Raises:
        UsageError: the target is no .mp4.
    """

    def __init__(self, target: Path) -> None:
        check_name(target, "recording")
        self.target = target
        self._writer: VideoWriter | None = None
        self._begun = 0.0
        self._last: NDArray[np.uint8] | None = None

    def add(self, picture: NDArray[np.uint8], time: float) -> None:
        """Record a picture that is shown from `time` on, s, until the next one is.

        Raises:
            StoreError: the file cannot be written.
        """
        import cv2
        import numpy as np

        if self._writer is None:
            size = (picture.shape[1], picture.shape[0])
            self._writer, self._begun = VideoWriter(self.target, RECORD_FPS, size), time
        if (picture.shape[1], picture.shape[0]) != self._writer.size:
            # A camera that came back with another resolution.
            picture = np.asarray(cv2.resize(picture, self._writer.size), np.uint8)
        until = int((time - self._begun) * RECORD_FPS) + 1
        before = picture if self._last is None else self._last
        while self._writer.written < until:
            self._writer.write(before if self._writer.written < until - 1 else picture)
        self._last = picture

    def close(self) -> None:
        """Finish the file.

        Raises:
            StoreError: not all of it is on the disk; nothing is left.
        """
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.finish()
