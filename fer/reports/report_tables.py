"""The tables beside a report's page, as CSV: sums, means, who was seen, episodes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer.expressions import EXPRESSIONS
from fer.files import write_text

if TYPE_CHECKING:
    from fer.reports.reported import Reported
    from fer.reports.seen import Series
    from fer.reports.sums import Means

SUMS: Final = (
    "video",
    "person",
    "segment",
    "expression",
    "seconds",
    "share",
    "mean_probability",
    "episodes",
    "longest_episode",
)
MEANS: Final = (
    "segment",
    "expression",
    "people",
    "share",
    "share_low",
    "share_high",
    "probability",
    "probability_low",
    "probability_high",
)
SEEN: Final = (
    "video",
    "person",
    "tracks",
    "first",
    "last",
    "seconds",
    "share_of_video",
    "faces",
    "marked",
    "episodes",
)
EPISODES: Final = (
    "video",
    "person",
    "track",
    "expression",
    "start",
    "end",
    "seconds",
    "peak",
    "peak_time",
    "mean",
)
FILES: Final = ("sums.csv", "means.csv", "seen.csv", "episodes.csv")


def write_tables(videos: Sequence[Reported], means: Iterable[Means], folder: Path) -> None:
    """Write the four tables; each is there also where it has no row."""
    tables: tuple[tuple[Sequence[str], Iterable[Sequence[Any]]], ...] = (
        (SUMS, _sums(videos)),
        (MEANS, _means(means)),
        (SEEN, _seen(videos)),
        (EPISODES, _episodes(videos)),
    )
    for name, (columns, rows) in zip(FILES, tables, strict=True):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        write_text(folder / name, text.getvalue())


def _sums(videos: Iterable[Reported]) -> Iterator[Sequence[Any]]:
    for video in videos:
        for one in video.participants:
            for segment, sums in one.sums.items():
                shares, means = _listed(sums.shares), _listed(sums.means)
                for place, expression in enumerate(EXPRESSIONS):
                    yield (
                        video.name,
                        one.name,
                        segment,
                        expression,
                        _seconds(sums.seconds[place]),
                        shares[place],
                        means[place],
                        int(sums.episodes[place]),
                        _seconds(sums.longest[place]) if sums.episodes[place] else None,
                    )


def _means(means: Iterable[Means]) -> Iterator[Sequence[Any]]:
    for one in means:
        columns = [
            _listed(values)
            for mean, bounds in (
                (one.shares, one.bounds),
                (one.probabilities, one.probability_bounds),
            )
            for values in (mean, *((None, None) if bounds is None else bounds))
        ]
        for place, expression in enumerate(EXPRESSIONS):
            yield (one.segment, expression, one.people, *(column[place] for column in columns))


def _seen(videos: Iterable[Reported]) -> Iterator[Sequence[Any]]:
    for video in videos:
        for one in video.participants:
            yield (
                video.name,
                one.name,
                ";".join(map(str, one.tracks)),
                _seconds(one.first),
                _seconds(one.last),
                _seconds(one.visible),
                round(one.visible / video.seconds, 6) if video.seconds > 0 else None,
                one.faces,
                one.marked,
                len(one.episodes),
            )


def _episodes(videos: Iterable[Reported]) -> Iterator[Sequence[Any]]:
    for video in videos:
        rows = [(shown, one.name) for one in video.participants for shown in one.episodes]
        for shown, name in sorted(rows, key=lambda row: (row[0].episode.start, row[1])):
            one = shown.episode
            yield (
                video.name,
                name,
                one.track,
                one.expression,
                _seconds(one.start),
                _seconds(one.end),
                _seconds(shown.seconds),
                round(one.peak, 6),
                _seconds(one.peak_time),
                round(one.mean, 6),
            )


def _listed(values: Series | None) -> list[float | None]:
    """Shares or probabilities of the seven; None where there are none, an empty cell."""
    if values is None:
        return [None] * len(EXPRESSIONS)
    return [round(float(one), 6) for one in values]


def _seconds(value: float) -> float:
    return round(float(value), 3)
