"""Expressions over time: probabilities smoothed per person, resting faces taken for neutral, and
the episodes in which a person shows one expression."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.errors import UsageError
from fer.expressions import EXPRESSIONS, Expression

if TYPE_CHECKING:
    import pyarrow as pa

    from fer.params import TimelineParams

Series = NDArray[np.float64]

_COLUMNS: Final = tuple(f"p_{name}" for name in EXPRESSIONS)
_FLOOR = 1e-4  # a probability below this says nothing by how far it is below
_LEAST = 1e-6  # s; a filter shorter than this is none
# What a resting face is taken to be once its baseline is removed.
_RESTING = np.array([0.7 if one is Expression.NEUTRAL else 0.05 for one in Expression])


@dataclass(frozen=True)
class Episode:
    """One stretch of time in which one person shows one expression.

    Attributes:
        track: the person's number in the video.
        expression: its name.
        start: time of its first frame, s.
        end: time of its last frame, s.
        frames: analysed frames in it.
        peak: highest smoothed probability.
        peak_time: when that was, s.
        mean: mean smoothed probability.
    """

    track: int
    expression: str
    start: float
    end: float
    frames: int
    peak: float
    peak_time: float
    mean: float

    def as_dict(self) -> dict[str, Any]:
        """The episode as a JSON object."""
        return asdict(self)


def smooth(times: Series, values: Series, constant: float) -> Series:
    """The two-sided exponential filter: exact at any spacing of frames, and without delay.

    Each result is the mean of all values, weighted by exp(-|distance in time| / constant), so
    probabilities stay between 0 and 1 and sum to 1, and a sudden change stays where it is.

    Args:
        times: (n,), ascending, s.
        values: (n, k).
        constant: s; 0 changes nothing.

    Returns:
        (n, k).

    Example:
        >>> smooth(np.arange(3.0), np.array([[0.0], [1.0], [0.0]]), 0.0).ravel().tolist()
        [0.0, 1.0, 0.0]
    """
    if constant < _LEAST or len(times) < 2:
        return values.astype(np.float64)
    keep = np.exp(-np.diff(times) / constant)
    # One array only, an hour of frames long: sums of what was, then those of what comes added.
    sums = np.ones((len(values), values.shape[1] + 1))
    sums[:, :-1] = values
    for place in range(1, len(times)):
        sums[place] += keep[place - 1] * sums[place - 1]
    coming, own = np.zeros(sums.shape[1]), np.ones(sums.shape[1])
    for place in range(len(times) - 2, -1, -1):
        own[:-1] = values[place + 1]
        coming += own
        coming *= keep[place]
        sums[place] += coming
    sums[:, :-1] /= sums[:, -1:]
    return sums[:, :-1]


class RunningFilter:
    """The one-sided exponential filter, for live video: it knows no future, so it lags.

    Args:
        constant: s; after a sudden change 63 % of it are reached in this time.
    """

    def __init__(self, constant: float) -> None:
        self.constant = constant
        self._state: dict[int, tuple[float, Series]] = {}

    def update(self, track: int, time: float, values: NDArray[Any]) -> Series:
        """The smoothed values (k,) of one person at a time that never goes back."""
        now = np.asarray(values, np.float64)
        if track in self._state and self.constant >= _LEAST:
            before, old = self._state[track]
            keep = math.exp(-max(0.0, time - before) / self.constant)
            now = keep * old + (1 - keep) * now
        self._state[track] = (time, now)
        return now

    def forget(self, before: float) -> None:
        """Drop whoever was last seen before this time."""
        self._state = {track: one for track, one in self._state.items() if one[0] >= before}


def remove_baseline(values: Series, resting: Series | None = None) -> Series:
    """Probabilities relative to a person's own resting face.

    Some faces at rest look sad or angry to the model. The median of each expression's logarithm
    over the resting frames is taken for neutral: it is subtracted, and what remains is laid over
    a neutral answer (0.7 neutral, 0.05 each other).

    Args:
        values: (n, 7) probabilities of one person.
        resting: (m, 7), those of frames at rest; None is all, for a person mostly at rest.
    """
    from_rest = np.log(np.maximum(values if resting is None else resting, _FLOOR))
    resting_level = np.median(from_rest, axis=0)
    del from_rest
    scores = np.log(np.maximum(values, _FLOOR))
    scores += np.log(_RESTING) - resting_level
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return np.asarray(scores)


def find_episodes(
    times: Series, probabilities: NDArray[Any], params: TimelineParams, track: int = 0
) -> Iterator[Episode]:
    """Episodes of one person, in order.

    An expression that reaches `enter` begins one. It is dated from the frame since which that
    expression has led and been at `leave` or above: where the filter rises to a probability that
    is never high, `enter` is reached only some frames after the change. It ends where that falls
    below `leave`, where another expression begins, or where the person is not seen for `max_gap`
    (at a low frame rate: for one and a half frames). Between the two bounds nothing changes, so a
    probability that wavers about one bound makes no two episodes.

    Args:
        times: (n,), ascending, s.
        probabilities: (n, 7), smoothed.
        params: the bounds.
        track: the person's number.
    """
    if not len(times):
        return
    best = probabilities.argmax(axis=1)
    gaps = np.diff(times)
    # At a low frame rate every two frames would be further apart than `max_gap`.
    longest = max(params.max_gap, 1.5 * float(np.median(gaps))) if len(gaps) else params.max_gap
    first, shown = 0, -1
    free = 0  # no episode to come may reach back beyond this frame

    def closed(stop: int) -> Iterator[Episode]:
        stretch = slice(first, stop)
        if shown < 0 or times[stop - 1] - times[first] + 1e-9 < params.min_episode:
            return
        scores = probabilities[stretch, shown]
        peak = int(scores.argmax())
        yield Episode(
            track=track,
            expression=EXPRESSIONS[shown],
            start=float(times[first]),
            end=float(times[stop - 1]),
            frames=stop - first,
            peak=float(scores[peak]),
            peak_time=float(times[first + peak]),
            mean=float(scores.mean()),
        )

    for place in range(len(times)):
        if place and gaps[place - 1] > longest:
            yield from closed(place)
            shown, free = -1, place
        leader = int(best[place])
        enters = leader != shown and probabilities[place, leader] >= params.enter
        leaves = shown >= 0 and probabilities[place, shown] < params.leave
        if enters or leaves:
            start = place
            while enters and start > free and best[start - 1] == leader:
                if probabilities[start - 1, leader] < params.leave:
                    break
                start -= 1
            yield from closed(start)
            first, shown = start, leader if enters else -1
            free = start
    yield from closed(len(times))


@dataclass(frozen=True)
class Timeline:
    """One person's frames: times (n,) in s, frame indices (n,), probabilities (n, 7)."""

    track: int
    times: Series
    frames: NDArray[np.int32]
    probabilities: NDArray[np.float32]


