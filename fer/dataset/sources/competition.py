"""The 2013 competition's table: fer2013.csv, and icml_face_data.csv with its spaced header."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fer.dataset.sources.layout import split_of
from fer.dataset.table import SIDE, SourceImage
from fer.errors import SourceError
from fer.expressions import EXPRESSIONS

_COLUMNS = ("emotion", "pixels", "Usage")


def read_competition(path: Path, progress: Callable[[int, int], None]) -> Iterator[SourceImage]:
    """Every row of the table, in its own order: row i is named `<Usage>/<i>`.

    A label out of range becomes the class name it is not, for the gate to find; a row whose
    pixels are not 2,304 grey levels becomes a row that says so.

    Args:
        path: the CSV file.
        progress: called with (bytes done, bytes in all).

    Raises:
        SourceError: no such table, or not in UTF-8.
    """
    size = path.stat().st_size
    # Rows hold about 9 kB of pixels; the module's default limit is 131 kB, which is plenty.
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            header = [name.strip() for name in next(reader, [])]
            if missing := [name for name in _COLUMNS if name not in header]:
                raise SourceError(
                    f"{path} has no column {missing[0]!r}; it should be the competition's "
                    f"fer2013.csv or icml_face_data.csv, with {', '.join(_COLUMNS)}."
                )
            emotion, pixels, usage = (header.index(name) for name in _COLUMNS)
            done = 0
            for number, row in enumerate(reader):
                if not row:
                    continue
                if len(row) != len(header):
                    yield SourceImage(
                        f"unknown/{number:05d}", "unknown", "unknown", None, problem="short row"
                    )
                    continue
                yield _image(number, row[emotion].strip(), row[pixels], row[usage].strip())
                done += sum(map(len, row)) + len(row)
                progress(min(done, size), size)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is no CSV table ({error}). Fetch it again.") from None


def _image(number: int, emotion: str, pixels: str, usage: str) -> SourceImage:
    known = emotion.isdecimal() and int(emotion) < len(EXPRESSIONS)
    label = EXPRESSIONS[int(emotion)] if known else f"emotion {emotion}"
    name, split = f"{usage}/{number:05d}", split_of(usage)
    try:
        levels = np.array(pixels.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        return SourceImage(name, split, label, None, problem="pixels are no whole numbers")
    if levels.size != SIDE * SIDE:
        return SourceImage(name, split, label, None, problem=f"{levels.size} pixels, not 2304")
    if levels.min() < 0 or levels.max() > 255:
        return SourceImage(name, split, label, None, problem="grey level outside 0..255")
    return SourceImage(name, split, label, levels.astype(np.uint8).reshape(SIDE, SIDE))
