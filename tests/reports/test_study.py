"""Results files, segments and people, and what is said where they make no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from analyses import showing, write

from fer.errors import FerError, TableError, UsageError
from fer.inference.results import VERSION_KEY
from fer.params import TimelineParams
from fer.reports.analysed import Videos, find_results, read_analysed
from fer.reports.study import Cast, overlapping, read_people, read_segments
from fer.reports.sums import Segment

HAPPY = (range(10), showing(("happy", 10)))


def made(path: Path, **more: object) -> Path:
    return write(path, [number / 10 for number in range(10)], {0: HAPPY, 4: HAPPY}, **more)  # type: ignore[arg-type]


@pytest.fixture
def videos(tmp_path: Path) -> Videos:
    """Two videos, `one` and `two`."""
    for name in ("one", "two"):
        made(tmp_path / "results" / f"{name}.parquet")
    return find_results([tmp_path / "results"])


def test_a_folder_is_its_files_and_each_file_counts_once(tmp_path: Path) -> None:
    path = made(tmp_path / "a.parquet")
    made(tmp_path / "b.parquet", uri="file:///in/my%20film.mov")
    found = find_results([path, tmp_path, path])
    assert [(one.name, one.source) for one in found.files] == [
        ("a", "a.mp4"),
        ("b", "my film.mov"),
    ]
    assert found.files[0].model == "test-model, version 3"
    assert found.notes == ()
    unregistered = made(tmp_path / "c.parquet", model_version=None)
    assert find_results([unregistered]).files[0].model == f"test-model, digest {'m' * 12}"


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [made(tmp_path / where / "s.parquet") for where in ("x/p1", "x/p2", "y/p2")]
    names = [one.name for one in find_results(paths).files]
    assert names == ["p1/s", "x/p2/s", "y/p2/s"]


def test_what_is_in_a_folder_and_no_result_is_said(tmp_path: Path) -> None:
    made(tmp_path / "a.parquet")
    made(tmp_path / "pictures.parquet", media="image")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    (tmp_path / "b.parquet.parts").mkdir()
    found = find_results([tmp_path])
    assert [one.name for one in found.files] == ["a"]
    words = "\n".join(found.notes)
    assert "other.parquet is no result" in words
    assert "pictures.parquet is no result" in words
    assert "The analysis of b in" in words


def test_results_that_are_none(tmp_path: Path) -> None:
    table = pq.read_table(made(tmp_path / "a.parquet"))
    new = (table.schema.metadata or {}) | {VERSION_KEY: b"7"}
    pq.write_table(table.replace_schema_metadata(new), tmp_path / "new.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:900])
    (tmp_path / "film.mp4").write_bytes(b"no table")
    (tmp_path / "folder").mkdir()
    made(tmp_path / "pictures.parquet", media="image")
    refused: list[tuple[list[Path], type[FerError], str]] = [
        ([], UsageError, "No results are named"),
        ([tmp_path / "absent"], UsageError, r"There is no .*absent"),
        ([tmp_path / "other.parquet"], UsageError, r"other\.parquet is no result of `fer video`"),
        ([tmp_path / "pictures.parquet"], UsageError, "is no result of `fer video`"),
        ([tmp_path / "empty.parquet"], UsageError, "is no result of `fer video`"),
        ([tmp_path / "film.mp4"], UsageError, r"film\.mp4 is no result"),
        ([tmp_path / "folder"], UsageError, "holds no results of `fer video`"),
        ([tmp_path / "cut.parquet"], TableError, r"cut\.parquet cannot be read as Parquet"),
        ([tmp_path / "new.parquet"], TableError, "schema 7, this version reads up to 2"),
    ]
    for paths, kind, words in refused:
        with pytest.raises(kind, match=words):
            find_results(paths)


def test_counts_marks_and_warnings_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        [number / 10 for number in range(10)],
        {3: (range(2, 6), showing(("sad", 4))), 5: (range(4, 8), showing(("fear", 4)))},
        corrupt=[0],
        marked={(2, 3): ["small", "dark"], (4, 5): ["small"]},
        group=4,
    )
    document = {
        "frames": 10,
        "model_digest": "m" * 64,
        "warnings": ["cut off", "1 frames could not be decoded; x"],
    }
    path.with_suffix(".json").write_text(json.dumps(document))
    (file,) = find_results([path]).files
    analysed = read_analysed(file, TimelineParams())
    assert (analysed.counts.frames, analysed.counts.faces, analysed.counts.tracks) == (10, 8, 2)
    assert (analysed.counts.without_face, analysed.counts.corrupt) == (3, 1)
    assert analysed.frames.indices.tolist() == list(range(10))
    assert analysed.marked == {3: 1, 5: 1}
    assert analysed.marks == {"small": 2, "dark": 1}
    assert [one.track for one in analysed.tracks] == [3, 5]
    assert analysed.warnings == ("cut off",)
    for other in ({"frames": 9}, {"model_digest": "o"}, {"warnings": 7}):
        path.with_suffix(".json").write_text(json.dumps(document | other))
        assert read_analysed(file, TimelineParams()).warnings == ()


def csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_segments_are_read(tmp_path: Path, videos: Videos) -> None:
    path = csv(
        tmp_path / "s.csv",
        "name,start,end,video\nB,0:02,1:30,\nA,0.5,0:00:03.5,one\n\nB,100,110,two.parquet\n"
        '"B",80,1:40,two.mp4\n',
    )
    found = read_segments(path, videos)
    assert found["one"] == (Segment("A", ((0.5, 3.5),)), Segment("B", ((2.0, 90.0),)))
    # 2 to 90, 100 to 110, and 80 to 100, which joins them.
    assert found["two"] == (Segment("B", ((2.0, 110.0),)),)
    assert overlapping(found["one"]) == [("A", "B")]
    assert overlapping(found["two"]) == []
    assert overlapping([Segment("a", ((0, 1), (5, 6))), Segment("b", ((1, 5),))]) == []


def test_a_spreadsheets_ways_are_read(tmp_path: Path, videos: Videos) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(
        "\ufeff Name ;START;End;notes\r\nÜberblick; 0,5 ;1:30,5;x, y\r\n;;;\r\n".encode()
    )
    assert read_segments(path, videos)["one"] == (Segment("Überblick", ((0.5, 90.5),)),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no column name; there are: none"),
        ("name,start\na,1\n", "has no column end; there are: name, start"),
        ("name,start,end\n", "has no segment"),
        ("name,start,end,vidoe\na,1,2,one\n", "has a column 'vidoe'; call it video"),
        ("name,start,end,end\na,1,2,3\n", "two columns end"),
        ("name,start,end\na,2,1\n", "line 2: the segment 'a' ends at 1, which is not after"),
        ("name,start,end\na,2,2\n", "ends at 2, which is not after its start, 2"),
        ("name,start,end\na,1,2\nb,1:99,2\n", "line 3: start is '1:99'. Write seconds"),
        ("name,start,end\na,,2\n", "line 2: start is empty"),
        ("name,start,end\n,1,2\n", "line 2: name is empty"),
        ("name,start,end\n(all),1,2\n", "is the name of everything"),
        ("name,start,end,video\na,1,2,three\n", "no video 'three' among the results"),
        ("name,start,end\na, b,1,2\n", "line 2 has 4 cells, the first line 3 columns"),
        ('name,start,end\n"a,1,2\n', "Mend the quotes"),
    ],
)
def test_segments_that_make_no_sense(tmp_path: Path, videos: Videos, text: str, words: str) -> None:
    path = csv(tmp_path / "s.csv", text)
    with pytest.raises(UsageError) as caught:
        read_segments(path, videos)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path, videos: Videos) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_segments(tmp_path / "absent.csv", videos)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_segments(tmp_path, videos)
    for data in (b"PK\x03\x04\x00\x00", "name,start,end\nÜ,1,2\n".encode("latin-1")):
        (tmp_path / "s.csv").write_bytes(data)
        with pytest.raises(UsageError, match="is no UTF-8 text"):
            read_segments(tmp_path / "s.csv", videos)


def test_people_are_read(tmp_path: Path, videos: Videos) -> None:
    path = csv(tmp_path / "p.csv", "video,track,person\none,0,Anna\none,4, Anna \ntwo,4,\ntwo,4,\n")
    cast = read_people(path, videos)
    assert cast.people("one", [0, 4]) == {"Anna": [0, 4]}
    assert cast.people("two", [0, 4]) == {"two #0": [0]}
    assert (cast.left_out("one"), cast.left_out("two")) == ([], [4])
    assert Cast().people("one", [0, 4]) == {"one #0": [0], "one #4": [4]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("video,track\none,0\n", "has no column person"),
        ("video,track,person\n,0,A\n", "line 2: video is empty"),
        ("video,track,person\none,,A\n", "line 2: track is empty"),
        ("video,track,person\none,-1,A\n", "track is '-1'"),
        ("video,track,person\none,first,A\n", "track is 'first'"),
        ("video,track,person\nthree,0,A\n", "no video 'three'"),
        ("video,track,person\none,0,A\none,0,B\n", "is 'B' here and 'A' above"),
        ("video,track,person\none,0,A\none,0,\n", "is '' here and 'A' above"),
        ("video,track,person\none,0,A\none,7,B\n", "line 3: one has no track 7"),
        ("video,track,person\none,0,one #4\n", "called 'one #4', as the track 4"),
    ],
)
def test_people_that_make_no_sense(tmp_path: Path, videos: Videos, text: str, words: str) -> None:
    path = csv(tmp_path / "p.csv", text)
    with pytest.raises(UsageError) as caught:
        read_people(path, videos).people("one", [0, 4])
    assert words in str(caught.value)


def test_a_name_that_may_be_several_videos(tmp_path: Path) -> None:
    found = find_results([made(tmp_path / where / "s.parquet") for where in ("p1", "p2")])
    assert found.named("p2/s", "x").path.parent.name == "p2"
    with pytest.raises(UsageError, match=r"'s' may be several videos\. Write one of: p1/s, p2/s"):
        found.named("s", "x")


def test_a_video_whose_frames_have_no_times(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [0.0] * 10, {0: HAPPY})
    (file,) = find_results([path]).files
    with pytest.raises(UsageError, match=r"have the same time: a\.mp4 has none of its own"):
        read_analysed(file, TimelineParams())
