"""The two tables of the dataset: as the source has it, and as training uses it.

Both are Parquet files whose metadata states the schema and the class names, and both have the
same bytes whenever their content is the same.

Source table (`images.parquet`), one row per image of the source, readable or not:

| column | type | meaning |
| --- | --- | --- |
| name | string | path or row name in the source; unique |
| split | string | train, validation, test, or what else the source says |
| label | string | the source's own class name |
| width, height | int32 | pixels; null where unreadable |
| mode | string | L for grey, RGB and so on; null where unreadable |
| pixels | binary | grey levels, row-major, width x height bytes; null where unreadable |
| sha256 | string | of `pixels`; null where unreadable |
| problem | string | why the image is unreadable, else null |

Prepared table (`faces.parquet`), one row per image of 48 x 48 pixels:

| column | type | meaning |
| --- | --- | --- |
| name | string | as in the source |
| pixels | binary(2304) | grey levels, row-major |
| expression | int8 | index into the classes in the metadata |
| split | string | train, validation or test |
| sha256 | string | of the 2,304 pixels: the image's identity |
| cleaning | string | keep; or why it left training: blank, twin |
| near_twin | bool | a validation or test image that is (nearly) a training image |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from fer.errors import TableError
from fer.expressions import EXPRESSIONS
from fer.files import atomic_path

if TYPE_CHECKING:
    import pyarrow

SIDE: Final = 48
"""Width and height of a FER2013 image in pixels."""

SPLITS: Final = ("train", "validation", "test")

_SOURCE_SCHEMA: Final = "fer-source/1"
_FACES_SCHEMA: Final = "fer-faces/1"
_REMAKE: Final = "Delete it and run dvc repro."


@dataclass(frozen=True)
class SourceImage:
    """One image of a source: `pixels` is uint8 (height, width) grey, or None if unreadable."""

    name: str
    split: str
    label: str
    pixels: NDArray[np.uint8] | None
    mode: str | None = "L"
    problem: str | None = None


def write_source(path: Path, images: Iterable[SourceImage]) -> int:
    """Write a source table, sorted by name, and return its number of rows.

    Raises:
        TableError: there is no image at all.
    """
    import pyarrow as pa

    rows = sorted(images, key=lambda image: image.name)
    if not rows:
        raise TableError("The source holds no image. Check that it is FER2013 and not empty.")
    contents = [None if row.pixels is None else row.pixels.tobytes() for row in rows]
    table = pa.table(
        {
            "name": pa.array([row.name for row in rows], pa.string()),
            "split": pa.array([row.split for row in rows], pa.string()),
            "label": pa.array([row.label for row in rows], pa.string()),
            "width": pa.array(
                [None if row.pixels is None else row.pixels.shape[1] for row in rows], pa.int32()
            ),
            "height": pa.array(
                [None if row.pixels is None else row.pixels.shape[0] for row in rows], pa.int32()
            ),
            "mode": pa.array(
                [None if row.pixels is None else row.mode for row in rows], pa.string()
            ),
            "pixels": pa.array(contents, pa.binary()),
            "sha256": pa.array(
                [None if one is None else hashlib.sha256(one).hexdigest() for one in contents],
                pa.string(),
            ),
            "problem": pa.array([row.problem for row in rows], pa.string()),
        }
    )
    _write(path, table, _SOURCE_SCHEMA, {})
    return len(rows)


def read_source(path: Path) -> pyarrow.Table:
    """Read a source table.

    Its columns are the data gate's to judge.

    Raises:
        TableError: absent, damaged, or of another schema.
    """
    return _read(path, _SOURCE_SCHEMA)


@dataclass(frozen=True)
class FaceTable:
    """The prepared table in memory; all arrays have one entry per image."""

    name: NDArray[np.str_]
    pixels: NDArray[np.uint8]
    expression: NDArray[np.int8]
    split: NDArray[np.str_]
    sha256: NDArray[np.str_]
    cleaning: NDArray[np.str_]
    near_twin: NDArray[np.bool_]
    manifest: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.expression)

    def rows(self, chosen: NDArray[Any]) -> Self:
        """The rows that a boolean mask or an index array chooses."""
        return type(self)(
            name=self.name[chosen],
            pixels=self.pixels[chosen],
            expression=self.expression[chosen],
            split=self.split[chosen],
            sha256=self.sha256[chosen],
            cleaning=self.cleaning[chosen],
            near_twin=self.near_twin[chosen],
            manifest=self.manifest,
        )

    def part(self, split: str) -> Self:
        """The rows of one split; of train only those that cleaning kept."""
        chosen = self.split == split
        if split == "train":
            chosen &= self.cleaning == "keep"
        return self.rows(chosen)

    def write(self, path: Path) -> None:
        """Write the table; `manifest` travels in its metadata."""
        import pyarrow as pa

        table = pa.table(
            {
                "name": pa.array(self.name.tolist(), pa.string()),
                "pixels": pa.FixedSizeBinaryArray.from_buffers(
                    pa.binary(SIDE * SIDE),
                    len(self),
                    [None, pa.py_buffer(np.ascontiguousarray(self.pixels).tobytes())],
                ),
                "expression": pa.array(self.expression.astype(np.int8)),
                "split": pa.array(self.split.tolist(), pa.string()),
                "sha256": pa.array(self.sha256.tolist(), pa.string()),
                "cleaning": pa.array(self.cleaning.tolist(), pa.string()),
                "near_twin": pa.array(self.near_twin.astype(bool)),
            }
        )
        _write(path, table, _FACES_SCHEMA, self.manifest)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a prepared table.

        Raises:
            TableError: absent, damaged, or of another schema.
        """
        table = _read(path, _FACES_SCHEMA)
        if table.schema.remove_metadata() != _faces_columns() or any(
            column.null_count for column in table.columns
        ):
            raise TableError(f"{path} lacks columns or values of {_FACES_SCHEMA}. {_REMAKE}")
        column = {name: table[name].combine_chunks() for name in table.column_names}
        pixels = np.frombuffer(b"".join(column["pixels"].to_pylist()), np.uint8)
        if not np.isin(column["expression"].to_numpy(), range(len(EXPRESSIONS))).all():
            raise TableError(f"{path} holds an expression that is none. {_REMAKE}")
        return cls(
            name=_strings(column["name"].to_pylist()),
            pixels=pixels.reshape(-1, SIDE, SIDE),
            expression=column["expression"].to_numpy(),
            split=_strings(column["split"].to_pylist()),
            sha256=_strings(column["sha256"].to_pylist()),
            cleaning=_strings(column["cleaning"].to_pylist()),
            near_twin=column["near_twin"].to_numpy(zero_copy_only=False),
            manifest=_json(path, table, b"fer.manifest"),
        )


