"""What the boxes of an MP4 say that OpenCV does not: its kinds of track, and its edit list.

ISO/IEC 14496-12 (box sizes 4.2, sample tables 8.6, edit lists 8.6.6). Only the boxes that are
needed are read. A file whose boxes make no sense says nothing; it is no error here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

_MOST_BOXES = 1 << 16  # in one box: a damaged file may hold millions that mean nothing
_MOST_BYTES = 64 << 20  # of one table: those of a day of video take less


@dataclass(frozen=True)
class Edit:
    """The part of a video track that is to be shown.

    Attributes:
        skip: from the first packet that is read, which is of a key frame, to the part, s.
        length: of the part, s.
        frames: how many frames are in it.
    """

    skip: float
    length: float
    frames: int


@dataclass(frozen=True)
class _Box:
    name: bytes
    start: int  # of its content
    end: int


def has_whole_index(path: Path) -> bool:
    """Whether the box `moov` of an MP4 ends within the file."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        return any(box.name == b"moov" and box.end <= size for box in _boxes(file, 0, size))


def kinds(path: Path) -> set[bytes]:
    """The kinds of the tracks of an MP4, as `vide` and `soun`; none if it is no MP4."""
    with path.open("rb") as file:
        return {_kind(file, track) for track in _tracks(file)} - {b""}


def edit(path: Path) -> Edit | None:
    """The edit list of the first video track, if it shows one part of the track.

    A clip cut without encoding anew holds frames from the last key frame before the cut on, and
    its edit list says where to begin. None: no MP4, no list, or one of several parts.
    """
    with path.open("rb") as file:
        for track in _tracks(file):
            if _kind(file, track) == b"vide":
                return _edit(file, track)
    return None


def _edit(file: BinaryIO, track: _Box) -> Edit | None:
    scale, movie_scale = _scale(file, track, b"mdia", b"mdhd"), _movie_scale(file)
    shown = [one for one in _edits(file, track) if one[1] >= 0]  # -1: nothing, before the part
    if not scale or not movie_scale or len(shown) != 1 or shown[0][0] <= 0:
        return None
    length, begin = float(round(shown[0][0] * scale / movie_scale)), float(shown[0][1])
    tables = [_table(file, _find(file, track, *_TABLES, name)) for name in (b"stts", b"ctts")]
    durations, delays = tables[0].reshape(-1, 2), tables[1].reshape(-1, 2)
    if not len(durations):  # in fragments, whose lists FFmpeg does not apply
        return None
    # FFmpeg reads from the last key frame on that is shown no later than the part begins.
    keys = _table(file, _find(file, track, *_TABLES, b"stss")) - 1
    if not len(keys):  # every frame is one
        keys = _at(durations, begin - _delays(delays, np.zeros(1)))
        keys = keys.clip(0, max(0, durations[:, 0].sum() - 1))
    times = _times(durations, keys) + _delays(delays, keys)
    before = np.flatnonzero(times <= begin)
    place = before[-1] if len(before) else 0
    ends = _at(durations, np.array([begin, begin + length]) - _delays(delays, keys[place]), up=True)
    return Edit(
        skip=max(0.0, float(begin - times[place])) / scale,
        length=length / scale,
        frames=int(np.diff(ends.clip(0, durations[:, 0].sum()))[0]),
    )


_TABLES = (b"mdia", b"minf", b"stbl")


def _times(durations: Numbers, samples: Numbers) -> Numbers:
    """When samples, by index, are decoded; `durations` has rows of a count and a duration."""
    firsts = np.concatenate([[0.0], np.cumsum(durations[:, 0])])
    starts = np.concatenate([[0.0], np.cumsum(durations[:, 0] * durations[:, 1])])
    run = np.searchsorted(firsts[:-1], samples, "right").clip(1) - 1
    return np.asarray(starts[run] + (samples - firsts[run]) * durations[run, 1])


