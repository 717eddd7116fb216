"""A report on videos: who showed what, moment by moment and in sum, as a page and as tables."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.errors import UsageError
from fer.expressions import EXPRESSIONS
from fer.reports.analysed import find_results, read_analysed
from fer.reports.pages import render_summary
from fer.reports.report_notes import PLOTTED, report_notes
from fer.reports.report_tables import FILES, write_tables
from fer.reports.reported import Reported, by_segment, means_by_segment, people_of, report_on
from fer.reports.study import Cast, read_people, read_segments
from fer.reports.timeline_plot import plot_timeline
from fer.reports.video_page import page_sections

if TYPE_CHECKING:
    from fer.params import TimelineParams
    from fer.reports.seen import Person
    from fer.reports.sums import Means


@dataclass(frozen=True, eq=False)
class VideoReport:
    """A report that was written.

    Attributes:
        page: its index.html.
        videos: that it is on.
        means: over participants, by segment.
        notes: what its reader should know.
    """

    page: Path
    videos: tuple[Reported, ...]
    means: tuple[Means, ...]
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The report as a JSON object: sums by segment and participant over all videos."""
        return {
            "page": str(self.page),
            "tables": [str(self.page.with_name(name)) for name in FILES],
            "videos": [
                {
                    "video": one.name,
                    "results": str(one.file.path),
                    "seconds": round(one.seconds, 3),
                    "frames": one.counts.frames,
                    "without_face": one.counts.without_face,
                    "corrupt": one.counts.corrupt,
                    "faces": one.counts.faces,
                    "marked": one.marked,
                    "participants": [person.name for person in one.participants],
                    "left_out": list(one.left_out),
                }
                for one in self.videos
            ],
            "sums": [
                {
                    "segment": segment,
                    "participant": name,
                    "seconds": round(sums.visible, 3),
                    "shares": _named(sums.shares),
                    "episodes": int(sums.episodes.sum()),
                }
                for segment, people in by_segment(self.videos).items()
                for name, sums in people.items()
            ],
            "means": [
                {
                    "segment": one.segment,
                    "participants": one.people,
                    "shares": _named(one.shares),
                    "low": _named(None if one.bounds is None else one.bounds[0]),
                    "high": _named(None if one.bounds is None else one.bounds[1]),
                }
                for one in self.means
            ],
            "notes": list(self.notes),
        }


def video_report(
    results: Iterable[Path | str],
    out: Path | str,
    *,
    segments: Path | str | None = None,
    people: Path | str | None = None,
    params: TimelineParams | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VideoReport:
    """Write `index.html`, `sums.csv`, `means.csv`, `seen.csv` and `episodes.csv`.

    Args:
        results: Parquet files of `fer video`, and folders with such.
        out: the report's folder; made if absent.
        segments: CSV of what was shown when: name, start, end, and video where not for all.
        people: CSV of who is who: video, track, person; an empty person leaves a track out.
        params: smoothing and episodes; None is the defaults.
        progress: called with videos done and videos in all.

    Raises:
        UsageError: an input is missing or makes no sense; the message says which and where.
        TableError: a results file is damaged or of another schema.
    """
    if params is None:
        from fer.params import TimelineParams

        params = TimelineParams()
    folder = Path(out).expanduser()
    if folder.is_file():
        raise UsageError(f"{folder} is a file; a report is a folder. Choose another.")
    written = {(folder / name).resolve() for name in FILES}
    for given in (segments, people):
        if given is not None and Path(given).expanduser().resolve() in written:
            raise UsageError(f"The report would overwrite {given}. Choose another --output.")
    found = find_results([Path(one).expanduser() for one in results])
    parts = read_segments(Path(segments).expanduser(), found) if segments is not None else {}
    cast = read_people(Path(people).expanduser(), found) if people is not None else Cast()
    with tempfile.TemporaryDirectory() as name:
        videos: list[Reported] = []
        plots: dict[tuple[str, str], Path] = {}
        for number, file in enumerate(found.files):
            analysed = read_analysed(file, params)
            there = people_of(analysed, cast, params)
            own = parts.get(file.name, ())
            video = report_on(analysed, there, own, cast)
            for person in _longest(there):
                plot = Path(name) / f"{len(plots)}.png"
                plot_timeline(person, video.span, own, plot)
                plots[file.name, person.name] = plot
            videos.append(video)
            if progress is not None:
                progress(number + 1, len(found.files))
        means = means_by_segment(videos)
        notes = report_notes(found, videos, cast)
        write_tables(videos, means, folder)
        page = render_summary(
            folder / "index.html",
            page_sections(videos, means, plots, params, notes),
            title="Who showed what, and when",
            lead=_lead(videos),
        )
    return VideoReport(page, tuple(videos), tuple(means), tuple(notes))


def _longest(people: Sequence[Person]) -> list[Person]:
    """Those who get a plot, in the order they have."""
    lasting = sorted(people, key=lambda one: -float((one.seen.ends - one.seen.starts).sum()))
    chosen = {one.name for one in lasting[:PLOTTED]}
    return [one for one in people if one.name in chosen]


def _lead(videos: Sequence[Reported]) -> str:
    models = sorted({one.file.model for one in videos})
    names = ", ".join(one.file.source for one in videos[:6])
    more = f" and {len(videos) - 6} more" if len(videos) > 6 else ""
    return f"{names}{more}. Analysed by {'; '.join(models)}."


def _named(values: Any) -> dict[str, float] | None:
    if values is None:
        return None
    return {name: round(float(one), 6) for name, one in zip(EXPRESSIONS, values, strict=True)}
