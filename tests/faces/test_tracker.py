"""Numbers of persons in scenes whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable

import clips
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.faces.cuts import SceneCuts
from fer.faces.detector import Detection, make_detector
from fer.faces.flow import Moment, carry
from fer.faces.tracker import Tracked, Tracker
from fer.params import VideoParams

FPS = 30.0
EVERY = 6  # frames between detections, as 0.2 s are
WIDTH, HEIGHT = 560, 240
Place = Callable[[int], tuple[int, int]]


def overlap(one: Detection, other: Detection) -> float:
    across = min(one.right, other.right) - max(one.left, other.left)
    down = min(one.bottom, other.bottom) - max(one.top, other.top)
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return both / (one.width * one.height + other.width * other.height - both)


def scene(places: list[Place], frame: int) -> tuple[np.ndarray, list[Detection]]:
    """A grey frame of persons 0, 1, ..., the last in front, and where their faces are."""
    import cv2

    picture = clips.wall(WIDTH, HEIGHT)
    faces = [
        clips.paste(picture, clips.person(seed), *place(frame)) for seed, place in enumerate(places)
    ]
    return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), faces


def follow(places: list[Place], frames: int) -> tuple[list[list[Tracked]], list[list[Detection]]]:
    detector, tracker = make_detector(), Tracker()
    seen, truth = [], []
    for frame in range(frames):
        grey, faces = scene(places, frame)
        detections = detector.detect(grey) if frame % EVERY == 0 else None
        seen.append(tracker.update(grey, frame / FPS, detections))
        truth.append(faces)
    return seen, truth


def numbers(seen: list[list[Tracked]], truth: list[list[Detection]], who: int) -> list[int]:
    """The track at one person's true place, frame by frame, where there is one."""
    found = []
    for tracked, faces in zip(seen, truth, strict=True):
        best = max(tracked, key=lambda one: overlap(one.box, faces[who]), default=None)
        if best is not None and overlap(best.box, faces[who]) > 0.4:
            found.append(best.track)
    return found


