"""A video as a report has it: its participants' sums and episodes, without its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fer.reports.seen import Person, Shown
from fer.reports.sums import EVERYTHING, Means, Segment, Sums, means_over_people, sum_up

if TYPE_CHECKING:
    from collections import Counter

    from fer.inference.video_parts import Counts
    from fer.params import TimelineParams
    from fer.reports.analysed import Analysed, ResultFile
    from fer.reports.study import Cast


@dataclass(frozen=True, eq=False)
class Participant:
    """One participant in one video.

    Attributes:
        name: of the participant.
        tracks: the numbers in the video's results.
        first: when seen first, s.
        last: until when seen last, s.
        faces: rows that count.
        marked: rows marked by their quality.
        twice: rows that do not count: a second face of this participant in one frame.
        episodes: in order of start.
        sums: by segment, `WHOLE` first.
    """

    name: str
    tracks: tuple[int, ...]
    first: float
    last: float
    faces: int
    marked: int
    twice: int
    episodes: tuple[Shown, ...]
    sums: Mapping[str, Sums]

    @classmethod
    def of(cls, person: Person, segments: Sequence[Segment], marked: Mapping[int, int]) -> Self:
        """Sum up what a person showed.

        Args:
            person: in one video.
            segments: of the video.
            marked: rows marked by their quality, by track.
        """
        seen = person.seen
        return cls(
            name=person.name,
            tracks=person.tracks,
            first=float(seen.starts[0]),
            last=float(seen.ends[-1]),
            faces=len(seen.starts),
            marked=sum(marked.get(track, 0) for track in person.tracks),
            twice=person.twice,
            episodes=person.episodes,
            sums={one.name: sum_up(person, one) for one in (EVERYTHING, *segments)},
        )

    @property
    def visible(self) -> float:
        """Seconds that the face was seen."""
        return self.sums[EVERYTHING.name].visible


@dataclass(frozen=True, eq=False)
class Reported:
    """One video.

    Attributes:
        file: its results.
        span: from the first analysed frame to the end of the last, s.
        interval: median time from one analysed frame to the next, s.
        counts: of rows and frames.
        marked: faces marked by their quality.
        marks: faces by mark.
        segments: in order of their beginning.
        participants: in order of their first track.
        left_out: tracks that are nobody's by the list of people.
        warnings: that the analysis gave.
    """

    file: ResultFile
    span: tuple[float, float]
    interval: float
    counts: Counts
    marked: int
    marks: Counter[str]
    segments: tuple[Segment, ...]
    participants: tuple[Participant, ...]
    left_out: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the report calls the video."""
        return self.file.name

    @property
    def seconds(self) -> float:
        """Of the video that were analysed."""
        return self.span[1] - self.span[0]


def people_of(analysed: Analysed, cast: Cast, params: TimelineParams) -> list[Person]:
    """The participants of one video, in order of their first track.

    Raises:
        UsageError: the list of people does not fit the video.
    """
    tracks = {one.track: one for one in analysed.tracks}
    listed = cast.people(analysed.file.name, list(tracks))
    return [
        Person.of(name, [tracks[number] for number in numbers], analysed.frames, params)
        for name, numbers in listed.items()
    ]


def report_on(
    analysed: Analysed, people: Iterable[Person], segments: Sequence[Segment], cast: Cast
) -> Reported:
    """Sum up one video; nothing that is as long as the video is kept."""
    return Reported(
        file=analysed.file,
        span=analysed.frames.span,
        interval=analysed.frames.interval,
        counts=analysed.counts,
        marked=sum(analysed.marked.values()),
        marks=analysed.marks,
        segments=tuple(segments),
        participants=tuple(Participant.of(one, segments, analysed.marked) for one in people),
        left_out=tuple(cast.left_out(analysed.file.name)),
        warnings=analysed.warnings,
    )


def by_segment(videos: Iterable[Reported]) -> dict[str, dict[str, Sums]]:
    """Sums over all videos, by segment and participant; `WHOLE` first."""
    found: dict[str, dict[str, Sums]] = {EVERYTHING.name: {}}
    for video in videos:
        for segment in video.segments:
            found.setdefault(segment.name, {})
        for one in video.participants:
            for segment_name, sums in one.sums.items():
                people = found[segment_name]
                people[one.name] = people[one.name] + sums if one.name in people else sums
    return found


def means_by_segment(videos: Iterable[Reported]) -> list[Means]:
    """Means over participants of each segment, over all videos."""
    return [means_over_people(name, people) for name, people in by_segment(videos).items()]