def _faces_columns() -> pyarrow.Schema:
    import pyarrow as pa

    return pa.schema(
        {
            "name": pa.string(),
            "pixels": pa.binary(SIDE * SIDE),
            "expression": pa.int8(),
            "split": pa.string(),
            "sha256": pa.string(),
            "cleaning": pa.string(),
            "near_twin": pa.bool_(),
        }
    )


def _strings(values: Sequence[str]) -> NDArray[np.str_]:
    return np.asarray(values, dtype=np.str_)


def _write(path: Path, table: pyarrow.Table, schema: str, manifest: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    metadata = {
        "fer.schema": schema,
        "fer.classes": json.dumps(EXPRESSIONS),
        "fer.manifest": json.dumps(manifest, sort_keys=True),
    }
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def _read(path: Path, schema: str) -> pyarrow.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise TableError(
            f"{path} does not exist. Run the stage that makes it: dvc repro."
        ) from None
    except (OSError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        raise TableError(f"{path} is no readable table ({text}). {_REMAKE}") from None
    found = (table.schema.metadata or {}).get(b"fer.schema", b"none").decode(errors="replace")
    if found != schema:
        raise TableError(f"{path} has schema {found}; this version reads {schema}. Run dvc repro.")
    classes = _json(path, table, b"fer.classes")
    if classes != list(EXPRESSIONS):
        raise TableError(f"{path} was made for the classes {classes}, not {list(EXPRESSIONS)}.")
    return table


def _json(path: Path, table: pyarrow.Table, key: bytes) -> Any:
    """What the table's metadata holds under `key`."""
    try:
        return json.loads(table.schema.metadata[key])
    except (KeyError, ValueError):
        raise TableError(f"{path} does not say its {key.decode()}. {_REMAKE}") from None
