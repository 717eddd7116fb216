"""Results of `fer video` whose content is known, written without any video."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fer.expressions import EXPRESSIONS
from fer.inference.results import results_schema

Track = tuple[Sequence[int] | NDArray[np.int64], NDArray[np.float64]]
"""Frames in which somebody is seen, (n,), and the probabilities, (n, 7)."""

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def showing(*stretches: tuple[str, int] | tuple[str, int, float]) -> NDArray[np.float64]:
    """Probabilities (n, 7): of each (expression, frames, probability), the rest shared."""
    rows = []
    for name, frames, *value in stretches:
        share = value[0] if value else 0.88
        row = np.full(len(EXPRESSIONS), (1 - share) / 6)
        row[EXPRESSIONS.index(name)] = share
        rows += [row] * frames
    return np.array(rows)


def write(
    path: Path,
    times: Sequence[float] | NDArray[np.float64],
    tracks: Mapping[int, Track],
    *,
    corrupt: Sequence[int] = (),
    marked: Mapping[tuple[int, int], list[str]] | None = None,
    group: int = 900,
    **head: Any,
) -> Path:
    """Write a results file.

    Args:
        path: the Parquet file.
        times: of all analysed frames, s.
        tracks: who is seen in which frames; frames without anybody get a row with null face.
        corrupt: of these, frames that could not be decoded.
        marked: marks by quality, by frame and track.
        group: rows in a row group, which no analysis ends within a frame.
        head: columns that are the same in all rows, in place of what they are else.
    """
    times = np.asarray(times, np.float64)
    seen = [np.asarray(where, np.int64) for where, _ in tracks.values()]
    nobody = np.setdiff1d(np.arange(len(times)), np.concatenate([*seen, np.zeros(0, np.int64)]))
    frames = np.concatenate([*seen, nobody])
    numbers = np.repeat([*tracks, -1], [*map(len, seen), len(nobody)])
    scores = np.concatenate(
        [*(values for _, values in tracks.values()), np.zeros((len(nobody), len(EXPRESSIONS)))]
    )
    order = np.lexsort((numbers, frames))
    frames, numbers, scores = frames[order], numbers[order], scores[order]
    faces = np.arange(len(frames)) - np.searchsorted(frames, frames)
    absent = numbers < 0
    fixed: dict[str, Any] = {
        "uri": path.with_suffix(".mp4").absolute().as_uri(),
        "etag": "1-1",
        "media": "video",
        "width": 640,
        "height": 480,
        "detector": "dlib-hog",
        "faces_digest": "d",
        "model_name": "test-model",
        "model_version": 3,
        "model_digest": "m" * 64,
        "run_id": "r",
        "analysed_at": NOW,
    } | head
    marks: list[list[str] | None] = [
        (["corrupt"] if frame in corrupt else None) if gone
        else (marked or {}).get((frame, number), [])
        for frame, number, gone in zip(frames.tolist(), numbers.tolist(), absent, strict=True)
    ]  # fmt: skip
    columns: dict[str, Any] = {
        "frame": frames,
        "timestamp": times[frames],
        "face": pa.array(faces, mask=absent),
        "track": pa.array(numbers, mask=absent),
        "quality_marks": marks,
    }
    for place, name in enumerate(EXPRESSIONS):
        columns[f"p_{name}"] = pa.array(scores[:, place].astype(np.float32), mask=absent)
    schema = results_schema()
    arrays = []
    for column in schema:
        if column.name in columns:
            values = columns[column.name]
            array = values if isinstance(values, pa.Array) else pa.array(values, column.type)
            arrays.append(array.cast(column.type))
        elif column.name in fixed:
            array = pa.array([fixed[column.name]], column.type)
            arrays.append(array.take(pa.array(np.zeros(len(frames), np.int64))))
        else:
            arrays.append(pa.nulls(len(frames), column.type))
    table = pa.Table.from_arrays(arrays, schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    borders = [0, *(one for one in range(1, len(frames)) if _ends(frames, one, group)), len(frames)]
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first, last in pairwise(borders):
            writer.write_table(table.slice(first, last - first))
    return path


def _ends(frames: NDArray[np.int64], place: int, group: int) -> bool:
    """Whether a row group begins at this row: every `group` frames."""
    return bool(frames[place] != frames[place - 1] and frames[place] % group == 0)
