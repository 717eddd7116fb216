"""The packets of a video file, undecoded: how many frames there are, and when each is shown."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from fer.inference.mp4_boxes import edit

RETRIES = 3
"""Reads that may fail in a row before the rest counts as lost."""

SAME = 1e-6
"""Times that are less apart are one, s."""


def quiet() -> None:
    """Keep OpenCV and its FFmpeg from writing to stderr: what they would say, errors here say."""
    import cv2

    # Read by OpenCV when it first opens a video.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def open_capture(path: Path) -> Any:
    """OpenCV's own reader of a file."""
    quiet()
    import cv2

    return cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)


def packet_times(path: Path) -> tuple[array[float], int | None]:
    """The times of all frames that the container lists and shows, s, ascending.

    Also how many it should show, where it has an edit list.
    """
    import cv2

    capture = open_capture(path)
    times = array("d")
    try:
        if capture.isOpened() and capture.set(cv2.CAP_PROP_FORMAT, -1):
            while capture.grab():
                times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    finally:
        capture.release()
    if not times:
        return times, None
    first = times[0]  # of the packets; what is shown may begin later
    whole = np.sort(np.frombuffer(times, np.float64))
    part = edit(path)
    if part is None:
        return array("d", whole[whole >= 0]), None
    begin = first + part.skip - SAME
    whole = whole[(whole >= begin) & (whole < begin + part.length)]
    # The decoder's times count from the first frame that is shown, as everybody's do.
    return array("d", whole - whole[0] if len(whole) else whole), part.frames
