"""Agreement with the FER+ majority: what ten annotators see, instead of FER2013's one label.

FER+ (Barsoum et al. 2016, "Training deep networks for facial expression recognition with
crowd-sourced label distribution") has ten votes for each FER2013 image over eight expressions,
`unknown` and `NF` (not a face).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.errors import SourceError, TableError
from fer.expressions import Expression

VOTES: Final = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "NF",
)
"""The ten columns of votes, in the published file's order."""

_OURS: Final = {
    "neutral": Expression.NEUTRAL,
    "happiness": Expression.HAPPY,
    "surprise": Expression.SURPRISE,
    "sadness": Expression.SAD,
    "anger": Expression.ANGRY,
    "disgust": Expression.DISGUST,
    "fear": Expression.FEAR,
}
# Index of our expression for each column of votes; -1 where we have none.
_MAPPED: Final = np.array([int(_OURS[name]) if name in _OURS else -1 for name in VOTES])
# How `fer.dataset.sources.competition` names row i of the competition's CSV.
_ROW_NAME: Final = re.compile(r"(?P<usage>[A-Za-z]+)/(?P<row>[0-9]{1,9})")


def majority(votes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """The expression most annotators chose, -1 where that is not usable.

    Usable is a row whose top vote is a single one and is one of the seven expressions: ties,
    contempt, unknown and not-a-face are left out.

    Args:
        votes: (n, 10) counts in the order of `VOTES`.

    Returns:
        (n,) indices 0 to 6, or -1.
    """
    counts = np.asarray(votes)
    if counts.ndim != 2 or counts.shape[1] != len(VOTES):
        raise ValueError(f"votes have shape {counts.shape}; (n, {len(VOTES)}) is wanted")
    if len(counts) == 0:
        return np.empty(0, dtype=np.int64)
    top = counts.max(axis=1)
    single = (counts == top[:, None]).sum(axis=1) == 1
    chosen = _MAPPED[counts.argmax(axis=1)]
    return np.where(single & (top > 0), chosen, -1).astype(np.int64)


def majority_by_name(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """The majority for each of `names`, from a table that `read_votes` made.

    Args:
        path: `ferplus.parquet`: name and the ten columns of votes.
        names: (n,) names as `faces.parquet` has them.

    Returns:
        (n,) indices 0 to 6; -1 where the name has no votes or they are not usable.

    Raises:
        TableError: the file cannot be read or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["name", *VOTES])
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise TableError(
            f"{path} is not a table of FER+ votes: {error}. Run `dvc repro fetch` again."
        ) from None
    if missing := {"name", *VOTES} - set(table.column_names):
        raise TableError(f"{path} lacks the columns {', '.join(sorted(missing))}.")
    found = majority(np.stack([table.column(name).to_numpy() for name in VOTES], axis=1))
    lookup = dict(zip(table.column("name").to_pylist(), found.tolist(), strict=True))
    return np.array([lookup.get(str(name), -1) for name in names], dtype=np.int64)


def read_votes(path: Path, names: Sequence[str]) -> Any:
    """FER+ votes for the images of a source.

    Two kinds of file are read. One with a `name` column is joined by name. The published
    `fer2013new.csv` has no names, only the rows of the competition's CSV: it is joined by
    the row number in the image's name (`<Usage>/<row>`), and so only to a source that is that CSV.

    Args:
        path: the CSV file.
        names: the source's images.

    Returns:
        pyarrow.Table: name (string) and ten int32 columns of votes, one row for each image that
        has votes, in the order of `names`.

    Raises:
        SourceError: the file is absent, is neither kind, has a vote that is no count, or does not
            fit the source. The message says which and what to do.
    """
    import pyarrow as pa

    header, rows = _read_csv(path)
    if missing := [name for name in VOTES if name not in header]:
        raise SourceError(
            f"{path} lacks the FER+ columns {', '.join(missing)}. Give fer2013new.csv from "
            "github.com/microsoft/FERPlus, or the same votes with a `name` column."
        )
    columns = [header.index(name) for name in VOTES]
    if "name" in header:
        pairs = _by_name(path, rows, header.index("name"), names)
    else:
        pairs = _by_position(path, rows, header, names)
    kept = [(name, _counts(path, row, line, columns)) for name, line, row in pairs]
    votes = np.array([counts for _, counts in kept], dtype=np.int32).reshape(-1, len(VOTES))
    data = {"name": pa.array([name for name, _ in kept], pa.string())}
    for position, column in enumerate(VOTES):
        data[column] = pa.array(votes[:, position], pa.int32())
    return pa.table(data)


def no_votes() -> Any:
    """The table `read_votes` makes where a source has no votes: its columns, and no row."""
    import pyarrow as pa

    columns = [("name", pa.string()), *((name, pa.int32()) for name in VOTES)]
    return pa.schema(columns).empty_table()


# One row of a CSV file with its line number, for messages.
_Row = tuple[str, int, list[str]]


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist. Correct FER_FERPLUS or unset it.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as CSV: {error}.") from None
    if not lines:
        raise SourceError(f"{path} is empty. Download it again, or unset FER_FERPLUS.")
    return [name.strip() for name in lines[0]], [line for line in lines[1:] if line]


def _by_name(path: Path, rows: list[list[str]], column: int, names: Sequence[str]) -> list[_Row]:
    lookup: dict[str, tuple[int, list[str]]] = {}
    for line, row in enumerate(rows, start=2):
        if column >= len(row):
            raise SourceError(f"{path}, line {line}: cut short. Download it again.")
        lookup[_key(row[column])] = (line, row)
    pairs = [(name, *lookup[_key(name)]) for name in names if _key(name) in lookup]
    if names and not pairs:
        raise SourceError(
            f"None of the source's {len(names)} images is named in {path} (the source has "
            f"'{names[0]}'). FER+ fits the source it was joined to; unset FER_FERPLUS to go on "
            "without it."
        )
    return pairs


def _by_position(
    path: Path, rows: list[list[str]], header: list[str], names: Sequence[str]
) -> list[_Row]:
    usage = header.index("Usage") if "Usage" in header else None
    pairs = []
    for name in names:
        # Only a name that states its row can be joined. A folder may well have the right number
        # of images, in another order: votes would go to the wrong faces without a sign of it.
        if (found := _ROW_NAME.fullmatch(name)) is None:
            raise SourceError(
                f"{path} has FER+ votes in the row order of the competition's CSV, and the source "
                f"has no such rows (it has '{name}'). Use fer2013.csv or icml_face_data.csv as "
                "the source, or votes joined by name, or unset FER_FERPLUS."
            )
        number = int(found["row"])
        if number >= len(rows):
            raise SourceError(
                f"{path} has {len(rows)} rows of FER+ votes, and the source has a row {number} "
                f"('{name}'). Download the votes again, or unset FER_FERPLUS."
            )
        row = rows[number]
        if usage is not None and (len(row) <= usage or row[usage].strip() != found["usage"]):
            raise SourceError(
                f"{path}, line {number + 2}: the source calls this row '{name}', the votes call "
                f"it {row[usage] if len(row) > usage else 'nothing'}. The rows do not match: "
                "these votes belong to another table."
            )
        pairs.append((name, number + 2, row))
    return pairs


def _counts(path: Path, row: list[str], line: int, columns: list[int]) -> list[int]:
    try:
        counts = [int(row[column]) for column in columns]
    except (IndexError, ValueError):
        raise SourceError(
            f"{path}, line {line}: ten counts of votes are expected, found {row}."
        ) from None
    if min(counts) < 0 or max(counts) > 1000:
        raise SourceError(f"{path}, line {line}: {counts} are no counts of votes.")
    return counts


def _key(name: str) -> str:
    """The last three parts of a path, `split/class/file`: where the root lies does not matter."""
    return "/".join(name.replace("\\", "/").split("/")[-3:])
