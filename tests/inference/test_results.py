"""The results schema: what it states, what it keeps, what it refuses."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fer.errors import TableError
from fer.expressions import EXPRESSIONS
from fer.inference.results import (
    CLASSES_KEY,
    COLUMNS,
    QUARANTINE_COLUMNS,
    VERSION_KEY,
    markdown,
    quarantine_schema,
    read_part,
    read_parts,
    results_schema,
    to_csv,
    to_parquet,
    to_table,
)


def row(**more: Any) -> dict[str, Any]:
    base = {
        "uri": "file:///a.jpg",
        "etag": "1-2",
        "media": "image",
        "width": 640,
        "height": 480,
        "frame": 0,
        "detector": "dlib-hog",
        "faces_digest": "f" * 16,
        "model_name": "m",
        "model_digest": "d" * 64,
        "run_id": "r",
        "analysed_at": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    }
    return base | more


def test_columns_and_schema_are_one() -> None:
    schema = results_schema()
    assert schema.names == [column.name for column in COLUMNS]
    assert [f"p_{name}" for name in EXPRESSIONS] == [n for n in schema.names if n.startswith("p_")]
    for column in COLUMNS:
        field = schema.field(column.name)
        assert field.nullable == column.null
        assert field.metadata[b"meaning"].decode() == column.meaning
    assert schema.metadata[CLASSES_KEY].decode().split(",") == list(EXPRESSIONS)
    assert quarantine_schema().names == [column.name for column in QUARANTINE_COLUMNS]


def test_the_documentation_names_every_column() -> None:
    text = markdown()
    for column in COLUMNS:
        assert f"| `{column.name}` | {column.type} |" in text
    assert text.count("\n") == len(COLUMNS) + 2


def test_rows_survive_parquet() -> None:
    rows = [
        row(face=0, box_left=-1.5, quality_marks=["small", "dark"], expression="fear", p_fear=0.5),
        row(),
    ]
    table = read_part(to_parquet(to_table(rows, results_schema())))
    first, second = table.to_pylist()
    assert first["quality_marks"] == ["small", "dark"]
    assert first["analysed_at"] == rows[0]["analysed_at"]
    assert (first["box_left"], first["p_fear"], first["expression"]) == (-1.5, 0.5, "fear")
    assert second["face"] is None
    assert table.schema.metadata[VERSION_KEY] == b"2"


def test_rows_survive_csv() -> None:
    rows = [row(uri='file:///a,"b".jpg', face=0, quality_marks=["small", "dark"]), row()]
    text = to_csv(to_table(rows, results_schema())).decode()
    first, second = csv.DictReader(io.StringIO(text))
    assert list(first) == [column.name for column in COLUMNS]
    assert first["uri"] == 'file:///a,"b".jpg'
    assert first["quality_marks"] == "small;dark"
    assert (second["face"], second["width"]) == ("", "640")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"mood": "sour"}, "no column mood"),
        ({"uri": None}, "no uri"),
        ({"width": "wide"}, "does not fit"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        to_table([row(**bad)], results_schema())


def test_parts_are_read_in_order(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no results"):
        read_parts(tmp_path)
    (tmp_path / "parts").mkdir()
    for name, uri in [("part-1", "b"), ("part-2", "a")]:
        table = to_table([row(uri=uri, face=1), row(uri=uri, face=0)], results_schema())
        (tmp_path / "parts" / f"{name}.parquet").write_bytes(to_parquet(table))
    assert [(one["uri"], one["face"]) for one in read_parts(tmp_path).to_pylist()] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
    ]


def test_a_file_of_version_1_is_read() -> None:
    table = to_table([row(), row(uri="b")], results_schema())
    older = table.drop_columns("classified")
    older = older.replace_schema_metadata({**table.schema.metadata, VERSION_KEY: b"1"})
    assert read_part(to_parquet(older)).equals(table)
    # What it lacks may be lacking because it is older, and for no other reason.
    for bad in (
        older.drop_columns("confidence"),
        older.replace_schema_metadata(table.schema.metadata),
    ):
        with pytest.raises(TableError, match="has results schema"):
            read_part(to_parquet(bad))


def test_another_schema_and_damage_are_refused() -> None:
    data = to_parquet(to_table([row()], results_schema()))
    with pytest.raises(TableError, match="no Parquet file"):
        read_part(data[:-20], "x")
    table = to_table([row()], results_schema())
    newer = table.replace_schema_metadata({**table.schema.metadata, VERSION_KEY: b"3"})
    with pytest.raises(TableError, match="schema 3"):
        read_part(to_parquet(newer))
    strange = table.replace_schema_metadata({**table.schema.metadata, VERSION_KEY: b"\xff"})
    with pytest.raises(TableError, match="has results schema"):
        read_part(to_parquet(strange))
    with pytest.raises(TableError, match="schema none"):
        read_part(to_parquet(pa.table({"a": [1]})))
