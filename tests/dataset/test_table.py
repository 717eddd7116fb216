"""Both tables come back as written, have the same bytes each time, and are checked when read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from facefiles import noise
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fer.dataset.frames import COLUMNS
from fer.dataset.table import FaceTable, SourceImage, read_source, write_source
from fer.errors import TableError
from fer.expressions import EXPRESSIONS


def source() -> list[SourceImage]:
    return [
        SourceImage("train/sad/1.png", "train", "sad", noise(1)),
        SourceImage("train/sad/2.png", "train", "sad", None, problem="unreadable: text"),
        SourceImage("odd/Sad!/3.png", "odd", "sad!", noise(3, 20), mode="RGB"),
    ]


def faces(count: int = 6, manifest: dict[str, Any] | None = None) -> FaceTable:
    pixels = np.stack([noise(seed) for seed in range(count)])
    return FaceTable(
        name=np.array([f"train/{number}.png" for number in range(count)]),
        pixels=pixels,
        expression=np.arange(count, dtype=np.int8) % 7,
        split=np.array(["train", "validation", "test"] * count)[:count],
        sha256=np.array([hashlib.sha256(one.tobytes()).hexdigest() for one in pixels]),
        cleaning=np.array(["keep", "keep", "keep", "twin", "keep", "keep"] * count)[:count],
        near_twin=np.arange(count) % 2 == 0,
        manifest={"a": [1]} if manifest is None else manifest,
    )


def test_a_source_table_holds_what_was_given_sorted_by_name(tmp_path: Path) -> None:
    assert write_source(tmp_path / "images.parquet", source()) == 3
    rows = read_source(tmp_path / "images.parquet").to_pylist()
    assert [row["name"] for row in rows] == ["odd/Sad!/3.png", "train/sad/1.png", "train/sad/2.png"]
    odd, good, bad = rows
    assert (odd["width"], odd["height"], odd["mode"], odd["split"]) == (20, 20, "RGB", "odd")
    assert good["pixels"] == noise(1).tobytes()
    assert good["sha256"] == hashlib.sha256(noise(1).tobytes()).hexdigest()
    assert bad["problem"] == "unreadable: text"
    assert {bad[name] for name in ("width", "height", "mode", "pixels", "sha256")} == {None}


@pytest.mark.parametrize("rows", [source(), source()[:1], source()[1:2]])
def test_columns_have_their_types_whatever_they_hold(
    tmp_path: Path, rows: list[SourceImage]
) -> None:
    write_source(tmp_path / "images.parquet", rows)
    schema = read_source(tmp_path / "images.parquet").schema
    assert tuple(f"{field.name}: {field.type}" for field in schema) == COLUMNS


@given(order=st.permutations(range(3)))
def test_equal_content_has_equal_bytes(tmp_path: Path, order: list[int]) -> None:
    write_source(tmp_path / "one", source())
    write_source(tmp_path / "two", [source()[index] for index in order])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    faces().write(tmp_path / "three")
    faces().write(tmp_path / "four")
    assert (tmp_path / "three").read_bytes() == (tmp_path / "four").read_bytes()


def test_a_source_without_images_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no image"):
        write_source(tmp_path / "images.parquet", [])
    assert list(tmp_path.iterdir()) == []


def assert_same(one: FaceTable, other: FaceTable) -> None:
    for column in ("name", "pixels", "expression", "split", "sha256", "cleaning", "near_twin"):
        first, second = getattr(one, column), getattr(other, column)
        assert first.dtype.kind == second.dtype.kind
        assert np.array_equal(first, second), column
    assert one.manifest == other.manifest


@given(
    pixels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(48), st.just(48))),
    data=st.data(),
)
def test_a_prepared_table_comes_back(tmp_path: Path, pixels: Any, data: st.DataObject) -> None:
    count = len(pixels)
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)

    def column(strategy: st.SearchStrategy[Any]) -> Any:
        return data.draw(st.lists(strategy, min_size=count, max_size=count))

    table = FaceTable(
        name=np.array(column(text)),
        pixels=pixels,
        expression=np.array(column(st.integers(0, 6)), np.int8),
        split=np.array(column(st.sampled_from(["train", "validation", "test"]))),
        sha256=np.array(column(text)),
        cleaning=np.array(column(st.sampled_from(["keep", "blank", "twin"]))),
        near_twin=np.array(column(st.booleans())),
        manifest=data.draw(st.dictionaries(text, st.integers() | text)),
    )
    table.write(tmp_path / "faces.parquet")
    assert_same(FaceTable.read(tmp_path / "faces.parquet"), table)


def test_an_empty_prepared_table_comes_back(tmp_path: Path) -> None:
    faces().rows(np.zeros(6, bool)).write(tmp_path / "faces.parquet")
    assert len(FaceTable.read(tmp_path / "faces.parquet")) == 0


def test_parts_are_splits_and_train_only_what_was_kept() -> None:
    table = faces()
    assert len(table) == 6
    assert table.part("train").name.tolist() == ["train/0.png"]  # train/3.png is a twin
    assert table.part("validation").name.tolist() == ["train/1.png", "train/4.png"]
    assert table.part("test").name.tolist() == ["train/2.png", "train/5.png"]
    assert table.part("test").manifest == {"a": [1]}
    assert table.rows(np.array([5, 0])).name.tolist() == ["train/5.png", "train/0.png"]


@pytest.mark.parametrize("read", [read_source, FaceTable.read])
def test_an_absent_table_names_the_stage(tmp_path: Path, read: Any) -> None:
    with pytest.raises(TableError, match=r"does not exist.*dvc repro"):
        read(tmp_path / "absent.parquet")


@pytest.mark.parametrize("read", [read_source, FaceTable.read])
def test_the_other_kind_of_table_is_refused(tmp_path: Path, read: Any) -> None:
    write_source(tmp_path / "source", source())
    faces().write(tmp_path / "faces")
    with pytest.raises(TableError, match="has schema fer-"):
        read(tmp_path / ("faces" if read is read_source else "source"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign")
    with pytest.raises(TableError, match="has schema none"):
        read(tmp_path / "foreign")


@given(cut=st.floats(0, 0.9999))
def test_a_truncated_table_is_refused(tmp_path: Path, cut: float) -> None:
    faces().write(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(cut * len(data))])
    with pytest.raises(TableError, match="dvc repro") as caught:
        FaceTable.read(tmp_path / "cut")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda one: b"PAR1" + one + b"PAR1"))
def test_any_other_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table").write_bytes(content)
    for read in (read_source, FaceTable.read):
        with pytest.raises(TableError):
            read(tmp_path / "table")


def rewritten(path: Path, change: Any) -> Path:
    """The table with another content, its metadata as it was unless that is changed."""
    table = pq.read_table(path)
    changed = change(table)
    if changed.schema.metadata is None:
        changed = changed.replace_schema_metadata(table.schema.metadata)
    pq.write_table(changed, path)
    return path


def with_metadata(table: pa.Table, **changes: str | None) -> pa.Table:
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    merged = {**metadata, **{f"fer.{key}": value for key, value in changes.items()}}
    return table.replace_schema_metadata({k: v for k, v in merged.items() if v is not None})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.drop_columns(["split"]), "lacks columns"),
        (lambda t: t.append_column("more", t["name"]), "lacks columns"),
        (lambda t: t.set_column(2, "expression", t["expression"].cast("int64")), "lacks columns"),
        (lambda t: t.set_column(0, "name", pa.array([None] * 6, "string")), "lacks columns or val"),
        (lambda t: t.set_column(2, "expression", pa.array([7] * 6, "int8")), "expression that is"),
        (lambda t: t.set_column(2, "expression", pa.array([-1] * 6, "int8")), "expression that is"),
        (lambda t: with_metadata(t, manifest="{"), "does not say its fer.manifest"),
        (lambda t: with_metadata(t, manifest=None), "does not say its fer.manifest"),
        (lambda t: with_metadata(t, classes=None), "does not say its fer.classes"),
        (lambda t: with_metadata(t, classes="nonsense"), "does not say its fer.classes"),
        (lambda t: with_metadata(t, classes=json.dumps(EXPRESSIONS[::-1])), "made for the classes"),
        (lambda t: with_metadata(t, schema="fer-faces/2"), "has schema fer-faces/2"),
    ],
)
def test_a_table_that_is_not_what_it_should_be_is_refused(
    tmp_path: Path, change: Any, match: str
) -> None:
    faces().write(tmp_path / "faces.parquet")
    with pytest.raises(TableError, match=match):
        FaceTable.read(rewritten(tmp_path / "faces.parquet", change))


def test_a_failed_write_leaves_the_old_table(tmp_path: Path) -> None:
    faces().write(tmp_path / "faces.parquet")
    before = (tmp_path / "faces.parquet").read_bytes()
    with pytest.raises(TypeError):
        replace(faces(), manifest={"a": object()}).write(tmp_path / "faces.parquet")
    assert (tmp_path / "faces.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["faces.parquet"]
