"""A display that nobody sees, and pictures of what is on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def without_windows() -> str:
    """Why no window can be tested here; empty where one can."""
    import cv2
    from PIL import features

    (toolkit,) = (
        line.split(":")[1].strip()
        for line in cv2.getBuildInformation().splitlines()
        if line.strip().startswith("GUI:")
    )
    if toolkit == "NONE":
        return "this OpenCV has no windows: it is opencv-python-headless"
    if shutil.which("Xvfb") is None:
        return "Xvfb is not installed"
    if not features.check("xcb"):
        return "this Pillow takes no screenshots"
    return ""


@contextmanager
def virtual_display(width: int = 800, height: int = 600) -> Iterator[str]:
    """An X server without a screen; the value is its DISPLAY."""
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{width}x{height}x24", "-nolisten",
         "tcp"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writer)
    try:
        with os.fdopen(reader) as numbers:
            number = numbers.readline().strip()
        if not number:
            raise RuntimeError(f"Xvfb ended with status {server.wait()} before it had a display.")
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


def screenshot(display: str) -> Pixels:
    """What is on a display, RGB."""
    from PIL import ImageGrab

    return np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB"), np.uint8)
