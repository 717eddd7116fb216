"""What each participant showed in sum, by segment, and the means over participants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fer.expressions import EXPRESSIONS

if TYPE_CHECKING:
    from fer.reports.seen import Person, Series

WHOLE: Final = "(all)"
"""Name of the segment that is everything that was analysed."""
FEWEST: Final = 3
"""Participants below which no interval is given: two say nothing of how people differ."""
LEVEL: Final = 0.95
_RESAMPLES: Final = 2000
_SEED: Final = 2013
_COUNT: Final = len(EXPRESSIONS)


@dataclass(frozen=True)
class Segment:
    """What was shown when: a name and one or several stretches, s, ascending and apart."""

    name: str
    stretches: tuple[tuple[float, float], ...]


EVERYTHING: Final = Segment(WHOLE, ((float("-inf"), float("inf")),))


@dataclass(frozen=True, eq=False)
class Sums:
    """What one participant showed in one segment. Of several videos, sums can be added.

    Attributes:
        seconds: (7,) that each expression was the leading one.
        weighted: (7,) each one's probability summed over time, s.
        episodes: (7,) that begin in the segment.
        longest: (7,) the longest of these, s, also beyond the segment's end; 0 for none.
    """

    seconds: Series
    weighted: Series
    episodes: NDArray[np.int64]
    longest: Series

    @property
    def visible(self) -> float:
        """Seconds that the face was seen."""
        return float(self.seconds.sum())

    @property
    def shares(self) -> Series | None:
        """(7,) of the visible time; None where the face was not seen."""
        return self.seconds / self.visible if self.visible > 0 else None

    @property
    def means(self) -> Series | None:
        """(7,) mean probabilities over the visible time; None where the face was not seen."""
        return self.weighted / self.visible if self.visible > 0 else None

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.seconds + other.seconds,
            self.weighted + other.weighted,
            self.episodes + other.episodes,
            np.maximum(self.longest, other.longest),
        )


def sum_up(person: Person, segment: Segment = EVERYTHING) -> Sums:
    """What one participant showed in one segment of one video.

    A row that a border of the segment divides counts for the part that lies inside.
    """
    borders = np.array(segment.stretches)
    inside = person.seen.until(borders[:, 1]) - person.seen.until(borders[:, 0])
    # A difference of two large sums may be a hair below nothing.
    gathered = np.maximum(inside.sum(axis=0), 0.0)
    episodes, longest = np.zeros(_COUNT, np.int64), np.zeros(_COUNT)
    for shown in person.episodes:
        begin = shown.episode.start
        if any(start <= begin < end for start, end in segment.stretches):
            place = EXPRESSIONS.index(shown.episode.expression)
            episodes[place] += 1
            longest[place] = max(longest[place], shown.seconds)
    return Sums(gathered[:_COUNT], gathered[_COUNT:], episodes, longest)


@dataclass(frozen=True, eq=False)
class Means:
    """Means over participants in one segment; each counts the same, however long seen.

    Attributes:
        segment: its name.
        people: who was seen in it.
        shares: (7,) mean of the shares; None where nobody was seen.
        bounds: (2, 7) of its 95 % interval; None for fewer than `FEWEST` participants.
        probabilities: (7,) mean of the mean probabilities, likewise.
        probability_bounds: (2, 7), likewise.
    """

    segment: str
    people: int
    shares: Series | None
    bounds: Series | None
    probabilities: Series | None
    probability_bounds: Series | None


def means_over_people(segment: str, people: Mapping[str, Sums]) -> Means:
    """Means over the participants who were seen in a segment, by a bootstrap over them.

    The percentile bootstrap (Efron 1979), participants drawn with replacement by a fixed seed.

    Args:
        segment: its name.
        people: sums by participant, over all videos.
    """
    # By name, so that the order of files and rows changes no interval.
    seen = [people[name] for name in sorted(people) if people[name].visible > 0]
    shares, bounds = _mean([one.shares for one in seen if one.shares is not None])
    means, mean_bounds = _mean([one.means for one in seen if one.means is not None])
    return Means(segment, len(seen), shares, bounds, means, mean_bounds)


def _mean(values: Sequence[Series]) -> tuple[Series | None, Series | None]:
    """The mean of some rows (7,), and its interval (2, 7)."""
    if not values:
        return None, None
    table = np.stack(values)
    count = len(table)
    mean = table.mean(axis=0)
    if count < FEWEST:
        return mean, None
    # How often each row is drawn: the rows themselves need not be copied 2,000 times.
    rng = np.random.default_rng(_SEED)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    tail = (1 - LEVEL) / 2 * 100
    return mean, np.percentile(drawn @ table / count, [tail, 100 - tail], axis=0)
