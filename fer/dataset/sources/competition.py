"""The 2013 competition's table: fer2013.csv, and icml_face_data.csv with its spaced header."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from fer.dataset.sources.layout import MAX_IMAGES, split_of
from fer.dataset.table import SIDE, SourceImage
from fer.errors import SourceError
from fer.expressions import EXPRESSIONS

_COLUMNS: Final = ("emotion", "pixels", "Usage")
_LABELS: Final = {str(index): label for index, label in enumerate(EXPRESSIONS)}
_LONGEST: Final = 40
"""Characters of an unknown label or usage that are kept; the gate shows them."""


def read_competition(path: Path, progress: Callable[[int, int], None]) -> Iterator[SourceImage]:
    """Every row of the table, in its own order: row i is named `<Usage>/<i>`.

    A label out of range becomes the class name it is not, for the gate to find; a row whose
    pixels are not 2,304 grey levels becomes a row that says so.

    Args:
        path: the CSV file.
        progress: called with (bytes done, bytes in all).

    Raises:
        SourceError: no such table, not in UTF-8, or longer than any FER2013.
    """
    # Rows hold about 9 kB of pixels; the module's default limit is 131 kB, which is plenty.
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            size = os.fstat(file.fileno()).st_size
            reader = csv.reader(file, skipinitialspace=True)
            header = [name.strip() for name in next(reader, [])]
            if missing := [name for name in _COLUMNS if name not in header]:
                raise SourceError(
                    f"{path} has no column {missing[0]!r}; it should be the competition's "
                    f"fer2013.csv or icml_face_data.csv, with {', '.join(_COLUMNS)}."
                )
            emotion, pixels, usage = (header.index(name) for name in _COLUMNS)
            done = 0
            rows = (row for row in reader if row)  # an empty line is no row
            for number, row in enumerate(rows):
                if number >= MAX_IMAGES:
                    raise SourceError(f"{path} has over {MAX_IMAGES:,} rows; FER2013 has 35,887.")
                if len(row) == len(header):
                    yield _image(number, row[emotion].strip(), row[pixels], row[usage].strip())
                else:
                    problem = f"{len(row)} fields, not {len(header)}"
                    name = f"unknown/{number:05d}"
                    yield SourceImage(name, "unknown", "unknown", None, problem=problem)
                done += sum(map(len, row)) + len(row)
                progress(min(done, size), size)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is no CSV table ({error}). Fetch it again.") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror or error}).") from None


def _image(number: int, emotion: str, pixels: str, usage: str) -> SourceImage:
    label = _LABELS.get(emotion, f"emotion {emotion[:_LONGEST]}")
    name, split = f"{usage[:_LONGEST]}/{number:05d}", split_of(usage[:_LONGEST])
    try:
        levels = np.array(pixels.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        return SourceImage(name, split, label, None, problem="pixels are no whole numbers")
    if levels.size != SIDE * SIDE:
        return SourceImage(name, split, label, None, problem=f"{levels.size} pixels, not 2304")
    if levels.min() < 0 or levels.max() > 255:
        return SourceImage(name, split, label, None, problem="grey level outside 0..255")
    return SourceImage(name, split, label, levels.astype(np.uint8).reshape(SIDE, SIDE))