_Piece = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # frames, times, probabilities


def timelines(tables: Iterable[pa.Table], params: TimelineParams) -> Iterator[Timeline]:
    """Each person of a video's results, smoothed and, if asked for, relative to the resting face.

    Args:
        tables: rows of one video, all or part by part, with `face`, `track`, `frame`, `timestamp`
            and the `p_` columns.
        params: filter and baseline.

    Raises:
        UsageError: the rows are no video's.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    # By person, 40 bytes a row: an hour of three people is 13 MB until they are done with.
    pieces: dict[int, list[_Piece]] = {}
    for table in tables:
        faces = table.filter(pc.is_valid(table.column("face")))
        if faces.column("track").null_count:
            raise UsageError("Only a video has a timeline; these are results of pictures.")
        tracks = faces.column("track").to_numpy()
        indices = faces.column("frame").to_numpy().astype(np.int32)
        times = faces.column("timestamp").to_numpy()
        scores = np.empty((len(tracks), len(_COLUMNS)), np.float32)
        for place, name in enumerate(_COLUMNS):
            scores[:, place] = faces.column(name).to_numpy()
        for track in np.unique(tracks):
            rows = np.flatnonzero(tracks == track)
            piece = (indices[rows], times[rows], scores[rows])
            pieces.setdefault(int(track), []).append(piece)
    pa.default_memory_pool().release_unused()  # some 10 MB that it would keep for more reading
    for track in sorted(pieces):
        yield _timeline(track, pieces.pop(track), params)


def _timeline(track: int, pieces: list[_Piece], params: TimelineParams) -> Timeline:
    indices, times, scores = map(np.concatenate, zip(*pieces, strict=True))
    pieces.clear()
    values = smooth(times, scores, params.smoothing)
    del scores
    if params.baseline:
        values = remove_baseline(values)
    return Timeline(track, times, indices, values.astype(np.float32))


def episodes_of(tables: Iterable[pa.Table], params: TimelineParams) -> list[Episode]:
    """Every episode of a video's results, in order of start; see `timelines`, `find_episodes`."""
    found = [
        episode
        for one in timelines(tables, params)
        for episode in find_episodes(one.times, one.probabilities, params, one.track)
    ]
    return sorted(found, key=lambda one: (one.start, one.track))
