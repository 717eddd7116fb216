"""What the reader of a report on videos should know of it before the figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from fer.reports.study import overlapping

if TYPE_CHECKING:
    from fer.reports.analysed import Videos
    from fer.reports.reported import Reported
    from fer.reports.study import Cast
    from fer.reports.sums import Segment

PLOTTED: Final = 20
"""Timelines per video: those of the people seen longest. Every cut begins new tracks."""
_NAMED: Final = 6
_NEAR: Final = 1.0  # s by which a segment may begin before the first or end after the last frame


def report_notes(found: Videos, videos: Sequence[Reported], cast: Cast) -> list[str]:
    """Notes on the results, the people and the segments, in this order.

    Args:
        found: the results files.
        videos: what was made of them.
        cast: who is who.
    """
    notes = list(found.notes)
    if any(one.participants for one in videos):
        notes += [f"In {one.name} no face was seen." for one in videos if not one.counts.faces]
    heads = {(one.file.head["model_digest"], one.file.head["faces_digest"]) for one in videos}
    if len(heads) > 1:
        notes.append(
            "The videos were analysed by different models or with different parameters: their "
            "figures are not of one measure. Analyse them alike before you compare."
        )
    return notes + _people(videos, cast) + _segments(videos)


def _people(videos: Sequence[Reported], cast: Cast) -> list[str]:
    notes = []
    unlisted = [
        person.name
        for one in videos
        for person in one.participants
        if (one.name, person.tracks[0]) not in cast.listed
    ]
    if cast.listed and unlisted:
        notes.append(
            f"Tracks that are not in the list of people, {len(unlisted):,}, count as participants "
            f"of their own: {_some(unlisted)}. To leave one out, list it with an empty person."
        )
    elif len(unlisted) > 1:
        notes.append(
            "No list of people was given: each track counts as a participant of its own. Who comes "
            "back after a cut, or in another video, counts again."
        )
    return notes + [
        f"{one.name} has {len(one.participants):,} participants; the timelines are of the "
        f"{PLOTTED} seen longest. The tables have all."
        for one in videos
        if len(one.participants) > PLOTTED
    ]


def _segments(videos: Sequence[Reported]) -> list[str]:
    pairs: dict[tuple[str, str], None] = {}  # in order, each once
    for video in videos:
        pairs |= dict.fromkeys(overlapping(video.segments))
    outside = [
        f"{segment.name} in {video.name}"
        for video in videos
        for segment in video.segments
        if not _within(segment, video.span)
    ]
    notes = []
    if pairs:
        listed = _some([f"{one} and {other}" for one, other in pairs])
        notes.append(f"Segments overlap, and the time they share counts in both: {listed}.")
    if outside:
        notes.append(
            "Segments lie at least in part outside what was analysed, and only what is inside "
            f"counts: {_some(outside)}."
        )
    return notes


def _within(segment: Segment, span: tuple[float, float]) -> bool:
    (start, _), (_, end) = segment.stretches[0], segment.stretches[-1]
    return start >= span[0] - _NEAR and end <= span[1] + _NEAR


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED:,} more" if len(listed) > _NAMED else ""
    return f"{', '.join(listed[:_NAMED])}{more}"
