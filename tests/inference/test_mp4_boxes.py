"""Edit lists are read from true files; what hostile ones claim harms nothing."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import h264
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.errors import VideoError
from fer.inference.mp4_boxes import Edit, edit, has_whole_index, kinds
from fer.inference.video_file import VideoFile

TICKS = h264.TICKS
PICTURES = h264.samples([100] * 30, reorder=True)


def clip(path: Path, edits: Sequence[tuple[int, int]] = ()) -> Path:
    return h264.write_mp4(path, PICTURES, edits=edits, reorder=1)


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([], None),
        # A picture is 512 ticks, and those out of order make all come one later.
        ([(30 * 512, 512)], Edit(0, 1.2, 30)),
        ([(10 * 512, 6 * 512)], Edit(0.2, 0.4, 10)),
        ([(TICKS, -1), (10 * 512, 6 * 512)], Edit(0.2, 0.4, 10)),
        ([(10 * 512, 6 * 512 + 100)], Edit(0.2 + 100 / TICKS, 0.4, 10)),
        # From the key frame before: 12 of a key frame each.
        ([(10 * 512, 18 * 512)], Edit(0.2, 0.4, 10)),
        ([(99 * 512, 28 * 512)], Edit(0.12, 99 * 512 / TICKS, 3)),
        ([(512, 512), (512, 9 * 512)], None),
        ([(0, 512)], None),
    ],
)
def test_the_part_that_an_edit_list_shows(
    tmp_path: Path, edits: list[tuple[int, int]], expected: Edit | None
) -> None:
    found = edit(clip(tmp_path / "a.mp4", edits))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.skip == pytest.approx(expected.skip, abs=1e-9)
        assert found.length == pytest.approx(expected.length)
        assert found.frames == expected.frames


def test_the_kinds_of_track(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    assert kinds(path) == {b"vide"}
    path.write_bytes(path.read_bytes().replace(b"vide", b"soun"))
    assert kinds(path) == {b"soun"}
    path.write_text("dear diary")
    assert kinds(path) == set()


_names = st.sampled_from(
    [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"elst", b"stts", b"ctts", b"stss",
     b"mdhd", b"mvhd", b"hdlr", b"mdat", b"ftyp"]
)  # fmt: skip
_sizes = st.sampled_from([0, 1, 7, 8, 9, 16, 1 << 20, (1 << 31) - 1, (1 << 32) - 1])
_many = [0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
_rows = st.lists(st.one_of(st.sampled_from(_many), st.integers(0, 9999)), max_size=9).map(
    lambda numbers: struct.pack(f">{len(numbers)}I", *numbers)
)


def _nest(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A box around boxes; its size may be a lie, also in 64 bits."""

    def box(name: bytes, parts: list[bytes], size: int | None, large: int | None) -> bytes:
        body = b"".join(parts)
        if large is not None:
            return struct.pack(">I", 1) + name + struct.pack(">Q", large) + body
        return struct.pack(">I", len(body) + 8 if size is None else size) + name + body

    return st.builds(
        box,
        _names,
        st.lists(children, max_size=4),
        st.one_of(st.none(), st.none(), _sizes),
        st.one_of(st.none(), st.none(), st.sampled_from([0, 15, 16, 1 << 63, (1 << 64) - 1])),
    )


@given(
    damage=st.lists(
        st.tuples(st.integers(0, 10**6), st.one_of(st.integers(0, 255), st.none())), max_size=12
    ),
    cut=st.integers(0, 10**6),
)
def test_a_damaged_index_is_an_error_of_the_project_or_none(
    tmp_path: Path, damage: list[tuple[int, int | None]], cut: int
) -> None:
    path = clip(tmp_path / "a.mp4", [(10 * 512, 6 * 512)])
    data = bytearray(path.read_bytes())
    start = data.index(b"moov") - 4
    for place, value in damage:
        place = start + place % (len(data) - start)
        if value is None:  # a number at its largest
            data[place : place + 4] = b"\xff" * 4
        else:
            data[place] = value
    path.write_bytes(data[: len(data) - cut % (len(data) - start) * (cut % 3 == 0)])
    edit(path)
    kinds(path)
    has_whole_index(path)
    with suppress(VideoError):
        VideoFile(path).close()


@given(boxes=st.lists(st.recursive(_rows, _nest, max_leaves=30), max_size=3))
def test_boxes_that_lie_harm_nothing(tmp_path: Path, boxes: list[bytes]) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\0\0\0\x0cftypisom" + b"".join(boxes))
    edit(path)
    kinds(path)
    has_whole_index(path)
    with pytest.raises(VideoError):
        VideoFile(path)


@pytest.mark.parametrize("runs", [[(0xFFFFFFFF, 0xFFFFFFFF)] * 3, [(0xFFFFFFFF, 0)], [(0, 9)]])
def test_tables_that_promise_billions_of_frames_are_not_written_out(
    tmp_path: Path, runs: list[tuple[int, int]]
) -> None:
    path = clip(tmp_path / "a.mp4", [(0x7FFFFFFF, 0x7FFFFFFF)])
    data = path.read_bytes()
    place = data.index(b"stts") + 4
    table = struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">II", *one) for one in runs)
    path.write_bytes(data[:place] + table + data[place + len(table) :])
    found = edit(path)
    assert found is not None
    assert found.frames >= 0


def test_a_million_boxes_are_not_walked_through(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes((b"\0\0\0\x08free" * (1 << 17)) + clip(tmp_path / "b.mp4").read_bytes())
    assert kinds(path) == set()
