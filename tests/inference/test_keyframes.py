"""Key frames: who is classified when, and what the frames in between are given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.faces.detector import Detection
from fer.faces.finder import FoundFace
from fer.faces.quality import Quality
from fer.inference.keyframes import Keyframes, Sighting, Turns

FACE = FoundFace(
    Detection(0, 0, 9, 9, 1.0), Quality(9.0, 500.0, 99.0), np.zeros((48, 48), np.uint8)
)


def sighting(track: int, time: float) -> Sighting:
    return Sighting(track, time, False, FACE)


def analysed(frames: list[set[int]], interval: float, step: float = 0.04) -> list[list[Sighting]]:
    """Frames with these tracks, each key frame given its time as the first probability."""
    keyframes = Keyframes(interval)
    found, chosen = [], []
    for number, tracks in enumerate(frames):
        faces = [sighting(track, number * step) for track in sorted(tracks)]
        chosen += keyframes.update(faces)
        found.append(faces)
    chosen += keyframes.close()
    assert len({id(one) for one in chosen}) == len(chosen)
    for one in chosen:
        one.scores = np.array([one.time, *[0.0] * 6], np.float32)
    return found


def keys(found: list[list[Sighting]], track: int) -> str:
    line = ""
    for faces in found:
        here = [one for one in faces if one.track == track]
        line += ("k" if here[0].scores is not None else "-") if here else " "
    return line


def test_every_so_many_seconds_and_first_and_last() -> None:
    found = analysed([{0}] * 9, 0.1)
    assert keys(found, 0) == "k--k--k-k"
    assert keys(analysed([{0}] * 4, 0.0), 0) == "kkkk"
    assert keys(analysed([{0}] * 4, 0.04), 0) == "kkkk"
    assert keys(analysed([{0}], 0.1), 0) == "k"


def test_whoever_is_away_begins_anew() -> None:
    found = analysed([{0}, {0, 1}, {1}, {0, 1}, {0, 1}, {0}], 0.1)
    assert keys(found, 0) == "kk k-k"
    assert keys(found, 1) == " k--k "


def test_a_part_that_begins_knows_nothing_of_the_one_before() -> None:
    keyframes = Keyframes(0.1)
    first = [sighting(0, 0.0), sighting(0, 0.04)]
    assert keyframes.update(first[:1]) == first[:1]
    assert keyframes.update(first[1:]) == []
    assert keyframes.close() == first[1:]
    assert keyframes.close() == []
    after = sighting(0, 0.08)
    assert keyframes.update([after]) == [after]


def test_nothing_is_said_before_it_is_known() -> None:
    keyframes = Keyframes(0.1)
    key, between = sighting(0, 0.0), sighting(0, 0.05)
    keyframes.update([key])
    keyframes.update([between])
    assert not between.known
    with pytest.raises(ValueError, match="not classified"):
        _ = between.probabilities


@given(
    st.lists(st.sets(st.integers(0, 3)), max_size=60),
    st.sampled_from([0.0, 0.05, 0.1, 0.3, 1.0]),
    st.floats(0.001, 0.5),
)
def test_every_face_gets_what_lies_between(
    frames: list[set[int]], interval: float, step: float
) -> None:
    found = analysed(frames, interval, step)
    for number, faces in enumerate(found):
        assert {one.track for one in faces} == frames[number]
        for one in faces:
            assert one.known
            # The time is linear in itself.
            assert one.probabilities[0] == pytest.approx(one.time, rel=1e-5, abs=1e-6)
            if one.scores is None:
                assert one.before is not None
                assert one.after is not None
                assert (
                    one.before.time < one.time < one.after.time < one.before.time + interval + step
                )


def test_live_everybody_has_a_turn_and_no_frame_has_all() -> None:
    turns = Turns(0.1)
    chosen = [turns.choose(number / 30, [0, 1, 2]) for number in range(12)]
    assert chosen[0] == [0, 1, 2]
    assert chosen[1:3] == [[], []]
    assert chosen[3:] == [[0], [1], [2]] * 3


def test_live_a_slow_machine_classifies_everybody_in_each_frame() -> None:
    turns = Turns(0.1)
    assert [turns.choose(number / 5, [0, 1, 2]) for number in range(3)] == [[0, 1, 2]] * 3
    turns = Turns(0.0)
    assert [turns.choose(number / 30, [0, 1]) for number in range(3)] == [[0, 1]] * 3


def test_live_whoever_comes_or_comes_back_is_classified_at_once() -> None:
    turns = Turns(0.1)
    assert turns.choose(0.0, [3]) == [3]
    assert turns.choose(0.03, [3, 1]) == [1]
    assert turns.choose(0.06, [1]) == []
    assert turns.choose(0.09, [3, 1]) == [3]
