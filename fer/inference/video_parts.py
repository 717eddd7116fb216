"""A video's results while they grow: parts beside the final file, so that a kill costs one part.

`NAME.parquet.parts/` holds one Parquet file for every stretch of frames, each written whole and
with all that a run which goes on from there needs in its metadata. At the end the parts become
the row groups of `NAME.parquet`, which appears at once and complete, and the folder goes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer.errors import ConflictError, TableError, UsageError
from fer.files import atomic_path, write_json, write_text
from fer.inference.results import results_schema, to_csv, to_table

if TYPE_CHECKING:
    import pyarrow as pa

JOB_KEY: Final = b"fer.video.job"
STATE_KEY: Final = b"fer.video.state"

# By these a table is known as one of ours, of an older schema too.
_ROW_COLUMNS: Final = {"uri", "frame", "model_digest"}
_EPISODE_COLUMNS: Final = {"track", "expression", "start", "end"}

State = dict[str, Any]


@dataclass(frozen=True)
class Counts:
    """Rows and frames of one video's results; see `fer.inference.video.VideoSummary`."""

    frames: int
    faces: int
    carried: int
    classified: int
    tracks: int
    without_face: int
    corrupt: int


class VideoResults:
    """The results file of one video.

    Args:
        target: the final Parquet file.
        job: what is being analysed, and how: parts of another job are discarded.
    """

    def __init__(self, target: Path, job: Mapping[str, Any]) -> None:
        self.target = Path(os.path.abspath(target.expanduser()))
        self.folder = self.target.with_name(f"{self.target.name}.parts")
        self.job = json.dumps(job, sort_keys=True).encode()

    def check_names(self, csv: bool) -> None:
        """Refuse to go over anything that is not an earlier result of this very video.

        Two cameras call their files the same, and beside a video there may be a .json or .csv of
        whoever made it.

        Args:
            csv: whether NAME.csv will be written too.

        Raises:
            UsageError: a file of another video, or of something else, has one of the names.
        """
        uri = json.loads(self.job).get("uri")
        files = {self.target: _uri_of_rows, self.target.with_suffix(".json"): _uri_of_summary}
        for path, uri_of in files.items():
            if not path.exists():
                continue
            found = uri_of(path)
            if found is None:
                raise _taken(path, "is no result of `fer video`")
            if found != uri:
                raise _taken(path, f"is of another video, {found}")
        begun = _uri_of_rows(self._part(0))  # a damaged part is done again
        if begun not in {None, uri}:
            raise _taken(self.folder, f"is of another video, {begun}")
        tables = {".episodes.csv": _EPISODE_COLUMNS} | ({".csv": _ROW_COLUMNS} if csv else {})
        for suffix, columns in tables.items():
            path = self.target.with_suffix(suffix)
            if path.exists() and not columns <= set(_header(path)):
                raise _taken(path, "is no result of `fer video`")

    def finished(self) -> bool:
        """Whether the final file is there and of this very job."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            metadata = pq.read_schema(self.target).metadata or {}
        except (OSError, pa.ArrowException):
            return False
        return metadata.get(JOB_KEY) == self.job

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Hold the parts for this run.

        Raises:
            ConflictError: another process is analysing into the same file.
        """
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(
                    f"Another run is writing {self.target}. Wait for it, or choose another output."
                ) from None
            yield
        finally:
            os.close(descriptor)

    def resume(self) -> tuple[int, State | None]:
        """How many parts are done, and the state after the last of them.

        Parts of another job, and any after a gap or a damaged one, are removed.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        state: State | None = None
        done = 0
        while (path := self._part(done)).exists():
            try:
                metadata = pq.read_schema(path).metadata or {}
            except (OSError, pa.ArrowException):
                break
            if metadata.get(JOB_KEY) != self.job:
                break
            state = json.loads(metadata[STATE_KEY])
            done += 1
        keep = {self._part(number) for number in range(done)}
        for path in self.folder.iterdir():
            if path not in keep:
                path.unlink()
        return done, state

    def write_part(self, number: int, rows: list[dict[str, Any]], state: State) -> None:
        """Write the rows of one stretch of frames, and what the next stretch must know."""
        import pyarrow.parquet as pq

        table = to_table(rows, results_schema())
        metadata = (table.schema.metadata or {}) | {
            JOB_KEY: self.job,
            STATE_KEY: json.dumps(state).encode(),
        }
        with atomic_path(self._part(number)) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")

    def finish(self, parts: int) -> None:
        """Make the final file of all parts, one row group each, and remove them."""
        import pyarrow.parquet as pq

        schema = results_schema()
        schema = schema.with_metadata((schema.metadata or {}) | {JOB_KEY: self.job})
        with (
            atomic_path(self.target) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for number in range(parts):
                table = pq.read_table(self._part(number))
                writer.write_table(table.replace_schema_metadata(schema.metadata))
        shutil.rmtree(self.folder)

    def last_run(self) -> str:
        """The `run_id` of the last row: of the run that came to the end."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.target) as file:
            table = file.read_row_group(file.num_row_groups - 1, columns=["run_id"])
        return str(table.column(0)[-1])

    def write_csv(self, target: Path) -> None:
        """The final file as CSV, one row group in memory at a time."""
        import pyarrow.parquet as pq

        with (
            pq.ParquetFile(self.target) as file,
            atomic_path(target) as temporary,
            temporary.open("wb") as stream,
        ):
            for group in range(file.num_row_groups):
                data = to_csv(file.read_row_group(group))
                stream.write(data if group == 0 else data.partition(b"\n")[2])

    def counts(self) -> Counts:
        """What the final file holds."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        frames = faces = carried = classified = without = corrupt = 0
        tracks: set[int] = set()
        names = ["frame", "face", "track", "detection_score", "quality_marks", "classified"]
        with pq.ParquetFile(self.target) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=names, use_threads=False)
                frames += pc.count_distinct(table.column("frame")).as_py()
                found = table.filter(pc.is_valid(table.column("face")))
                faces += found.num_rows
                carried += found.column("detection_score").null_count
                classified += pc.sum(found.column("classified")).as_py() or 0
                tracks.update(pc.unique(found.column("track")).to_pylist())
                empty = table.num_rows - found.num_rows
                lost = table.filter(pc.is_null(table.column("face"))).column("quality_marks")
                broken = empty - lost.null_count
                corrupt += broken
                without += empty - broken
        return Counts(frames, faces, carried, classified, len(tracks), without, corrupt)

    def write_beside(self, summary: dict[str, Any]) -> None:
        """Write NAME.json, and the episodes in it as NAME.episodes.csv."""
        import csv
        import io
        from dataclasses import fields

        from fer.inference.timeline import Episode

        text = io.StringIO()
        writer = csv.DictWriter(text, [one.name for one in fields(Episode)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(summary["episodes"])
        write_text(self.target.with_suffix(".episodes.csv"), text.getvalue())
        write_json(self.target.with_suffix(".json"), summary)

    def timeline_tables(self) -> Iterator[pa.Table]:
        """Part by part the columns that episodes are made of: some 50 bytes a row."""
        import pyarrow.parquet as pq

        from fer.expressions import EXPRESSIONS

        names = ["frame", "timestamp", "face", "track", *(f"p_{name}" for name in EXPRESSIONS)]
        with pq.ParquetFile(self.target) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=names, use_threads=False)

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"


def _taken(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} {why}, and would be lost. Move it away, or choose another folder for the results."
    )


def _uri_of_rows(path: Path) -> str | None:
    """Of which video a part or a final file is; None where it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        job = json.loads((pq.read_schema(path).metadata or {})[JOB_KEY])
        return str(job["uri"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def _uri_of_summary(path: Path) -> str | None:
    """Of which video a NAME.json is; None where it is none of ours."""
    try:
        document = json.loads(path.read_bytes())
        return str(document["video"]) if document["model_digest"] else None
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _header(path: Path) -> list[str]:
    """The names of a CSV file's columns; none where it cannot be read as one."""
    import csv

    try:
        with path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return []


def read_video(path: Path) -> pa.Table:
    """All rows of a video's results file, in order of frame and face.

    Raises:
        TableError: absent, damaged, or of a schema this version does not read.
    """
    from fer.inference.results import read_part

    if not path.is_file():
        raise TableError(f"There is no {path}. Make it with `fer video FILE`.")
    return read_part(path.read_bytes(), str(path))