def test_two_moving_people_keep_their_numbers() -> None:
    places: list[Place] = [lambda f: (10 + 2 * f, 5 + f // 4), lambda f: (350 - f, 10)]
    seen, truth = follow(places, 40)
    for who in (0, 1):
        found = numbers(seen, truth, who)
        assert len(found) >= 39  # present in every frame, between detections too
        assert len(set(found)) == 1
    assert {one.track for tracked in seen for one in tracked} == {0, 1}
    assert not any(one.detected for one in seen[1])
    assert all(one.detected for one in seen[EVERY])


def test_people_who_cross_keep_their_numbers() -> None:
    """The one in front hides the other for about a third of a second."""
    places: list[Place] = [lambda f: (10 + 8 * f, 10), lambda f: (330 - 8 * f, 12)]
    seen, truth = follow(places, 40)
    before = [numbers(seen[:12], truth[:12], who) for who in (0, 1)]
    after = [numbers(seen[32:], truth[32:], who) for who in (0, 1)]
    assert [set(one) for one in before] == [{before[0][0]}, {before[1][0]}]
    assert before[0][0] != before[1][0]
    assert [set(one) for one in after] == [set(one) for one in before]


def test_a_face_that_is_hidden_for_a_second_comes_back_under_its_number() -> None:
    places: list[Place] = [lambda f: (120 + f, 10) if not 10 <= f < 40 else (900, 0)]
    seen, truth = follow(places, 56)
    assert not any(seen[20:40])
    assert set(numbers(seen, truth, 0)) == {0}
    assert seen[50]


def test_after_too_long_it_is_somebody_new() -> None:
    tracker = Tracker(VideoParams(max_carried=0.1, max_missing=0.5))
    grey, (face,) = scene([lambda _: (100, 10)], 0)
    assert [one.track for one in tracker.update(grey, 0.0, [face])] == [0]
    assert tracker.update(grey, 0.3, []) == []
    assert [one.track for one in tracker.update(grey, 1.0, [face])] == [1]


def test_a_box_that_shrinks_on_and_on_has_left_its_face() -> None:
    """As one that is caught at the edge of somebody who walks past in front."""
    import cv2

    def shrunk(share: float) -> np.ndarray:
        grey, _ = scene([lambda _: (200, 40)], 0)
        around = cv2.getRotationMatrix2D((260.0, 100.0), 0, share)
        return cv2.warpAffine(grey, around, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)

    _, (face,) = scene([lambda _: (200, 40)], 0)
    detected, carried = Tracker(), Tracker()
    sizes: list[float] = []
    for frame in range(7):
        grey = shrunk(0.92**frame)
        followed = carried.update(grey, frame / FPS, [face] if not frame else None)
        sizes += [one.box.width / face.width for one in followed]
        left, top, right, bottom = (
            middle + 0.92**frame * (edge - middle)
            for edge, middle in (
                (face.left, 260), (face.top, 100), (face.right, 260), (face.bottom, 100)
            )
        )  # fmt: skip
        (found,) = detected.update(grey, frame / FPS, [Detection(left, top, right, bottom, 1.0)])
    assert sizes[3] == pytest.approx(0.92**3, abs=0.05)
    assert min(sizes) > 1 / 1.3
    assert not followed
    assert found.track == 0, "one that the detector finds may be of any size"


def test_who_was_followed_comes_before_who_was_hidden() -> None:
    tracker = Tracker()
    grey, (face,) = scene([lambda _: (100, 10)], 0)
    tracker.update(grey, 0.0, [face])
    (hidden,) = tracker.state()["tracks"]
    beside = {
        name: value + 5 if name in ("left", "right") else value
        for name, value in hidden["box"].items()
    }
    followed = hidden | {"number": 1, "box": beside}
    # The hidden one is expected just where the face is.
    tracker.restore({"next": 2, "tracks": [hidden | {"visible": False}, followed]})
    found = tracker.update(grey, 0.1, [face], fresh=True)
    assert [one.track for one in found if one.detected] == [1]


def test_a_cut_ends_all_tracks() -> None:
    tracker = Tracker()
    grey, (face,) = scene([lambda _: (100, 10)], 0)
    tracker.update(grey, 0.0, [face])
    assert [one.track for one in tracker.update(grey, 0.03, [face], cut=True)] == [1]


def test_detections_of_an_earlier_frame_are_carried_to_the_present() -> None:
    """As in live video, where detection takes longer than a frame."""
    tracker = Tracker()
    place: list[Place] = [lambda f: (100 + 4 * f, 10)]
    grey, (then,) = scene(place, 0)
    tracker.update(grey, 0.0, [])
    moment = tracker.moment
    for frame in range(1, 4):
        grey, (now,) = scene(place, frame)
        found = tracker.update(
            grey, frame / FPS, [then] if frame == 3 else None, detected_on=moment
        )
    (one,) = found
    assert one.box.left == pytest.approx(now.left, abs=1.5)
    assert overlap(one.box, now) > 0.95


@pytest.mark.parametrize(
    "boxes",
    [
        [Detection(200, 70, 300, 170, 1)],
        [Detection(-40, -30, 60, 70, 1)],
        [Detection(500, 180, 600, 280, 1)],
        [Detection(60, 60, 130, 130, 1), Detection(400, 90, 480, 170, 1)],
        [Detection(700, 500, 800, 600, 1)],
        [Detection(-300, -300, -200, -200, 1)],
    ],
)
def test_the_surroundings_of_faces_are_enough_to_follow_them(
    boxes: list[Detection], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8), dtype=np.uint8)
    grey = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    zoom = np.array([[1.01, 0, 3.3], [0, 1.01, -2.1]])
    moved = cv2.warpAffine(grey, zoom, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
    before, after = (Moment.of(np.asarray(one, np.uint8), 0.0) for one in (grey, moved))
    near = carry(before, after, boxes)
    monkeypatch.setattr(
        "fer.faces.flow._surroundings", lambda *_: (slice(0, HEIGHT), slice(0, WIDTH))
    )
    for one, other in zip(near, carry(before, after, boxes), strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert overlap(one, other) > 0.999


def test_a_face_stays_in_a_flash_and_goes_when_covered() -> None:
    tracker = Tracker()
    grey, (face,) = scene([lambda _: (100, 10)], 0)
    tracker.update(grey, 0.0, [face])
    dark = (grey * 0.5).astype(np.uint8)
    assert carry(Moment.of(grey, 0.0), Moment.of(dark, 0.1), [face]) == [None]
    (one,) = tracker.update(dark, 0.04, None)
    assert overlap(one.box, face) > 0.9
    noise = np.random.default_rng(0).integers(0, 255, grey.shape, dtype=np.uint8)
    assert tracker.update(noise, 0.08, None) == []


def test_a_detectors_steps_of_size_are_evened_out() -> None:
    """HOG gives a face at rest 60 px now and 72 px then; the classifier would see each step."""
    tracker = Tracker()
    grey, _ = scene([lambda _: (100, 10)], 0)
    sizes = []
    for frame in range(20):
        half = 30 if frame % 2 else 36
        (one,) = tracker.update(
            grey, frame / FPS, [Detection(200 - half, 110 - half, 200 + half, 110 + half, frame)]
        )
        assert one.detected
        assert one.box.score == frame
        assert (one.box.left + one.box.right) / 2 == pytest.approx(200)
        sizes.append(one.box.width)
    assert max(sizes[8:]) - min(sizes[8:]) < 5
    # Somebody else's box far off is taken as it is.
    faces = tracker.update(grey, 1.0, [Detection(400, 80, 460, 140, 1.0)])
    assert faces[-1].box == Detection(400, 80, 460, 140, 1.0)


def test_a_tracker_goes_on_from_its_written_state() -> None:
    places: list[Place] = [lambda f: (10 + 2 * f, 5), lambda f: (330 - f, 10)]
    frames = [scene(places, frame) for frame in range(30)]

    def go(tracker: Tracker, part: range) -> list[list[Tracked]]:
        return [
            tracker.update(
                frames[f][0], f / FPS, frames[f][1] if f % EVERY == 0 else None, fresh=f == 18
            )
            for f in part
        ]

    one = Tracker()
    go(one, range(18))
    other = Tracker()
    other.restore(json.loads(json.dumps(one.state())))
    assert go(other, range(18, 30)) == go(one, range(18, 30))


def test_flow_gives_up_where_there_is_nothing_to_follow() -> None:
    grey, (face,) = scene([lambda _: (100, 10)], 0)
    noise = np.random.default_rng(0).integers(0, 255, grey.shape, dtype=np.uint8)
    assert carry(Moment.of(grey, 0.0), Moment.of(noise, 0.1), [face]) == [None]
    assert carry(Moment.of(grey, 0.0), Moment.of(grey, 0.1), []) == []
    (still,) = carry(Moment.of(grey, 0.0), Moment.of(grey, 0.1), [face])
    assert still is not None
    assert still.left == pytest.approx(face.left, abs=0.1)


@given(
    st.lists(st.tuples(st.floats(-50, 200), st.floats(-50, 200), st.floats(1, 150)), max_size=4),
    st.integers(0, 2**31),
)
def test_any_boxes_are_followed_without_an_error(
    boxes: list[tuple[float, float, float]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    tracker = Tracker()
    for frame in range(2):
        grey = rng.integers(0, 255, (60, 80), dtype=np.uint8)
        faces = [Detection(x, y, x + side, y + side, 1.0) for x, y, side in boxes]
        found = tracker.update(grey, frame / FPS, faces)
        assert len(found) >= len(faces)
        assert len({one.track for one in found}) == len(found)


def test_a_cut_is_found_and_a_pan_or_flash_is_none() -> None:
    import cv2

    one, other = (cv2.cvtColor(clips.wall(640, 360, seed), cv2.COLOR_BGR2GRAY) for seed in (1, 2))
    cuts = SceneCuts()
    assert not cuts.is_cut(one)
    assert not cuts.is_cut(np.roll(one, 12, axis=1))
    assert not cuts.is_cut(np.clip(np.roll(one, 12, axis=1).astype(int) + 60, 0, 255).astype("u1"))
    assert cuts.is_cut(other)
    again = SceneCuts(last=cuts.last)
    assert not again.is_cut(other)
    assert again.is_cut(one)
