"""Which frames are searched, and what becomes of faces that are looked for less often."""

from __future__ import annotations

import clips
import cv2
import numpy as np
import pytest

from fer.faces.detector import Detection
from fer.faces.dlib_detector import DlibHogDetector
from fer.faces.looks import Looks
from fer.faces.tracker import Tracker
from fer.params import FacesParams, VideoParams

FPS = 30


def searched(looks: Looks, end: int, *, begin: int = 0, cuts: tuple[int, ...] = ()) -> str:
    """A letter a frame: closely, quickly, not."""
    names = {id(None): "-", id(looks.quick): "q", id(looks.close): "c"}
    found = [looks.due(frame / FPS, anew=frame in cuts) for frame in range(begin, end)]
    return "".join(names[id(one)] for one in found)


def test_every_third_search_is_a_close_one_and_a_cut_asks_for_one() -> None:
    assert searched(Looks(VideoParams(), FacesParams()), 40) == (
        "c-----q-----q-----c-----q-----q-----c---"
    )
    after = searched(Looks(VideoParams(), FacesParams()), 24, cuts=(0, 8))
    assert after == "c-----q-c-----q-----q---"
    often = VideoParams(detect_interval=0.0, small_interval=0.0)
    assert searched(Looks(often, FacesParams()), 5) == "ccccc"
    assert searched(Looks(VideoParams(small_interval=0.0), FacesParams()), 14) == "c-----c-----c-"


def test_what_enlarges_nothing_searches_alike_each_time() -> None:
    looks = Looks(VideoParams(), FacesParams(upsample=0))
    assert looks.quick is looks.close
    assert looks.carried(50, 640) == VideoParams().max_carried


def test_it_goes_on_from_a_state() -> None:
    first, then = Looks(VideoParams(), FacesParams()), Looks(VideoParams(), FacesParams())
    whole = searched(Looks(VideoParams(), FacesParams()), 60)
    begun = searched(first, 9)
    then.resume(first.state)
    assert begun + searched(then, 60, begin=9) == whole


@pytest.mark.parametrize(("scale", "quickly"), [(1.0, True), (0.35, False)])
def test_a_quick_search_finds_large_faces_only(scale: float, quickly: bool) -> None:
    picture = clips.wall(440, 240)
    face = clips.paste(picture, clips.person(2), 60, 10)
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    grey = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale), np.uint8)
    close = DlibHogDetector(upsample=1)
    quick = close.halved()
    assert (quick.smallest_face, close.smallest_face) == (80.0, 40.0)
    assert len(close.detect(grey)) == 1
    found = quick.detect(grey)
    assert bool(found) == quickly
    for one in found:
        assert (one.left + one.right) / 2 == pytest.approx((face.left + face.right) / 2, abs=12)


def test_a_small_face_is_followed_until_a_close_search_has_missed_it_twice() -> None:
    params = VideoParams()
    looks = Looks(params, FacesParams())
    rng = np.random.default_rng(0)
    grey = np.asarray(cv2.resize(rng.integers(0, 255, (30, 40), np.uint8), (640, 480)), np.uint8)
    small, large = Detection(50, 50, 100, 100, 1.0), Detection(300, 200, 460, 360, 1.0)
    tracker = Tracker(params, looks)
    tracker.update(grey, 0.0, [small, large])
    seen = {
        frame: len(tracker.update(grey, frame / FPS, [] if frame % 6 == 0 else None))
        for frame in range(1, 46)
    }
    assert (seen[18], seen[19], seen[36], seen[37]) == (2, 1, 1, 0)
    # In a frame that is scaled down to be searched, the bound is at its pixels.
    assert looks.carried(120, 640) == params.max_carried
    assert looks.carried(120, 1920) == pytest.approx(2 * params.small_interval)
