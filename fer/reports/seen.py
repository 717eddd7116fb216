"""When one person was seen in a video, and what the face showed at each moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fer.expressions import EXPRESSIONS
from fer.inference.timeline import find_episodes

if TYPE_CHECKING:
    from fer.inference.timeline import Episode, Timeline
    from fer.params import TimelineParams

Series = NDArray[np.float64]

_COUNT: Final = len(EXPRESSIONS)
_ALONE: Final = 0.04  # s that the one frame of a video of one frame counts


@dataclass(frozen=True, eq=False)
class Frames:
    """The analysed frames of one video: indices (m,) and times (m,) in s, both ascending."""

    indices: NDArray[np.int64]
    times: Series

    @property
    def interval(self) -> float:
        """The median time from one analysed frame to the next, s."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else _ALONE

    @property
    def span(self) -> tuple[float, float]:
        """From the first frame to the end of the last, s."""
        return float(self.times[0]), float(self.times[-1]) + self.interval


class Seen:
    """One person's rows, each a stretch of time in which the face showed one thing.

    Args:
        starts: (n,), ascending, s; n is at least 1.
        ends: (n,); none lies after the next start.
        probabilities: (n, 7), smoothed.
    """

    def __init__(self, starts: Series, ends: Series, probabilities: NDArray[np.float32]) -> None:
        self.starts, self.ends, self.probabilities = starts, ends, probabilities
        self.leaders = probabilities.argmax(axis=1)
        # What has been gathered before each row, and after the last.
        self._gathered = np.zeros((len(starts) + 1, 2 * _COUNT))
        rates = self._rates(np.arange(len(starts))) * (ends - starts)[:, None]
        np.cumsum(rates, axis=0, out=self._gathered[1:])

    def until(self, times: Series) -> Series:
        """Seconds from the beginning to each of these times, by expression.

        Returns:
            (m, 14): first the seconds that each expression led, then each one's probability
            summed over time. A difference of two rows is what lies between their times.
        """
        place = np.searchsorted(self.starts, times, side="right") - 1
        row = np.maximum(place, 0)
        into = np.where(place < 0, 0.0, np.minimum(times, self.ends[row]) - self.starts[row])
        return np.asarray(self._gathered[row] + into[:, None] * self._rates(row))

    def extremes(self, edges: Series) -> tuple[Series, Series]:
        """Lowest and highest probability of each expression between neighbouring edges.

        Args:
            edges: (m + 1,), ascending, s.

        Returns:
            Two arrays (m, 7), nan where the person was not seen.
        """
        first = np.searchsorted(self.ends, edges[:-1], side="right")
        last = np.searchsorted(self.starts, edges[1:], side="left")
        seen = first < last
        pairs = np.stack([first, last], axis=1)[seen].ravel()
        # `reduceat` wants every bound to be a row, the one behind the last row too.
        values = np.concatenate([self.probabilities, self.probabilities[-1:]])
        found = []
        for reduce in (np.minimum.reduceat, np.maximum.reduceat):
            bounds = np.full((len(edges) - 1, _COUNT), np.nan)
            if len(pairs):
                bounds[seen] = reduce(values, pairs, axis=0)[::2]
            found.append(bounds)
        return found[0], found[1]

    def _rates(self, rows: NDArray[np.intp]) -> Series:
        rates = np.zeros((len(rows), 2 * _COUNT))
        rates[np.arange(len(rows)), self.leaders[rows]] = 1.0
        rates[:, _COUNT:] = self.probabilities[rows]
        return rates


@dataclass(frozen=True)
class Shown:
    """An episode, and for how long it lasted: to the end of its last row, s."""

    episode: Episode
    seconds: float


@dataclass(frozen=True, eq=False)
class Person:
    """One participant in one video.

    Attributes:
        name: of the participant.
        tracks: the numbers under which the video's results have the person.
        seen: when, and showing what.
        episodes: in order of start.
        twice: frames in which two tracks are this person; the lower number counts.
    """

    name: str
    tracks: tuple[int, ...]
    seen: Seen
    episodes: tuple[Shown, ...]
    twice: int

    @classmethod
    def of(
        cls, name: str, tracks: Sequence[Timeline], frames: Frames, params: TimelineParams
    ) -> Person:
        """A participant from the tracks that are this person, in order of their numbers.

        A row counts until the next analysed frame, whoever is in that. What comes after the last
        row of a track is not known: it counts for the median interval, or until the next analysed
        frame where that comes sooner.
        """
        indices = np.concatenate([one.frames for one in tracks]).astype(np.int64)
        numbers = np.repeat([one.track for one in tracks], [len(one.frames) for one in tracks])
        places = np.searchsorted(frames.indices, indices)
        ends = np.append(frames.times, np.inf)[places + 1]
        last = np.cumsum([len(one.frames) for one in tracks]) - 1
        ends[last] = np.minimum(ends[last], frames.times[places[last]] + frames.interval)
        # The first of equal indices is that of the track with the lower number.
        _, kept = np.unique(indices, return_index=True)
        probabilities = np.concatenate([one.probabilities for one in tracks])
        seen = Seen(frames.times[places[kept]], ends[kept], probabilities[kept])
        shown = [
            Shown(episode, seen_until - episode.start)
            for one in tracks
            for episode, seen_until, number in _episodes(one, seen, numbers[kept], params)
            if number == one.track
        ]
        return cls(
            name=name,
            tracks=tuple(one.track for one in tracks),
            seen=seen,
            episodes=tuple(sorted(shown, key=lambda one: one.episode.start)),
            twice=len(indices) - len(kept),
        )


def _episodes(
    track: Timeline, seen: Seen, numbers: NDArray[np.int64], params: TimelineParams
) -> list[tuple[Episode, float, int]]:
    """Each episode of a track, the end of its last row, and whose row its first frame is."""
    found = []
    for episode in find_episodes(track.times, track.probabilities, params, track.track):
        first = int(np.searchsorted(seen.starts, episode.start))
        last = int(np.searchsorted(seen.starts, episode.end, side="right")) - 1
        found.append((episode, float(seen.ends[last]), int(numbers[first])))
    return found
