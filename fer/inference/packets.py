"""The packets of a video file, undecoded: how many frames there are, and when each is shown."""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer.inference.mp4_boxes import edit

if TYPE_CHECKING:
    from numpy.typing import NDArray

RETRIES = 300
"""Reads that may fail in a row before the rest counts as lost."""

SAME = 1e-6
"""Times that are less apart are one, s."""

_REORDERED = 16  # packets between the order of reading and that of time; H.264 allows no more


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
    times, lost, failures = array("d"), array("q"), 0
    try:
        if capture.isOpened() and capture.set(cv2.CAP_PROP_FORMAT, -1):
            # A damaged packet cannot be given, those after it can. Where there is no next one,
            # reads fail for ever, at no cost.
            while failures < RETRIES:
                if not capture.grab():
                    failures += 1
                    continue
                lost.extend([len(times)] * failures)
                failures = 0
                times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    finally:
        capture.release()
    if not times:
        return times, None
    if lost and lost[0] == 0 and times[0] > SAME:  # the first packet is of the first frame
        times.insert(0, 0.0)
        del lost[0]
    first = times[0]  # of the packets; what is shown may begin later
    whole = _completed(times, lost)
    part = edit(path)
    if part is None:
        return array("d", whole[whole >= 0]), None
    begin = first + part.skip - SAME
    whole = whole[(whole >= begin) & (whole < begin + part.length)]
    # The decoder's times count from the first frame that is shown, as everybody's do.
    return array("d", whole - whole[0] if len(whole) else whole), part.frames


def _completed(times: array[float], lost: array[int]) -> NDArray[np.float64]:
    """Times of packets in the order of time, with those that could not be read filled in.

    Args:
        times: s, in the order of reading, which is that of time to a few packets.
        lost: for each packet that could not be read, how many had been before it.
    """
    ordered = np.sort(np.frombuffer(times, np.float64))
    gaps = np.diff(ordered)
    missing = np.zeros(len(gaps), np.int64)
    for place in lost:
        # It belongs where most room is, near its place.
        low = max(0, min(place, len(gaps)) - _REORDERED)
        near = gaps[low : place + _REORDERED] / (missing[low : place + _REORDERED] + 1)
        if len(near):
            missing[low + int(np.argmax(near))] += 1
    filled = [
        np.linspace(ordered[place], ordered[place + 1], missing[place] + 2)[1:-1]
        for place in np.flatnonzero(missing)
    ]
    return np.sort(np.concatenate([ordered, *filled]))
