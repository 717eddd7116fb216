"""The window of `fer live`, on a display that nobody sees."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import clips
import cv2
import display
import numpy as np
import pytest

PATIENCE = 300.0  # s; only a failure takes that long


@pytest.fixture
def screen() -> Iterator[str]:
    """A display of this test's own."""
    reason = display.without_windows()
    if reason:
        pytest.skip(f"no window can be opened: {reason}")
    with display.virtual_display() as name:
        yield name


def likeness(part: np.ndarray, whole: np.ndarray) -> float:
    """How like a picture the place in another is that is most like it; 1 for the same."""
    return float(cv2.matchTemplate(whole, part, cv2.TM_CCOEFF_NORMED).max())


def wait_for(condition: Callable[[], bool], live: subprocess.Popen[str]) -> bool:
    """Whether something came true while the command ran."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        if live.poll() is not None and live.stderr:
            pytest.fail(f"fer live ended: {live.stderr.read()}")
        time.sleep(0.1)
    return False


def test_the_window_shows_the_video_and_a_box_on_the_face(
    screen: str, model: Path, tmp_path: Path
) -> None:
    frame, who = clips.wall(320, 220), clips.person(2)
    clips.paste(frame, who, 60, 0)
    clip = clips.write(tmp_path / "clip.mp4", [frame] * 400, 1)
    shown = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    wall = np.ascontiguousarray(shown[100:, 250:])  # where nothing is drawn
    left, right = round(who.face.left) + 50, round(who.face.right) + 70
    head = np.ascontiguousarray(shown[round(who.face.top) : round(who.face.bottom), left:right])
    command = [sys.executable, "-m", "fer", "live", clip, "--model", model]
    with subprocess.Popen(
        command, env=os.environ | {"DISPLAY": screen}, stderr=subprocess.PIPE, text=True
    ) as live:
        try:
            assert wait_for(lambda: likeness(wall, display.screenshot(screen)) > 0.95, live)
            # The box comes with the first detection.
            assert wait_for(lambda: likeness(head, display.screenshot(screen)) < 0.97, live)
        finally:
            live.terminate()
