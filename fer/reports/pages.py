"""Pages for whole runs: the summary of a workflow, and of a batch of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer.expressions import EXPRESSIONS, Expression
from fer.files import write_text
from fer.reports.html import Bar, Fact, Section, Table, percent, render

if TYPE_CHECKING:
    import pyarrow

# A page of more rows is slow to open; the Parquet files have them all.
_ROWS: Final = 200
_NOTICE: Final = (
    "An expression is how a face looks, not what a person feels. In the EU, inferring emotions "
    "of people at work or in education is prohibited (AI Act, Article 5(1)(f))."
)


def render_summary(
    out: Path,
    sections: Sequence[Section],
    *,
    title: str = "Facial-expression workflow",
    lead: str = "",
    footer: str = _NOTICE,
) -> Path:
    """Write one self-contained page of titled sections, images inside, and return its path.

    Args:
        out: the HTML file.
        sections: in order; each has a title and text, facts, a table, images or links.
        title: of the page.
        lead: a line below the title.
        footer: a line at the end.

    Raises:
        UsageError: an image is absent or no picture.
    """
    page = render("page.html", title=title, lead=lead, sections=list(sections), footer=footer)
    write_text(out, page)
    return out


def batch_page(
    results: pyarrow.Table | Path | Sequence[Path],
    out: Path,
    *,
    quarantine: pyarrow.Table | Path | Sequence[Path] | None = None,
    title: str = "Expressions found",
) -> Path:
    """Write the page of a batch: counts and shares per expression, pictures, quarantine.

    No picture and no face goes into the page.

    Args:
        results: rows of the results schema: a table, Parquet file(s), or a batch's output folder.
        out: the HTML file.
        quarantine: rows of the quarantine schema, likewise; of a folder of results it is found.
        title: of the page.

    Raises:
        TableError: a file is damaged or of another schema.
    """
    if quarantine is None and isinstance(results, Path) and results.is_dir():
        quarantine = sorted((results / "quarantine").glob("*.parquet"))
    rows = _results(results)
    failed = _quarantined(quarantine)
    return render_summary(
        out, batch_sections(rows, failed), title=title, lead=_lead(rows), footer=_NOTICE
    )


def batch_sections(results: pyarrow.Table, quarantine: Sequence[tuple[str, str]]) -> list[Section]:
    """The sections of a batch's page, for a larger page to include.

    Args:
        results: rows of the results schema.
        quarantine: (uri, reason) of each picture that could not be analysed.
    """
    columns = ("uri", "face", "expression", "confidence", "quality_marks")
    rows = results.select(columns).to_pylist()
    faces = [row for row in rows if row["face"] is not None]
    pictures = {row["uri"] for row in rows}
    with_face = {row["uri"] for row in faces}
    sections = [
        Section(
            "Overview",
            facts=[
                Fact(f"{len(pictures):,}", _count(len(pictures), "picture") + " analysed"),
                Fact(f"{len(faces):,}", _count(len(faces), "face") + " found"),
                Fact(
                    f"{len(pictures - with_face):,}",
                    _count(len(pictures - with_face), "picture") + " without a face",
                ),
                Fact(
                    f"{len(quarantine):,}",
                    "in quarantine",
                    "could not be read; the reasons are below" if quarantine else "",
                ),
            ],
        ),
        _shares(faces),
    ]
    if marks := Counter(mark for row in faces for mark in row["quality_marks"] or ()):
        sections.append(
            Section(
                "Crops to read with care",
                text="These crops are unlike the images the model was trained on.",
                table=Table(
                    ["mark", "faces", "share"],
                    [
                        [mark, number, Bar(number / len(faces), percent(number / len(faces)))]
                        for mark, number in sorted(marks.items(), key=lambda one: (-one[1], one[0]))
                    ],
                ),
            )
        )
    sections.append(_pictures(rows))
    reasons: list[list[object]] = [[_name(uri), reason] for uri, reason in quarantine]
    sections.append(
        Section(
            f"Quarantine ({len(reasons):,})",
            text=_cut(len(reasons), "entries", "the quarantine table"),
            table=Table(["picture", "reason"], reasons[:_ROWS]),
        )
    )
    return sections


def _shares(faces: Sequence[dict[str, Any]]) -> Section:
    counts = Counter(row["expression"] for row in faces)
    total = max(1, len(faces))
    table = []
    for expression in Expression:
        found = [row["confidence"] for row in faces if row["expression"] == expression.label]
        share = counts[expression.label] / total
        table.append(
            [
                expression.label,
                counts[expression.label],
                Bar(share, percent(share), expression.colour),
                percent(sum(found) / len(found)) if found else "-",
            ]
        )
    return Section(
        "Expressions",
        text="Of all faces found. Confidence is the mean probability of the expression named.",
        table=Table(["expression", "faces", "share", "confidence"], table),
    )


def _pictures(rows: Sequence[dict[str, Any]]) -> Section:
    order = {name: index for index, name in enumerate(EXPRESSIONS)}
    by_picture: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_picture.setdefault(row["uri"], [])
        if row["face"] is not None:
            by_picture[row["uri"]].append(row)
    table: list[list[object]] = []
    for uri, faces in sorted(by_picture.items())[:_ROWS]:
        faces.sort(key=lambda row: (order.get(row["expression"], 99), -row["confidence"]))
        found = ", ".join(f"{row['expression']} {row['confidence']:.0%}" for row in faces[:12])
        if len(faces) > 12:
            found += f" and {len(faces) - 12} more"
        table.append([_name(uri), len(faces), found or "no face"])
    return Section(
        "Pictures",
        text=_cut(len(by_picture), "pictures", "the results table"),
        table=Table(["picture", "faces", "expressions"], table),
        open=len(by_picture) <= 40,
    )


def _lead(results: pyarrow.Table) -> str:
    """Which model looked, and with which detector."""
    named = results.select(["model_name", "model_version", "detector"]).to_pylist()
    models = sorted(
        {
            f"{row['model_name']}"
            + (f" version {row['model_version']}" if row["model_version"] is not None else "")
            for row in named
        }
    )
    detectors = sorted({row["detector"] for row in named})
    if not models:
        return "No picture was analysed."
    return f"Model {', '.join(models)}; faces found by {', '.join(detectors)}."


def _results(source: pyarrow.Table | Path | Sequence[Path]) -> pyarrow.Table:
    import pyarrow as pa

    from fer.inference.results import read_part, read_parts, results_schema

    if isinstance(source, pa.Table):
        return source
    if isinstance(source, Path):
        if source.is_dir():
            return read_parts(source)
        source = [source]
    parts = [read_part(_bytes(path), str(path)) for path in source]
    return pa.concat_tables(parts) if parts else results_schema().empty_table()


def _quarantined(source: pyarrow.Table | Path | Sequence[Path] | None) -> list[tuple[str, str]]:
    """(uri, reason), the last one of each uri."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fer.errors import TableError

    if source is None:
        return []
    if isinstance(source, pa.Table):
        tables = [source]
    else:
        tables = []
        for path in [source] if isinstance(source, Path) else source:
            try:
                tables.append(pq.read_table(pa.BufferReader(_bytes(path))))
            except pa.ArrowException as error:
                raise TableError(f"{path} is no quarantine table ({error}).") from None
    found: dict[str, str] = {}
    for table in tables:
        if missing := {"uri", "reason"} - set(table.column_names):
            raise TableError(f"A quarantine table has no column {', '.join(sorted(missing))}.")
        for row in table.select(["uri", "reason"]).to_pylist():
            found[row["uri"]] = row["reason"]
    return sorted(found.items())


def _bytes(path: Path) -> bytes:
    from fer.errors import TableError

    try:
        return path.read_bytes()
    except OSError as error:
        raise TableError(
            f"{path} cannot be read: {error.strerror}. Run the batch that makes it first."
        ) from None


def _name(uri: str) -> str:
    return uri.removeprefix("file://")


def _count(number: int, noun: str) -> str:
    return noun if number == 1 else noun + "s"


def _cut(number: int, noun: str, where: str) -> str:
    return f"The first {_ROWS} of {number:,} {noun}; {where} has all." if number > _ROWS else ""
