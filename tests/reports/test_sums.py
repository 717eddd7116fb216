"""Seconds, shares and means of tables whose answer can be counted by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from analyses import Track, showing, write
from hypothesis import given
from hypothesis import strategies as st

from fer.expressions import EXPRESSIONS
from fer.params import TimelineParams
from fer.reports.analysed import find_results, read_analysed
from fer.reports.reported import people_of
from fer.reports.seen import Frames, Person, Seen
from fer.reports.study import Cast
from fer.reports.sums import EVERYTHING, Segment, Sums, means_over_people, sum_up

HAPPY, SAD = EXPRESSIONS.index("happy"), EXPRESSIONS.index("sad")
PLAIN = TimelineParams(smoothing=0.0)


def persons(
    path: Path,
    times: list[float] | np.ndarray,
    tracks: dict[int, Track],
    cast: Cast | None = None,
    params: TimelineParams = PLAIN,
) -> list[Person]:
    """The participants of results that are written and read again."""
    (file,) = find_results([write(path, times, tracks, group=7)]).files
    return people_of(read_analysed(file, params), cast or Cast(), params)


def one_person(path: Path, times: list[float] | np.ndarray, track: Track) -> Person:
    (person,) = persons(path, times, {0: track})
    return person


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "v.parquet"


def test_a_steady_rate(results: Path) -> None:
    person = one_person(
        results, np.arange(30) / 10, (range(30), showing(("happy", 10), ("sad", 20)))
    )
    sums = sum_up(person)
    assert sums.visible == pytest.approx(3.0)
    assert sums.seconds[HAPPY] == pytest.approx(1.0)
    assert sums.shares is not None
    assert sums.shares[SAD] == pytest.approx(2 / 3)
    assert sums.means is not None
    assert sums.means[HAPPY] == pytest.approx((0.88 + 2 * 0.02) / 3)
    assert sums.means.sum() == pytest.approx(1.0)
    assert (sums.episodes[HAPPY], sums.episodes[SAD], sums.episodes.sum()) == (1, 1, 2)
    assert sums.longest[SAD] == pytest.approx(2.0)  # to the end of its last frame


def test_at_a_variable_rate_time_counts_and_not_frames(results: Path) -> None:
    times = [0.0, 0.1, 0.2, 2.2, 2.3, 2.4]
    person = one_person(results, times, (range(6), showing(("happy", 2), ("sad", 1), ("happy", 3))))
    sums = sum_up(person)
    assert sums.seconds[SAD] == pytest.approx(2.0)  # one frame of six
    # The last row counts for the median interval, 0.1 s.
    assert sums.seconds[HAPPY] == pytest.approx(0.2 + 0.1 + 0.1 + 0.1)


def test_of_a_sampled_video_a_row_counts_to_the_next_sample(results: Path) -> None:
    person = one_person(results, np.arange(8.0), (range(8), showing(("happy", 3), ("sad", 5))))
    assert sum_up(person).seconds[[HAPPY, SAD]] == pytest.approx([3.0, 5.0])


def test_a_row_counts_to_the_next_frame_with_or_without_the_face(results: Path) -> None:
    """Seen in frames 0, 1 and 3 of 5: frame 1 counts to frame 2, and frame 3 is the last."""
    times = [0.0, 1.0, 1.5, 4.5, 9.5]
    person = one_person(results, times, ([0, 1, 3], showing(("happy", 3))))
    # The median interval is 2 s; the next frame comes after 5 s.
    assert sum_up(person).visible == pytest.approx(1.0 + 0.5 + 2.0)
    assert person.seen.ends[-1] == pytest.approx(6.5)


def test_the_last_row_of_a_track_never_runs_into_the_next_frame(results: Path) -> None:
    times = [0.0, 1.0, 2.0, 2.1, 3.1]
    person = one_person(results, times, ([0, 1, 2], showing(("happy", 3))))
    assert sum_up(person).visible == pytest.approx(2.1)


def test_one_frame_is_a_moment(results: Path) -> None:
    sums = sum_up(one_person(results, [5.0], ([0], showing(("happy", 1)))))
    assert sums.visible == pytest.approx(0.04)
    assert sums.episodes.sum() == 0


def test_a_border_divides_a_row(results: Path) -> None:
    person = one_person(results, np.arange(10.0), (range(10), showing(("happy", 5), ("sad", 5))))
    inside = sum_up(person, Segment("a", ((0.25, 5.5),)))
    assert inside.seconds[[HAPPY, SAD]] == pytest.approx([4.75, 0.5])
    # Episodes count where they begin, whole.
    assert (inside.episodes[HAPPY], inside.episodes[SAD]) == (0, 1)
    assert inside.longest[SAD] == pytest.approx(5.0)
    twice = sum_up(person, Segment("b", ((0.0, 1.0), (8.0, 20.0))))
    assert twice.seconds[[HAPPY, SAD]] == pytest.approx([1.0, 2.0])
    assert (twice.episodes[HAPPY], twice.episodes[SAD]) == (1, 0)
    beyond = sum_up(person, Segment("c", ((30.0, 40.0),)))
    assert (beyond.visible, beyond.shares, beyond.means) == (0.0, None, None)


def test_tracks_of_one_person_count_each_moment_once(results: Path) -> None:
    cast = Cast({("v", 0): "Anna", ("v", 2): "Anna", ("v", 1): ""})
    tracks: dict[int, Track] = {
        0: (range(6), showing(("happy", 6))),
        1: (range(10), showing(("fear", 10))),
        2: (range(4, 10), showing(("sad", 6))),
    }
    (anna,) = persons(results, np.arange(10.0), tracks, cast)
    sums = sum_up(anna)
    assert (anna.name, anna.tracks, anna.twice) == ("Anna", (0, 2), 2)
    assert sums.seconds[[HAPPY, SAD]] == pytest.approx([6.0, 4.0])
    assert sums.visible == pytest.approx(10.0)
    # The second track's episode begins where the first track counts.
    assert (sums.episodes[HAPPY], sums.episodes[SAD]) == (1, 0)


def test_smoothing_and_episodes_are_those_of_the_parameters(results: Path) -> None:
    values = showing(("sad", 15), ("happy", 1), ("sad", 15))
    tracks: dict[int, Track] = {0: (range(31), values)}
    (plain,) = persons(results, np.arange(31) / 30, tracks)
    (smoothed,) = persons(results, np.arange(31) / 30, tracks, params=TimelineParams())
    assert sum_up(plain).seconds[HAPPY] == pytest.approx(1 / 30)
    assert sum_up(smoothed).seconds[HAPPY] == 0
    (strict,) = persons(results, np.arange(31) / 30, tracks, params=TimelineParams(enter=0.95))
    assert len(smoothed.episodes) == 1
    assert strict.episodes == ()


@given(
    st.lists(
        st.tuples(st.floats(1e-3, 5), st.booleans(), st.integers(0, 6)), min_size=1, max_size=25
    ),
    st.lists(st.floats(0, 60), max_size=5),
)
def test_shares_add_up_to_one_and_seconds_to_the_visible_time(
    tmp_path: Path, frames: list[tuple[float, bool, int]], borders: list[float]
) -> None:
    times = np.cumsum([interval for interval, _, _ in frames])
    seen = [place for place, (_, there, _) in enumerate(frames) if there]
    if not seen:
        return
    values = np.concatenate([showing((EXPRESSIONS[frames[place][2]], 1)) for place in seen])
    person = one_person(tmp_path / "v.parquet", times, (seen, values))
    # By hand: a row to the next frame, the last one for the median interval at most.
    median = float(np.median(np.diff(times))) if len(times) > 1 else 0.04
    ends = np.append(times, np.inf)
    lengths = [ends[place + 1] - times[place] for place in seen]
    lengths[-1] = min(lengths[-1], median)
    sums = sum_up(person)
    assert sums.visible == pytest.approx(sum(lengths))
    for place in range(7):
        wanted = sum(one for one, row in zip(lengths, seen, strict=True) if frames[row][2] == place)
        assert sums.seconds[place] == pytest.approx(wanted, abs=1e-9)
    assert sums.shares is not None
    assert sums.shares.sum() == pytest.approx(1.0)
    assert sums.means is not None
    assert sums.means.sum() == pytest.approx(1.0, abs=1e-5)
    # Segments without gaps between them divide all of it.
    cuts = [float("-inf"), *sorted(set(borders)), float("inf")]
    pairs = list(pairwise(cuts))
    parts = [sum_up(person, Segment("x", (pair,))) for pair in pairs]
    assert sum(part.visible for part in parts) == pytest.approx(sums.visible)
    assert np.sum([part.seconds for part in parts], axis=0) == pytest.approx(sums.seconds)
    assert np.sum([part.episodes for part in parts], axis=0).tolist() == sums.episodes.tolist()
    together = sum_up(person, Segment("x", tuple(pairs)))
    assert together.weighted == pytest.approx(sums.weighted)


@given(
    st.lists(st.tuples(st.floats(0.01, 2), st.floats(0, 1)), min_size=1, max_size=20),
    st.integers(1, 30),
)
def test_extremes_are_those_of_the_rows_that_touch_a_column(
    rows: list[tuple[float, float]], columns: int
) -> None:
    gaps = np.array([gap for gap, _ in rows])
    starts = np.cumsum(gaps)
    ends = starts + np.append(gaps[1:] * 0.6, 0.5)  # a gap behind each row
    values = np.random.default_rng(len(rows)).random((len(rows), 7)).astype(np.float32)
    edges = np.linspace(starts[0] - 0.3, ends[-1] + 0.3, columns + 1)
    low, high = Seen(starts, ends, values).extremes(edges)
    for place in range(columns):
        touching = (starts < edges[place + 1]) & (ends > edges[place])
        if touching.any():
            assert low[place].tolist() == values[touching].min(axis=0).tolist()
            assert high[place].tolist() == values[touching].max(axis=0).tolist()
        else:
            assert np.isnan(low[place]).all()
            assert np.isnan(high[place]).all()


def test_the_span_ends_after_the_last_frame() -> None:
    frames = Frames(np.arange(4), np.array([1.0, 1.5, 2.0, 9.0]))
    assert frames.span == (1.0, 9.5)


def showed(*seconds: float) -> Sums:
    """Somebody who was happy and sad for so many seconds."""
    values = np.zeros(7)
    values[[HAPPY, SAD]] = seconds
    return Sums(values, values / 2, np.zeros(7, np.int64), np.zeros(7))


def test_sums_of_several_videos_are_weighed_by_time() -> None:
    both = showed(9.0, 1.0) + showed(0.0, 30.0)
    assert both.shares is not None
    assert both.shares[HAPPY] == pytest.approx(9 / 40)


def test_each_participant_counts_the_same_however_long_seen() -> None:
    means = means_over_people("ad", {"a": showed(100.0, 0.0), "b": showed(0.0, 1.0)})
    assert (means.segment, means.people, means.bounds) == ("ad", 2, None)
    assert means.shares is not None
    assert means.shares[[HAPPY, SAD]] == pytest.approx([0.5, 0.5])


def test_who_was_not_seen_is_not_among_those_who_are_averaged() -> None:
    means = means_over_people("ad", {"a": showed(1.0, 0.0), "b": showed(0.0, 0.0)})
    assert means.people == 1
    assert means.shares is not None
    assert means.shares[HAPPY] == 1.0
    nobody = means_over_people("ad", {"b": showed(0.0, 0.0)})
    assert (nobody.people, nobody.shares, nobody.bounds) == (0, None, None)


def test_three_participants_have_an_interval_that_does_not_change() -> None:
    people = {"a": showed(1.0, 3.0), "b": showed(2.0, 2.0), "c": showed(3.0, 1.0)}
    means = means_over_people("ad", people)
    assert means.bounds is not None
    assert means.shares is not None
    low, high = means.bounds[:, HAPPY]
    assert means.shares[HAPPY] == pytest.approx(0.5)
    assert 0.25 <= low < 0.5 < high <= 0.75
    again = means_over_people("ad", dict(reversed(people.items())))
    assert again.bounds is not None
    assert again.bounds.tolist() == means.bounds.tolist()
    alike = means_over_people("ad", dict.fromkeys("abc", showed(1.0, 1.0)))
    assert alike.bounds is not None
    assert alike.bounds[:, HAPPY] == pytest.approx([0.5, 0.5])


def test_the_interval_is_as_wide_as_that_of_a_mean() -> None:
    """Of 400 who are happy always or never, half each: 1.96 standard errors of 0.025 each way."""
    people = {str(one): showed(one % 2, 1 - one % 2) for one in range(400)}
    means = means_over_people(EVERYTHING.name, people)
    assert means.bounds is not None
    assert means.bounds[:, HAPPY] == pytest.approx([0.451, 0.549], abs=0.006)
