"""Smoothing, baselines and episodes on series whose answer is known."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.errors import UsageError
from fer.expressions import EXPRESSIONS
from fer.inference.timeline import (
    RunningFilter,
    episodes_of,
    find_episodes,
    remove_baseline,
    smooth,
    timelines,
)
from fer.params import TimelineParams

HAPPY, SAD, NEUTRAL = (EXPRESSIONS.index(name) for name in ("happy", "sad", "neutral"))


def showing(*stretches: tuple[int, int, float]) -> np.ndarray:
    """Probabilities: for each (expression, frames, probability), the rest shared by the others."""
    rows = []
    for expression, frames, value in stretches:
        row = np.full(7, (1 - value) / 6)
        row[expression] = value
        rows += [row] * frames
    return np.array(rows)


def test_a_step_stays_where_it_is_and_noise_does_not() -> None:
    times = np.arange(90) / 30
    values = showing((SAD, 45, 0.9), (HAPPY, 45, 0.9))
    values[20] = showing((HAPPY, 1, 0.9))[0]
    result = smooth(times, values, 0.15)
    assert result.sum(axis=1) == pytest.approx(np.ones(90))
    assert result.argmax(axis=1).tolist() == [SAD] * 45 + [HAPPY] * 45


def test_uneven_frames_weigh_by_time() -> None:
    times = np.array([0.0, 0.01, 0.02, 5.0])
    values = np.array([[0.0], [0.0], [0.0], [1.0]])
    assert smooth(times, values, 0.1)[-1, 0] == pytest.approx(1.0)
    weights = np.exp(-np.abs(times[None] - times[:, None]) / 0.7)
    values = np.random.default_rng(0).random((4, 3))
    expected = weights @ values / weights.sum(axis=1, keepdims=True)
    assert smooth(times, values, 0.7) == pytest.approx(expected)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.lists(st.floats(1e-3, 10), min_size=30, max_size=30),
    st.floats(0, 5),
)
def test_smoothing_stays_within_the_bounds(
    values: list[float], gaps: list[float], constant: float
) -> None:
    times = np.cumsum(gaps)[: len(values)]
    result = smooth(times, np.array(values)[:, None], constant)
    assert result.min() >= min(values) - 1e-9
    assert result.max() <= max(values) + 1e-9


def test_the_running_filter_reaches_63_percent_in_its_constant() -> None:
    running = RunningFilter(0.5)
    running.update(1, 0.0, np.array([0.0]))
    assert running.update(1, 0.5, np.array([1.0]))[0] == pytest.approx(1 - np.exp(-1))
    assert running.update(2, 0.5, np.array([1.0]))[0] == 1.0
    running.forget(1.0)
    assert running.update(1, 1.0, np.array([0.25]))[0] == 0.25


def test_episodes_of_a_plain_series() -> None:
    times = np.arange(120) / 30
    values = showing((NEUTRAL, 30, 0.4), (HAPPY, 60, 0.8), (SAD, 30, 0.6))
    values[50, HAPPY] = 0.95
    first, second = find_episodes(times, values, TimelineParams(), 7)
    assert (first.track, first.expression, first.frames) == (7, "happy", 60)
    assert (first.start, first.end) == pytest.approx((1.0, 89 / 30))
    assert (first.peak, first.peak_time) == pytest.approx((0.95, 50 / 30))
    assert first.mean == pytest.approx((59 * 0.8 + 0.95) / 60)
    assert second.expression == "sad"
    assert second.start == pytest.approx(3.0)


def test_a_weak_expression_is_dated_where_it_took_the_lead() -> None:
    """Smoothed, it reaches the bound a quarter of a second after the change."""
    times = np.arange(90) / 30
    values = smooth(times, showing((SAD, 45, 0.55), (HAPPY, 45, 0.55)), 0.15)
    late = int(np.flatnonzero(values[:, HAPPY] >= 0.5)[0])
    assert late > 45 + 5
    first, second = find_episodes(times, values, TimelineParams())
    assert (first.expression, second.expression) == ("sad", "happy")
    assert second.start == pytest.approx(times[45], abs=1.1 / 30)
    assert first.end < second.start
    # Not beyond a gap, nor where it led below `leave`.
    times[50:] += 2.0
    assert [one.start for one in find_episodes(times, values, TimelineParams())][1] == times[50]
    low = showing((NEUTRAL, 5, 0.2), (HAPPY, 5, 0.3), (HAPPY, 5, 0.4), (HAPPY, 20, 0.6))
    (one,) = find_episodes(np.arange(35) / 30, low, TimelineParams())
    assert one.start == pytest.approx(10 / 30)


def test_wavering_between_the_bounds_is_one_episode() -> None:
    times = np.arange(60) / 30
    values = np.concatenate([showing((HAPPY, 2, one)) for one in [0.6, 0.4] * 15])
    (one,) = find_episodes(times, values, TimelineParams())
    assert one.frames == 60
    assert len(list(find_episodes(times, values, TimelineParams(leave=0.5, min_episode=0)))) == 15


def test_short_episodes_are_left_out_and_gaps_divide() -> None:
    times = np.arange(60) / 30
    values = showing((NEUTRAL, 25, 0.3), (HAPPY, 5, 0.9), (NEUTRAL, 30, 0.3))
    assert list(find_episodes(times, values, TimelineParams())) == []
    assert len(list(find_episodes(times, values, TimelineParams(min_episode=0.1)))) == 1
    values = showing((HAPPY, 60, 0.9))
    times[30:] += 2.0
    first, second = find_episodes(times, values, TimelineParams())
    assert first.end < 1.0 < 3.0 <= second.start
    assert list(find_episodes(times[:0], values[:0], TimelineParams())) == []


def test_a_face_that_rests_sadly_is_neutral_relative_to_itself() -> None:
    values = showing((SAD, 80, 0.6), (HAPPY, 20, 0.9))
    relative = remove_baseline(values)
    assert relative.sum(axis=1) == pytest.approx(np.ones(100))
    assert relative[:80].argmax(axis=1).tolist() == [NEUTRAL] * 80
    assert relative[80:].argmax(axis=1).tolist() == [HAPPY] * 20
    given = remove_baseline(values, values[80:])
    assert given[90].argmax() == NEUTRAL


def test_at_a_frame_a_second_episodes_still_hold_together() -> None:
    (one,) = find_episodes(np.arange(20.0), showing((HAPPY, 20, 0.9)), TimelineParams())
    assert (one.start, one.end) == (0.0, 19.0)


def test_parts_of_a_video_make_one_timeline_per_person() -> None:
    rng = np.random.default_rng(0)
    numbers = np.repeat(np.arange(20), 2)
    columns = {
        "frame": pa.array(numbers),
        "timestamp": pa.array(numbers / 10),
        "face": pa.array([0, 1] * 19 + [0, None], pa.int32()),
        "track": pa.array([5, 3] * 19 + [5, None], pa.int64()),
    }
    scores = rng.dirichlet(np.ones(7), len(numbers)).astype(np.float32)
    columns |= {f"p_{name}": scores[:, place] for place, name in enumerate(EXPRESSIONS)}
    table = pa.table(columns)
    whole = list(timelines([table], TimelineParams()))
    assert [(one.track, len(one.times)) for one in whole] == [(3, 19), (5, 20)]
    assert whole[1].frames.tolist() == list(range(20))
    parts = list(timelines([table.slice(0, 13), table.slice(13)], TimelineParams()))
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.probabilities, other.probabilities)
    assert list(timelines([], TimelineParams())) == []
    assert list(timelines([table.slice(39)], TimelineParams())) == []  # nobody is in it
    pictures = table.set_column(3, "track", pa.nulls(len(numbers), pa.int64()))
    with pytest.raises(UsageError, match="Only a video"):
        list(timelines([pictures], TimelineParams()))


PART, PEOPLE = 900, 3
BYTES_A_ROW, FIXED = 90, 2e6


def long_video(parts: int) -> Iterator[pa.Table]:
    """Three people in every frame at 30 frames/s, part by part as a video's results are read."""
    rng = np.random.default_rng(0)
    for part in range(parts):
        frames = np.repeat(np.arange(part * PART, (part + 1) * PART), PEOPLE)
        columns = {
            "frame": pa.array(frames),
            "timestamp": pa.array(frames / 30),
            "face": pa.array(np.tile(np.arange(PEOPLE, dtype=np.int32), PART)),
            "track": pa.array(np.tile(np.arange(PEOPLE), PART)),
        }
        # Half a minute of one expression, half a minute of another.
        scores = np.full((len(frames), 7), 0.05, np.float32)
        scores[:, HAPPY if part % 2 else SAD] = 0.7
        scores += rng.uniform(-0.01, 0.01, scores.shape).astype(np.float32)
        columns |= {f"p_{name}": scores[:, place] for place, name in enumerate(EXPRESSIONS)}
        yield pa.table(columns)


@pytest.mark.parametrize("baseline", [False, True])
def test_the_episodes_of_a_long_video_take_little_memory(baseline: bool) -> None:
    """An hour of three people has 324,000 rows: at 90 bytes 29 MB, of the 50 that may be."""
    parts = 16
    tracemalloc.start()
    try:
        found = episodes_of(long_video(parts), TimelineParams(baseline=baseline))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == PEOPLE * parts or baseline
    rows = parts * PART * PEOPLE
    assert peak < rows * BYTES_A_ROW + FIXED, f"{peak / rows:.0f} bytes a row"
