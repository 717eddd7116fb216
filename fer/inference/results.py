"""The results schema: one row per face, and one row with null face where a picture has none.

The same columns serve video: there a row is a face of a frame. `COLUMNS` is the documentation too;
`markdown()` prints it as a table. Version 2 added `classified`; files of version 1 are read with
null in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer.errors import TableError
from fer.expressions import EXPRESSIONS

if TYPE_CHECKING:
    import pyarrow as pa

    from fer.faces.detector import Detection
    from fer.faces.quality import Quality
    from fer.inference.recognizer import Prediction

SCHEMA_VERSION: Final = 2
_SINCE: Final = {"classified": 2}  # columns that older files lack
VERSION_KEY: Final = b"fer.results.version"
CLASSES_KEY: Final = b"fer.classes"
_LIST_SEPARATOR = ";"


@dataclass(frozen=True)
class Column:
    """One column: Arrow type, unit, meaning, and whether it may be null."""

    name: str
    type: str
    unit: str
    meaning: str
    null: bool = True


COLUMNS: Final[tuple[Column, ...]] = (
    Column("uri", "string", "", "Where the picture or video is: file:// or s3://.", null=False),
    Column(
        "etag",
        "string",
        "",
        "Which content it had: an S3 object's ETag, a file's size and time of change (hex).",
        null=False,
    ),
    Column("media", "string", "", "image or video.", null=False),
    Column("width", "int32", "px", "Width as shown (EXIF orientation applied).", null=False),
    Column("height", "int32", "px", "Height as shown.", null=False),
    Column("frame", "int64", "", "Index of the frame from 0; 0 for a picture.", null=False),
    Column("timestamp", "float64", "s", "Time of the frame in the video; null for a picture."),
    Column("face", "int32", "", "Index of the face in the frame, best score first; null: no face."),
    Column("track", "int64", "", "Same number, same person within one video; null for a picture."),
    Column("box_left", "float32", "px", "Left edge of the face box, from the picture's left."),
    Column("box_top", "float32", "px", "Top edge, from the picture's top."),
    Column("box_right", "float32", "px", "Right edge, exclusive; may lie outside the picture."),
    Column("box_bottom", "float32", "px", "Bottom edge, exclusive; may lie outside the picture."),
    Column(
        "detection_score",
        "float32",
        "",
        "The detector's score; compare within one detector. Null in a video where the box was "
        "carried from an earlier frame.",
    ),
    Column("quality_size", "float32", "px", "Longer side of the box in the original picture."),
    Column(
        "quality_sharpness",
        "float32",
        "grey levels squared",
        "Variance of the Laplacian of the 48 px crop.",
    ),
    Column("quality_brightness", "float32", "grey level", "Mean of the crop, 0 to 255."),
    Column(
        "quality_pose",
        "float32",
        "degrees",
        "How far the head is turned and leans, by dlib's five landmarks; null without their file.",
    ),
    Column(
        "quality_marks",
        "list<string>",
        "",
        "small, blurred, dark, bright, turned: where the face is unlike FER2013's; corrupt, with "
        "null face: a video frame that could not be decoded (CSV: joined by ;).",
    ),
    *(
        Column(f"p_{name}", "float32", "probability", f"Probability of {name}.")
        for name in EXPRESSIONS
    ),
    Column("expression", "string", "", "The most probable expression."),
    Column("confidence", "float32", "probability", "Its probability."),
    Column(
        "classified",
        "bool",
        "",
        "In a video: whether the model saw this very face; false where the probabilities lie "
        "between those of a frame before and one after. Null for a picture.",
    ),
    Column("detector", "string", "", "Which detector looked.", null=False),
    Column(
        "faces_digest",
        "string",
        "",
        "Identifies the `faces` parameters (detection and crop), and whether poses were told.",
        null=False,
    ),
    Column("model_name", "string", "", "Name of the model.", null=False),
    Column("model_version", "int32", "", "Its version in the registry; null if not registered."),
    Column("model_digest", "string", "", "sha256 that identifies the model's bytes.", null=False),
    Column("run_id", "string", "", "Identifies the run that wrote the row.", null=False),
    Column("analysed_at", "timestamp[ms, tz=UTC]", "", "When the row was made.", null=False),
)

QUARANTINE_COLUMNS: Final[tuple[Column, ...]] = (
    Column("uri", "string", "", "Where the file is.", null=False),
    Column("etag", "string", "", "Which content it had, as in the results.", null=False),
    Column("reason", "string", "", "Why it could not be analysed.", null=False),
    Column("faces_digest", "string", "", "As in the results.", null=False),
    Column("model_digest", "string", "", "As in the results.", null=False),
    Column("run_id", "string", "", "As in the results.", null=False),
    Column("analysed_at", "timestamp[ms, tz=UTC]", "", "When it was tried.", null=False),
)


def results_schema() -> pa.Schema:
    """The Arrow schema of result rows; version and class names are in its metadata."""
    return _schema(COLUMNS)


def quarantine_schema() -> pa.Schema:
    """The Arrow schema of pictures that could not be analysed."""
    return _schema(QUARANTINE_COLUMNS)


def face_columns(
    index: int, detection: Detection, quality: Quality, prediction: Prediction
) -> dict[str, Any]:
    """What a row says of a face itself; the rest is of the picture, the model and the run.

    Args:
        index: of the face in its picture or frame.
        detection: where it is.
        quality: what the crop is worth.
        prediction: what it shows.
    """
    return {
        "face": index,
        "box_left": detection.left,
        "box_top": detection.top,
        "box_right": detection.right,
        "box_bottom": detection.bottom,
        "detection_score": detection.score,
        "quality_size": quality.size,
        "quality_sharpness": quality.sharpness,
        "quality_brightness": quality.brightness,
        "quality_pose": quality.pose,
        "quality_marks": list(quality.marks),
        **{f"p_{name}": value for name, value in prediction.probabilities.items()},
        "expression": prediction.expression,
        "confidence": prediction.confidence,
    }


def to_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of `schema`; a key that is absent is null.

    Raises:
        TableError: an unknown key, a value of the wrong type, or null where none may be.
    """
    import pyarrow as pa

    listed = list(rows)
    unknown = {key for row in listed for key in row} - set(schema.names)
    if unknown:
        raise TableError(f"The results schema has no column {', '.join(sorted(unknown))}.")
    try:
        table = pa.Table.from_pylist(listed, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TableError(f"A result row does not fit the schema: {error}.") from None
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise TableError(f"A result row has no {field.name}, which every row must have.")
    return table


def to_parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file."""
    import io

    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def to_csv(table: pa.Table) -> bytes:
    """A table as UTF-8 CSV with a header; null is empty, lists are joined by `;`."""
    import io

    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    for place, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            joined = pc.binary_join(table.column(place), _LIST_SEPARATOR)
            table = table.set_column(place, field.name, joined)
    buffer = io.BytesIO()
    csv.write_csv(table, buffer)
    return buffer.getvalue()


def read_parts(folder: Path) -> pa.Table:
    """All result rows under the output folder of a batch, in the order of uri and face.

    Raises:
        TableError: no results there, or of a schema this version does not read.
    """
    import pyarrow as pa

    files = sorted((folder / "parts").glob("part-*.parquet"))
    if not files:
        raise TableError(f"{folder} holds no results. Make some with `fer batch INPUT {folder}`.")
    table = pa.concat_tables([read_part(path.read_bytes(), str(path)) for path in files])
    return table.sort_by([("uri", "ascending"), ("frame", "ascending"), ("face", "ascending")])


def read_part(
    data: bytes, where: str = "The results file", schema: pa.Schema | None = None
) -> pa.Table:
    """The rows of one Parquet file: results, or of another `schema` of this module.

    Raises:
        TableError: damaged, or of a schema this version does not read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise TableError(
            f"{where} is no Parquet file ({error}). Delete it and run the batch again."
        ) from None
    schema = schema or results_schema()
    check_schema(table.schema, schema, where)
    for place, field in enumerate(schema):
        if field.name not in table.schema.names:
            table = table.add_column(place, field, pa.nulls(len(table), field.type))
    return table.cast(schema)


def check_schema(found: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Refuse a file whose rows this version cannot read.

    Args:
        found: the file's.
        wanted: one of this module's; columns that are younger than the file may be absent.
        where: names the file.

    Raises:
        TableError: another version, or other columns.
    """
    version = (found.metadata or {}).get(VERSION_KEY, b"none").decode(errors="replace")
    readable = version.isdecimal() and 1 <= int(version) <= SCHEMA_VERSION
    if not readable or found.names != [
        name for name in wanted.names if _SINCE.get(name, 1) <= int(version)
    ]:
        raise TableError(
            f"{where} has results schema {version}, this version reads up to {SCHEMA_VERSION}. "
            "Write to another output, or read it with the version that wrote it."
        )


def markdown(columns: Iterable[Column] = COLUMNS) -> str:
    """The columns as a Markdown table, for the documentation."""
    lines = ["| column | type | unit | null | meaning |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| `{one.name}` | {one.type} | {one.unit} | {'yes' if one.null else 'no'} "
        f"| {one.meaning} |"
        for one in columns
    ]
    return "\n".join(lines) + "\n"


def _schema(columns: Iterable[Column]) -> pa.Schema:
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "bool": pa.bool_(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "float64": pa.float64(),
        "list<string>": pa.list_(pa.string()),
        "timestamp[ms, tz=UTC]": pa.timestamp("ms", tz="UTC"),
    }
    return pa.schema(
        [
            pa.field(
                one.name,
                types[one.type],
                nullable=one.null,
                metadata={"meaning": one.meaning, "unit": one.unit},
            )
            for one in columns
        ],
        metadata={
            VERSION_KEY: str(SCHEMA_VERSION).encode(),
            CLASSES_KEY: ",".join(EXPRESSIONS).encode(),
        },
    )
