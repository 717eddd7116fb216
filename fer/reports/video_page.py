"""The page of a report on videos: who showed what, moment by moment and in sum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fer.clock import clock
from fer.expressions import Expression
from fer.reports.html import Bar, Fact, Image, Link, Section, Table, percent
from fer.reports.report_tables import FILES
from fer.reports.sums import FEWEST, WHOLE
from fer.reports.timeline_plot import CAPTION

if TYPE_CHECKING:
    from fer.params import TimelineParams
    from fer.reports.reported import Participant, Reported
    from fer.reports.sums import Means, Sums

ROWS: Final = 200
"""Rows of a table on the page; the CSV files have all."""
NOBODY: Final = (
    "No face was seen. The default detector finds faces from 40 px on that look towards the "
    "camera: see how large they are, and `faces` in params.yaml."
)
_LABELS: Final = tuple(one.label for one in Expression)
_WHAT: Final = {
    "sums.csv": "per video, participant, segment and expression",
    "means.csv": "means over participants with their intervals",
    "seen.csv": "who was seen when and for how long",
    "episodes.csv": "every episode with its participant",
}


def page_sections(
    videos: Sequence[Reported],
    means: Sequence[Means],
    plots: Mapping[tuple[str, str], Path],
    params: TimelineParams,
    notes: Sequence[str],
) -> list[Section]:
    """All sections of the page, in order.

    Args:
        videos: that are reported.
        means: over participants, by segment.
        plots: timelines by video and participant; not everybody needs one.
        params: with which timelines and episodes were made.
        notes: what the reader should know of this report.
    """
    sections = [_overview(videos, notes)]
    people = {one.name for video in videos for one in video.participants}
    if people and (len(people) > 1 or len(videos) > 1):
        sections.append(_means(means))
    for video in videos:
        sections += _video(video, plots)
    sections.append(_meaning(videos, params))
    sections.append(
        Section("Files", links=[Link(f"{name}: {_WHAT[name]}", name) for name in FILES])
    )
    return sections


def _overview(videos: Sequence[Reported], notes: Sequence[str]) -> Section:
    seen: dict[str, tuple[int, Sums]] = {}
    for video in videos:
        for one in video.participants:
            count, sums = seen.get(one.name, (0, None))
            added = one.sums[WHOLE] if sums is None else sums + one.sums[WHOLE]
            seen[one.name] = (count + 1, added)
    rows: list[list[object]] = [
        [name, count, clock(sums.visible), *_percents(sums)] for name, (count, sums) in seen.items()
    ]
    text = "" if seen else NOBODY
    if len(rows) > ROWS:
        text = f"The first {ROWS} of {len(rows):,} participants; sums.csv has all."
    return Section(
        "In sum",
        text="\n\n".join(filter(None, [text, *notes])),
        facts=[
            Fact(f"{len(videos):,}", "video" if len(videos) == 1 else "videos"),
            Fact(f"{len(seen):,}", "participant" if len(seen) == 1 else "participants"),
            Fact(clock(sum(one.seconds for one in videos)), "analysed", "hours:minutes:seconds"),
        ],
        table=Table(["participant", "videos", "seen for", *_LABELS], rows[:ROWS]) if rows else None,
    )


def _means(means: Sequence[Means]) -> Section:
    rows: list[list[object]] = []
    for one in means:
        cells: list[object] = ["-"] * len(_LABELS)
        if one.shares is not None:
            cells = [percent(share) for share in one.shares]
        if one.bounds is not None:
            ranges = zip(cells, *one.bounds, strict=True)
            cells = [f"{cell} ({low * 100:.1f} to {high * 100:.1f})" for cell, low, high in ranges]
        rows.append([one.segment, one.people, *cells])
    return Section(
        "Means over participants",
        text=(
            "Mean share of the time that a face was seen, by segment. Each participant counts "
            "the same, however long seen; n are those who were seen in the segment. In brackets "
            "the 95 % interval by a bootstrap over participants: how far the mean may move with "
            f"others like them in their place. With fewer than {FEWEST} there is none, and with "
            "fewer than ten it is narrower than it should be."
        ),
        table=Table(["segment", "n", *_LABELS], rows),
    )


def _video(video: Reported, plots: Mapping[tuple[str, str], Path]) -> Iterator[Section]:
    yield _head(video)
    caption = CAPTION  # once is enough
    for one in video.participants:
        if (plot := plots.get((video.name, one.name))) is not None:
            yield _participant(video, one, Image(plot, _alt(video, one), caption))
            caption = ""
    if video.segments and video.participants:
        yield _segments(video)
    if any(one.episodes for one in video.participants):
        yield _episodes(video)


def _head(video: Reported) -> Section:
    counts, head = video.counts, video.file.head
    begin, end = video.span
    marks = ", ".join(f"{name} {count:,}" for name, count in sorted(video.marks.items()))
    text = [
        f"{video.file.source}, {head['width']}x{head['height']}. Model {video.file.model}; faces "
        f"found by {head['detector']}. Results: {video.file.path.name}.",
        *video.warnings,
    ]
    if not counts.faces:
        text.append(NOBODY)
    elif not video.participants:
        text.append("Every track of this video is left out by the list of people.")
    if video.left_out:
        text.append(f"Left out as the list of people says: {_tracks(video.left_out)}.")
    text += [
        f"{one.name} has two faces in {one.twice:,} frames; the one with the lower number counts."
        for one in video.participants
        if one.twice
    ]
    segments: list[list[object]] = [
        [number, one.name, clock(start), clock(stop)]
        for number, one in enumerate(video.segments, start=1)
        for start, stop in one.stretches
    ]
    return Section(
        video.name,
        text="\n\n".join(text),
        facts=[
            Fact(
                clock(video.seconds),
                "analysed",
                f"{clock(begin)} to {clock(end)}, a frame every {video.interval:.3g} s",
            ),
            Fact(f"{counts.frames:,}", "frames"),
            Fact(f"{counts.without_face:,}", "frames without a face"),
            Fact(f"{counts.corrupt:,}", "corrupt frames", "could not be decoded"),
            Fact(f"{counts.faces:,}", "faces", _count(counts.tracks, "track")),
            Fact(f"{video.marked:,}", "faces marked by quality", marks),
        ],
        table=Table(["", "segment", "from", "to"], segments[:ROWS]) if segments else None,
    )


def _participant(video: Reported, one: Participant, plot: Image) -> Section:
    sums = one.sums[WHOLE]
    share = one.visible / video.seconds if video.seconds > 0 else 0.0
    facts = [
        Fact(clock(one.visible), "seen", f"{percent(share)} of what was analysed"),
        Fact(clock(one.first), "seen first", f"last until {clock(one.last)}"),
        Fact(f"{one.marked:,}", "faces marked by quality", f"of {one.faces:,}"),
    ]
    rows: list[list[object]] = []
    shares, means = sums.shares, sums.means
    for expression in Expression:
        part = 0.0 if shares is None else float(shares[expression])
        rows.append(
            [
                expression.label,
                Bar(part, percent(part), expression.colour),
                clock(sums.seconds[expression]),
                "-" if means is None else percent(means[expression]),
                int(sums.episodes[expression]),
                clock(sums.longest[expression]) if sums.episodes[expression] else "-",
            ]
        )
    columns = ["expression", "share of the time seen", "leading for", "mean probability"]
    return Section(
        _titled(video, one),
        text=f"In the results: {_tracks(one.tracks)}.",
        facts=facts,
        table=Table([*columns, "episodes", "longest"], rows),
        images=[plot],
    )


def _segments(video: Reported) -> Section:
    rows: list[list[object]] = [
        [
            segment.name,
            one.name,
            clock(one.sums[segment.name].visible),
            *_percents(one.sums[segment.name]),
        ]
        for segment in video.segments
        for one in video.participants
    ]
    return Section(
        f"{video.name}: by segment",
        text=(
            "Shares of the time that the face was seen in the segment."
            + (f" The first {ROWS} of {len(rows):,} rows; sums.csv has all." * (len(rows) > ROWS))
        ),
        table=Table(["segment", "participant", "seen for", *_LABELS], rows[:ROWS]),
    )


def _episodes(video: Reported) -> Section:
    listed = sorted(
        ((shown, one.name) for one in video.participants for shown in one.episodes),
        key=lambda row: (row[0].episode.start, row[1]),
    )
    rows: list[list[object]] = [
        [
            name,
            shown.episode.expression,
            clock(shown.episode.start),
            clock(shown.episode.start + shown.seconds),
            percent(shown.episode.mean, 0),
            f"{percent(shown.episode.peak, 0)} at {clock(shown.episode.peak_time)}",
        ]
        for shown, name in listed[:ROWS]
    ]
    text = f"The first {ROWS} of {len(listed):,}; episodes.csv has all."
    return Section(
        f"{video.name}: episodes ({len(listed):,})",
        text=text if len(listed) > ROWS else "",
        table=Table(["participant", "expression", "from", "to", "mean", "peak"], rows),
        open=False,
    )


def _meaning(videos: Sequence[Reported], params: TimelineParams) -> Section:
    figures = _accuracy(videos)
    baseline = (
        " Each face is taken relative to its own resting face (baseline: true)."
        if params.baseline
        else ""
    )
    return Section(
        "What the figures mean",
        text=(
            "An expression is how a face looks, as a model trained on labelled pictures would "
            "label it; it is not what a person feels, thinks or intends. People show what they do "
            "not feel and feel what they do not show. Read sums and means rather than single "
            f"moments, and look at the video before you conclude.{figures}\n\n"
            "Times are those of the video. A row of the results counts until the next analysed "
            "frame, at a variable or low frame rate too; the last row of a track counts for the "
            "median interval between analysed frames, or until the next one where that comes "
            "sooner. While a face is hidden, turned away or not found, nothing counts: shares are "
            "of the time that the face was seen. Where a border of a segment divides a row, each "
            "side gets its part.\n\n"
            "The leading expression is the most probable one after smoothing over "
            f"{params.smoothing:g} s.{baseline} An episode begins where a probability reaches "
            f"{params.enter:g}, dated from where it took the lead, and ends where it falls below "
            f"{params.leave:g} or another begins; those under {params.min_episode:g} s are left "
            "out. An episode counts in the segment in which it begins, with its whole length. So "
            "a doubtful face has a leading expression and no episode.\n\n"
            "A mark by quality says that a face is smaller, more blurred, darker, brighter or "
            "turned further than those the model was trained on. A track is one face followed "
            "through one scene; unless a list of people says who is who, each track is a "
            "participant of its own, and somebody who comes back after a cut counts twice in the "
            "means."
        ),
    )


def _accuracy(videos: Sequence[Reported]) -> str:
    """How often the model is right: where it is the shipped one, whose figures are at hand."""
    from fer.reference import FOLDER

    plain = " How often the model is right, and on what, its card says: card.md in its package."
    try:
        data = (FOLDER / "manifest.json").read_bytes()
    except OSError:
        return plain
    digest = hashlib.sha256(data).hexdigest()
    if {one.file.head["model_digest"] for one in videos} != {digest}:
        return plain
    metrics = json.loads(data)["metrics"]
    test, f1 = metrics["test"], metrics["f1"]
    best, worst = max(f1, key=f1.__getitem__), min(f1, key=f1.__getitem__)
    return (
        f" Of {test['n']:,} test pictures this model gives {percent(test['accuracy'])} the label "
        f"that they carry (95 % interval {test['accuracy_low'] * 100:.1f} to "
        f"{test['accuracy_high'] * 100:.1f}); it is best at {best} (F1 {f1[best]:.2f}) and worst "
        f"at {worst} ({f1[worst]:.2f}). Its card has the rest: card.md in the package "
        "fer/reference_model."
    )


def _percents(sums: Sums) -> list[object]:
    if sums.shares is None:
        return ["-"] * len(_LABELS)
    return [percent(share) for share in sums.shares]


def _titled(video: Reported, one: Participant) -> str:
    return one.name if one.name.startswith(f"{video.name} #") else f"{one.name} in {video.name}"


def _alt(video: Reported, one: Participant) -> str:
    return f"Timeline of {one.name} in {video.name}"


def _tracks(numbers: Iterable[int]) -> str:
    listed = list(numbers)
    return f"{'track' if len(listed) == 1 else 'tracks'} {', '.join(map(str, listed))}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
