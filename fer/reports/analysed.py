"""Results of `fer video`: which there are, how they are called, and one of them read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from fer.errors import TableError, UsageError
from fer.expressions import EXPRESSIONS
from fer.inference.results import VERSION_KEY, check_schema, results_schema
from fer.inference.timeline import Timeline, timelines
from fer.inference.video_parts import Counts, VideoResults
from fer.reports.seen import Frames

if TYPE_CHECKING:
    import pyarrow as pa

    from fer.params import TimelineParams

_SUFFIX: Final = ".parquet"
_COLUMNS: Final = (
    "frame",
    "timestamp",
    "face",
    "track",
    "quality_marks",
    *(f"p_{name}" for name in EXPRESSIONS),
)
_MAKE: Final = "Make results with `fer video FILE -o RESULTS`, and name the .parquet or its folder."


@dataclass(frozen=True)
class ResultFile:
    """One results file.

    Attributes:
        path: the Parquet file.
        name: that the report calls the video by: the file's, with its folder's where two files
            have the same.
        source: name of the video's own file.
        head: the first row's columns that are the same in all rows.
    """

    path: Path
    name: str
    source: str
    head: dict[str, Any]

    @property
    def model(self) -> str:
        """Name of the model with its version, or the beginning of its digest."""
        version, digest = self.head["model_version"], str(self.head["model_digest"])
        named = f"version {version}" if version is not None else f"digest {digest[:12]}"
        return f"{self.head['model_name']}, {named}"


@dataclass(frozen=True)
class Videos:
    """The results files that are reported, and notes on what was passed over."""

    files: tuple[ResultFile, ...]
    notes: tuple[str, ...]

    def named(self, text: str, where: str) -> ResultFile:
        """The video that somebody means: by name, results file, or the video's own file.

        Args:
            text: what was written.
            where: the file and line, for the message.

        Raises:
            UsageError: none is called so, or more than one.
        """
        found = [one for one in self.files if one.name == text]
        if not found:
            found = [
                one
                for one in self.files
                if text in {one.path.name, one.path.stem, one.source, str(one.path)}
            ]
        if len(found) == 1:
            return found[0]
        known = ", ".join(one.name for one in self.files[:12])
        known += ", ..." if len(self.files) > 12 else ""
        if found:
            raise UsageError(f"{where}: {text!r} may be several videos. Write one of: {known}.")
        raise UsageError(
            f"{where}: there is no video {text!r} among the results. Write one of: {known}; or "
            "report its results too."
        )


def find_results(paths: Iterable[Path]) -> Videos:
    """The results files that are meant by files and folders.

    Raises:
        UsageError: there are none, a path does not exist, or a file that was named is none.
        TableError: a file is damaged, or of a schema that this version does not read.
    """
    files: dict[Path, tuple[Path, dict[str, Any]]] = {}
    notes = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"There is no {path}. {_MAKE}")
        listed = sorted(path.glob(f"*{_SUFFIX}")) if path.is_dir() else [path]
        listed = [one for one in listed if one.is_file()]
        heads = {one: _head(one) for one in listed}
        if not path.is_dir() and heads[path] is None:
            raise UsageError(f"{path} is no result of `fer video`. {_MAKE}")
        for one, head in heads.items():
            if head is None:
                notes.append(f"{one} is no result of fer video; it was passed over.")
            else:
                files.setdefault(one.resolve(), (one, head))
        if path.is_dir():
            for parts in sorted(path.glob(f"*{_SUFFIX}.parts")):
                name = parts.name.removesuffix(f"{_SUFFIX}.parts")
                notes.append(
                    f"The analysis of {name} in {path} is not finished; it is not in this report. "
                    "Run the same fer video again: it goes on."
                )
            if not any(head is not None for head in heads.values()):
                raise UsageError(f"{path} holds no results of `fer video`. {_MAKE}")
    if not files:
        raise UsageError(f"No results are named. {_MAKE}")
    names = _names(list(files))
    found = [
        ResultFile(path, name, _source(str(head["uri"])), head)
        for name, (path, head) in zip(names, files.values(), strict=True)
    ]
    return Videos(tuple(found), tuple(notes))


@dataclass(frozen=True, eq=False)
class Analysed:
    """What `fer video` found in one video.

    Attributes:
        file: where it is, and of what.
        frames: that were analysed.
        counts: of rows and frames.
        tracks: persons, smoothed; in order of their numbers.
        marked: faces that are marked by their quality, by track.
        marks: faces by mark.
        warnings: that the analysis gave.
    """

    file: ResultFile
    frames: Frames
    counts: Counts
    tracks: tuple[Timeline, ...]
    marked: Counter[int]
    marks: Counter[str]
    warnings: tuple[str, ...]


def read_analysed(file: ResultFile, params: TimelineParams) -> Analysed:
    """Read one results file, part by part: 100 bytes a row stay in memory.

    Raises:
        TableError: it is damaged.
        UsageError: its frames have no times.
    """
    import pyarrow as pa

    seen = _Passing()
    try:
        tracks = tuple(timelines(seen.through(_parts(file.path)), params))
        counts = VideoResults(file.path, {}).counts()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file.path, error) from None
    frames = seen.frames()
    if len(frames.times) > 1 and frames.times[-1] <= frames.times[0]:
        raise UsageError(
            f"All frames of {file.path} have the same time: {file.source} has none of its own. "
            "Convert it (ffmpeg -i IN -c:v libx264 OUT.mp4), and analyse that."
        )
    return Analysed(
        file=file,
        frames=frames,
        counts=counts,
        tracks=tracks,
        marked=seen.marked,
        marks=seen.marks,
        warnings=_warnings(file, counts),
    )


@dataclass
class _Passing:
    """Notes down what a timeline leaves out, while the rows pass on their way to it."""

    indices: list[NDArray[Any]] = field(default_factory=list)
    times: list[NDArray[Any]] = field(default_factory=list)
    marked: Counter[int] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)

    def through(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        import pyarrow.compute as pc

        for table in tables:
            # Rows come in order of frame; of several faces the first will do.
            indices, first = np.unique(table.column("frame").to_numpy(), return_index=True)
            self.indices.append(indices)
            self.times.append(table.column("timestamp").to_numpy()[first])
            faces = table.filter(pc.is_valid(table.column("face")))
            lengths = pc.fill_null(pc.list_value_length(faces.column("quality_marks")), 0)
            with_mark = faces.filter(pc.greater(lengths, 0))
            self.marked.update(with_mark.column("track").to_pylist())
            self.marks.update(pc.list_flatten(with_mark.column("quality_marks")).to_pylist())
            yield table

    def frames(self) -> Frames:
        indices, first = np.unique(np.concatenate(self.indices), return_index=True)
        return Frames(indices, np.concatenate(self.times)[first].astype(np.float64))


def _parts(path: Path) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(_COLUMNS), use_threads=False)


def _head(path: Path) -> dict[str, Any] | None:
    """The first row of a video's results; None where the file is something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["uri", "media", "detector", "faces_digest", "width", "height"]
    columns += ["model_name", "model_version", "model_digest"]
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if VERSION_KEY not in (schema.metadata or {}):
                return None
            check_schema(schema, results_schema(), str(path))
            if not file.metadata.num_rows:
                return None
            rows = next(file.iter_batches(1, columns=columns, use_threads=False))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, pa.ArrowInvalid) and path.suffix != _SUFFIX:
            return None  # a video or a CSV, named in place of its results
        raise _damaged(path, error) from None
    first: dict[str, Any] = rows.to_pylist()[0]
    return first if first["media"] == "video" else None


def _damaged(path: Path, error: Exception) -> TableError:
    return TableError(
        f"{path} cannot be read as Parquet ({error}). Delete it and run `fer video` again."
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each of these resolved paths, no two the same: as short as can be."""
    names = [path.stem for path in paths]
    for depth in range(1, max(len(path.parts) for path in paths)):
        twice = {name for name, count in Counter(names).items() if count > 1}
        names = [
            str(Path(*path.parts[-depth - 1 : -1], path.stem)) if name in twice else name
            for name, path in zip(names, paths, strict=True)
        ]
    return names


def _source(uri: str) -> str:
    return unquote(urlsplit(uri).path).rpartition("/")[2] or uri


def _warnings(file: ResultFile, counts: Counts) -> tuple[str, ...]:
    """What NAME.json beside the results warns of, where it is of this very analysis."""
    path = file.path.with_suffix(".json")
    try:
        document = json.loads(path.read_bytes())
        same = document["frames"] == counts.frames
        same = same and document["model_digest"] == file.head["model_digest"]
        warnings = tuple(str(one) for one in document["warnings"]) if same else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    # Those frames are counted here too.
    return tuple(one for one in warnings if "could not be decoded" not in one)