def _at(durations: Numbers, times: Numbers, *, up: bool = False) -> Numbers:
    """The samples decoded at these times, or the next after them: `_times` turned round."""
    firsts = np.concatenate([[0.0], np.cumsum(durations[:, 0])])
    starts = np.concatenate([[0.0], np.cumsum(durations[:, 0] * durations[:, 1])])
    run = np.searchsorted(starts[:-1], times, "right").clip(1) - 1
    inside = (times - starts[run]) / durations[run, 1].clip(1)
    return np.asarray(firsts[run] + (np.ceil(inside) if up else np.floor(inside)))


def _delays(delays: Numbers, samples: Numbers) -> Numbers:
    """How much later than decoded samples are shown; rows of a count and a delay."""
    if not len(delays):
        return np.zeros_like(samples)
    run = np.searchsorted(np.cumsum(delays[:, 0]), samples, "right").clip(0, len(delays) - 1)
    # Version 1 has negative ones; nobody delays a frame by half the range.
    return np.asarray((delays[run, 1] + 2.0**31) % 2.0**32 - 2.0**31)


def _edits(file: BinaryIO, track: _Box) -> list[tuple[int, int]]:
    """Length, in the movie's time scale, and where it begins in the track's, of each part."""
    content = _read(file, _find(file, track, b"edts", b"elst"))
    row = ">Qqi" if content[:1] == b"\1" else ">Iii"
    rows = content[8 : 8 + len(content[8:]) // struct.calcsize(row) * struct.calcsize(row)]
    return [(length, begin) for length, begin, _ in struct.iter_unpack(row, rows)]


def _table(file: BinaryIO, box: _Box | None) -> Numbers:
    """The numbers of a sample table; as many as it says, or as there are."""
    content = _read(file, box)
    count = int.from_bytes(content[4:8], "big")
    numbers = np.frombuffer(content[8 : len(content) // 4 * 4], ">u4").astype(np.float64)
    each = 1 if box is not None and box.name == b"stss" else 2
    return numbers[: min(count, len(numbers) // each) * each]


def _scale(file: BinaryIO, box: _Box, *names: bytes) -> int:
    """Ticks a second, of a header box."""
    content = _read(file, _find(file, box, *names))
    place = 20 if content[:1] == b"\1" else 12
    return int.from_bytes(content[place : place + 4], "big")


def _movie_scale(file: BinaryIO) -> int:
    movie = _movie(file)
    return _scale(file, movie, b"mvhd") if movie else 0


def _kind(file: BinaryIO, track: _Box) -> bytes:
    return _read(file, _find(file, track, b"mdia", b"hdlr"))[8:12]


def _tracks(file: BinaryIO) -> Iterator[_Box]:
    if movie := _movie(file):
        yield from (box for box in _boxes(file, movie.start, movie.end) if box.name == b"trak")


def _movie(file: BinaryIO) -> _Box | None:
    return _find(file, _Box(b"", 0, file.seek(0, 2)), b"moov")


def _find(file: BinaryIO, outer: _Box, *names: bytes) -> _Box | None:
    """The box at the end of a path of names."""
    found: _Box | None = outer
    for name in names:
        if found is None:
            return None
        inner = _boxes(file, found.start, found.end)
        found = next((box for box in inner if box.name == name), None)
    return found


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """The boxes that begin between two places; the last may end beyond."""
    end = min(end, file.seek(0, 2))
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        header = file.read(16)
        length, skip = int.from_bytes(header[:4], "big"), 8
        if length == 1:  # a 64-bit length follows
            length, skip = int.from_bytes(header[8:], "big"), 16
        elif length == 0:  # to the end
            length = end - start
        if length < skip:
            return
        yield _Box(header[4:8], start + skip, start + length)
        start += length


def _read(file: BinaryIO, box: _Box | None) -> bytes:
    if box is None:
        return b""
    file.seek(box.start)
    return file.read(max(0, min(box.end - box.start, _MOST_BYTES)))
