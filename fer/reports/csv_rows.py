"""CSV files that people write by hand or in a spreadsheet: rows by name of column, with lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from fer.errors import UsageError


@dataclass(frozen=True)
class CsvRow:
    """One row: where it stands, for messages, and its cells by column, without outer blanks."""

    where: str
    cells: dict[str, str]

    def filled(self, column: str) -> str:
        """A cell that may not be empty.

        Raises:
            UsageError: it is.
        """
        if not self.cells[column]:
            raise UsageError(f"{self.where}: {column} is empty. Fill it in, or delete the row.")
        return self.cells[column]


def read_csv(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> list[CsvRow]:
    """The rows of a CSV file, empty ones left out; other columns are ignored.

    Spreadsheets separate cells by commas, semicolons or tabs, as the country goes, and begin the
    file with a byte-order mark: all of it is read.

    Args:
        path: the file, UTF-8.
        needed: columns that it must have; capitals and blanks around a name do not matter.
        optional: columns that are empty where it lacks them.

    Raises:
        UsageError: unreadable, no CSV, or a column is missing or misspelt.
    """
    example = ",".join([*needed, *optional])
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}. Name a CSV file with the columns {example}."
        ) from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(f"{path} is no UTF-8 text. Save it as CSV (UTF-8).")
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {reader.line_num}: {error}. Mend the quotes, or save it as CSV again."
        ) from None
    columns = [name.strip().lower() for name in lines[0][1]] if lines else []
    _check(path, columns, needed, optional)
    rows = []
    for number, line in lines[1:]:
        where = f"{path}, line {number}"
        cells = [cell.strip() for cell in line]
        if not any(cells):
            continue
        if any(cells[len(columns) :]):
            raise UsageError(
                f"{where} has {len(cells)} cells, the first line {len(columns)} columns. "
                'Put what holds a separator in quotes: "a, b".'
            )
        found = dict(zip(columns, cells, strict=False))
        rows.append(CsvRow(where, {name: found.get(name, "") for name in (*needed, *optional)}))
    return rows


def _check(
    path: Path, columns: Sequence[str], needed: Sequence[str], optional: Sequence[str]
) -> None:
    others = sorted({*columns} - {*needed, *optional, ""})
    for name in (*needed, *optional):
        if columns.count(name) > 1:
            raise UsageError(f"{path} has two columns {name}. Delete one.")
        if name in columns:
            continue
        near = get_close_matches(name, others, 1)
        # A misspelt optional column would be taken for one that is left out on purpose.
        if near:
            raise UsageError(f"{path} has a column {near[0]!r}; call it {name}.")
        if name in needed:
            there = ", ".join(filter(None, columns)) or "none"
            raise UsageError(
                f"{path} has no column {name}; there are: {there}. Its first line must name "
                f"{', '.join(needed)}."
            )
