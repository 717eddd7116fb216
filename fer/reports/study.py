"""What an analyst says of the videos: which segments they have, and which tracks are who."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fer.clock import read_clock
from fer.errors import UsageError
from fer.reports.csv_rows import CsvRow, read_csv
from fer.reports.sums import WHOLE, Segment

if TYPE_CHECKING:
    from fer.reports.analysed import Videos

_EMPTY: Final = ""  # the person of a track that is left out


def read_segments(path: Path, videos: Videos) -> dict[str, tuple[Segment, ...]]:
    """The segments of each video, in order of their beginning.

    Rows of one name are one segment in several stretches; stretches that overlap are joined, so
    that no moment counts twice. Segments of different names may overlap.

    Args:
        path: CSV with the columns name, start, end, and video where it is not for all.
        videos: that are reported.

    Raises:
        UsageError: the file or a row of it makes no sense; the message names the line.
    """
    stretches: dict[str, dict[str, list[tuple[float, float]]]] = {
        one.name: {} for one in videos.files
    }
    rows = read_csv(path, ("name", "start", "end"), ("video",))
    if not rows:
        raise UsageError(f"{path} has no segment. Write one a line, or leave --segments out.")
    for row in rows:
        name = row.filled("name")
        if name == WHOLE:
            raise UsageError(f"{row.where}: {WHOLE} is the name of everything. Choose another.")
        start, end = _time(row, "start"), _time(row, "end")
        if end <= start:
            raise UsageError(
                f"{row.where}: the segment {name!r} ends at {row.cells['end']}, which is not "
                f"after its start, {row.cells['start']}. Mend one of them."
            )
        if text := row.cells["video"]:
            meant: Iterable[str] = [videos.named(text, row.where).name]
        else:
            meant = stretches
        for video in meant:
            stretches[video].setdefault(name, []).append((start, end))
    return {
        video: tuple(
            sorted(
                (Segment(name, _joined(parts)) for name, parts in found.items()),
                key=lambda one: one.stretches[0],
            )
        )
        for video, found in stretches.items()
    }


def overlapping(segments: Sequence[Segment]) -> list[tuple[str, str]]:
    """Names of the pairs of segments that share time."""
    return [
        (one.name, other.name)
        for place, one in enumerate(segments)
        for other in segments[place + 1 :]
        if any(a < d and c < b for a, b in one.stretches for c, d in other.stretches)
    ]


@dataclass(frozen=True)
class Cast:
    """Which tracks are which participant; without a list, each track is one.

    Attributes:
        listed: participant by video and track, empty for a track that is left out.
        lines: where each of them stands, for messages.
    """

    listed: Mapping[tuple[str, int], str] = field(default_factory=dict)
    lines: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def people(self, video: str, tracks: Sequence[int]) -> dict[str, list[int]]:
        """The tracks of each participant of one video, in order; those left out are in none.

        Raises:
            UsageError: a track is listed that the video does not have, or a participant is named
                as an unlisted track is.
        """
        for (where, track), line in self.lines.items():
            if where == video and track not in tracks:
                known = ", ".join(map(str, tracks[:20])) or "none"
                known += ", ..." if len(tracks) > 20 else ""
                raise UsageError(
                    f"{line}: {video} has no track {track}; its tracks are: {known}. "
                    "NAME.episodes.csv and an overlay (fer video --overlay) show who they are."
                )
        found: dict[str, list[int]] = {}
        for track in tracks:
            name = self.listed.get((video, track))
            if name is None:
                name = f"{video} #{track}"
                if name in self.listed.values():
                    raise UsageError(
                        f"A participant is called {name!r}, as the track {track} of {video} is, "
                        "which is not listed. List it, or rename the participant."
                    )
            if name != _EMPTY:
                found.setdefault(name, []).append(track)
        return found

    def left_out(self, video: str) -> list[int]:
        """Tracks of a video that are nobody's by the list."""
        return sorted(
            track
            for (where, track), name in self.listed.items()
            if where == video and name == _EMPTY
        )


def read_people(path: Path, videos: Videos) -> Cast:
    """Which tracks are which participant.

    Args:
        path: CSV with the columns video, track, person; an empty person leaves the track out.
        videos: that are reported.

    Raises:
        UsageError: the file or a row of it makes no sense; the message names the line.
    """
    listed: dict[tuple[str, int], str] = {}
    lines: dict[tuple[str, int], str] = {}
    for row in read_csv(path, ("video", "track", "person")):
        video = videos.named(row.filled("video"), row.where).name
        track = row.filled("track")
        if not (track.isascii() and track.isdecimal()):
            raise UsageError(
                f"{row.where}: track is {track!r}. Write its number, as the results have it."
            )
        key = (video, int(track))
        if listed.get(key, row.cells["person"]) != row.cells["person"]:
            raise UsageError(
                f"{row.where}: track {track} of {video} is {row.cells['person']!r} here and "
                f"{listed[key]!r} above. A track is one person: delete one of the rows."
            )
        listed[key] = row.cells["person"]
        lines.setdefault(key, row.where)
    return Cast(listed, lines)


def _time(row: CsvRow, column: str) -> float:
    # A spreadsheet that separates by semicolons writes 90,5.
    return read_clock(row.filled(column).replace(",", "."), f"{row.where}: {column}")


def _joined(stretches: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    joined: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)
