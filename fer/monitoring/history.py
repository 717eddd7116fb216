"""What batches have recorded at one place, and by which model: what drift is looked for in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer.errors import TableError, UsageError
from fer.expressions import EXPRESSIONS
from fer.inference.outputs import Output, open_output
from fer.inference.recorded import PARTS, QUARANTINE
from fer.inference.results import quarantine_schema, read_part, results_schema

if TYPE_CHECKING:
    import pyarrow as pa

# No uri: what is watched are distributions, and whose face it was is none of its business.
_COLUMNS: Final = (
    "face",
    "detection_score",
    "quality_size",
    "quality_sharpness",
    "quality_brightness",
    *(f"p_{name}" for name in EXPRESSIONS),
    "expression",
    "confidence",
    "detector",
    "faces_digest",
    "model_name",
    "model_version",
    "model_digest",
    "run_id",
    "analysed_at",
)
_REFUSED: Final = ("faces_digest", "model_digest", "run_id", "analysed_at")

Progress = Callable[[int, int], None]
"""Called with files read and files in all."""


@dataclass(frozen=True)
class Analysis:
    """Which model looked, on faces found in which way: only results of one are compared.

    Attributes:
        name: of the model.
        version: in the registry; None if it was not registered.
        digest: of the model's bytes.
        detector: that found the faces.
        faces_digest: of the `faces` parameters.
    """

    name: str
    version: int | None
    digest: str
    detector: str
    faces_digest: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version or self.digest[:12]}"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "detector": self.detector,
            "faces_digest": self.faces_digest,
        }


@dataclass(frozen=True)
class Period:
    """From `since` to `until`, both included; None is open."""

    since: datetime | None = None
    until: datetime | None = None

    def __str__(self) -> str:
        first, last = (one and f"{one:%Y-%m-%d %H:%M}" for one in (self.since, self.until))
        return f"{first or 'the beginning'} to {last or 'now'}"


@dataclass(frozen=True)
class History:
    """Result rows and quarantine rows, oldest first.

    Attributes:
        rows: columns of the results schema without uri and box; one row per face, and one with
            null face per picture without any.
        refused: columns of the quarantine schema; one row per picture that could not be read.
    """

    rows: pa.Table
    refused: pa.Table

    @property
    def faces(self) -> int:
        """Faces found."""
        return int(self.rows.num_rows - self.rows.column("face").null_count)

    @property
    def newest(self) -> datetime | None:
        """When the last row was made."""
        import pyarrow.compute as pc

        found = [
            pc.max(table.column("analysed_at")).as_py()
            for table in (self.rows, self.refused)
            if table.num_rows
        ]
        return max(found) if found else None

    def analyses(self) -> list[Analysis]:
        """Who made the rows; the one with the newest row first."""
        keys = ["model_name", "model_version", "model_digest", "detector", "faces_digest"]
        groups = self.rows.group_by(keys).aggregate([("analysed_at", "max")]).to_pylist()
        groups.sort(key=lambda one: (one["analysed_at_max"], one["model_digest"]), reverse=True)
        return [Analysis(*(one[key] for key in keys)) for one in groups]

    def by(self, analysis: Analysis) -> History:
        """Only what one model and one set of `faces` parameters made."""
        import pyarrow.compute as pc

        def own(table: pa.Table) -> pa.Table:
            return table.filter(
                pc.and_(
                    pc.equal(table.column("model_digest"), analysis.digest),
                    pc.equal(table.column("faces_digest"), analysis.faces_digest),
                )
            )

        return History(own(self.rows), own(self.refused))

    def during(self, period: Period) -> History:
        """Only what was made in a period."""
        return History(_between(self.rows, period), _between(self.refused, period))

    def after(self, moment: datetime) -> History:
        """Only what was made later than a moment."""
        import pyarrow.compute as pc

        def later(table: pa.Table) -> pa.Table:
            return table.filter(pc.greater(table.column("analysed_at"), _scalar(moment)))

        return History(later(self.rows), later(self.refused))

    def last_runs(self, number: int) -> History:
        """Only what the last runs made; a run that found nothing new made no row."""
        import pyarrow as pa
        import pyarrow.compute as pc

        ended: dict[str, datetime] = {}
        for table in (self.rows, self.refused):
            for run in table.group_by("run_id").aggregate([("analysed_at", "max")]).to_pylist():
                name, last = run["run_id"], run["analysed_at_max"]
                ended[name] = max(last, ended.get(name, last))
        kept = sorted(ended, key=lambda name: (ended[name], name))[-number:]

        def own(table: pa.Table) -> pa.Table:
            names = table.column("run_id").cast(pa.string())
            return table.filter(pc.is_in(names, value_set=pa.array(kept, pa.string())))

        return History(own(self.rows), own(self.refused))

    def first_faces(self, number: int) -> History:
        """The oldest rows with at least so many faces, whole parts; all where there are fewer.

        A part is what a batch records at one moment, so no picture is cut in two.
        """
        import pyarrow.compute as pc

        found = self.rows.filter(pc.is_valid(self.rows.column("face")))
        if found.num_rows < number:
            return self
        last = found.column("analysed_at")[number - 1].as_py()
        return self.during(Period(until=last))


def read_history(where: str | Path, progress: Progress | None = None) -> History:
    """All results and the quarantine of a batch's output.

    Args:
        where: a folder or s3://bucket/prefix that batches write to.
        progress: called after every file.

    Raises:
        TableError: no results there, or a damaged or unknown file; the message names it. What
            is left would be another population, so none of it is judged.
        StoreError: the place cannot be read.
        UsageError: it is a file or another scheme.
    """
    place = open_output(where)
    parts, refused = _files(place, PARTS), _files(place, QUARANTINE)
    if not parts:
        raise TableError(
            f"{where} holds no results, so there is nothing to compare. Make some with "
            f"`fer batch INPUT {where}`, or name the folder that batches write to."
        )
    total = len(parts) + len(refused)
    tables: dict[str, list[Any]] = {PARTS: [], QUARANTINE: []}
    for done, name in enumerate((*parts, *refused), start=1):
        folder = name.split("/", 1)[0]
        schema = results_schema() if folder == PARTS else quarantine_schema()
        table = read_part(place.read(name), f"{place.uri}/{name}", schema)
        tables[folder].append(_slim(table, _COLUMNS if folder == PARTS else _REFUSED))
        if progress:
            progress(done, total)
    return history_of(tables[PARTS], tables[QUARANTINE])


def history_of(parts: list[pa.Table], refused: list[pa.Table]) -> History:
    """Tables of the results and of the quarantine schema, put in order of time.

    Raises:
        TableError: an expression that is not one of the seven.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    empty = _slim(results_schema().empty_table(), _COLUMNS)
    none = _slim(quarantine_schema().empty_table(), _REFUSED)
    rows = pa.concat_tables([empty, *(_slim(one, _COLUMNS) for one in parts)])
    rows = rows.unify_dictionaries()
    bad = pa.concat_tables([none, *(_slim(one, _REFUSED) for one in refused)])
    unknown = set(pc.unique(rows.column("expression")).to_pylist()) - {None, *EXPRESSIONS}
    if unknown:
        raise TableError(
            f"The results name {', '.join(sorted(unknown))}, which is none of the seven "
            "expressions. Write results of other models to another output."
        )
    ascending = [("analysed_at", "ascending")]
    return History(rows.sort_by(ascending), bad.unify_dictionaries().sort_by(ascending))


def choose(history: History, model: str | None) -> Analysis:
    """Whose results to watch: the newest, or the newest of a model that is named.

    Args:
        history: of one place.
        model: name, name:7, or the beginning of a digest; None is whoever was last.

    Raises:
        UsageError: no such results; the message lists whose there are.
    """
    analyses = history.analyses()
    for one in analyses:
        if model is None or model in {one.name, str(one), f"{one.name}:{one.version}"}:
            return one
        if len(model) >= 6 and one.digest.startswith(model):
            return one
    found = ", ".join(dict.fromkeys(str(one) for one in analyses)) or "nobody"
    raise UsageError(
        f"There are no results of {model}; name one by name, name:version or the beginning of "
        f"its digest. There are results of {found}."
    )


def moment(text: str, *, last: bool = False) -> datetime:
    """A date or a time as ISO 8601 writes it; without a zone it is UTC.

    Args:
        text: such as 2026-11-23 or 2026-11-23T14:00+01:00.
        last: of a date, its end rather than its beginning.

    Raises:
        UsageError: it is neither.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no date. Write 2026-11-23, or 2026-11-23T14:00 (UTC)."
        ) from None
    if last and "T" not in text.upper() and " " not in text.strip():
        found += timedelta(days=1) - timedelta(milliseconds=1)  # results count milliseconds
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _slim(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Some columns; of texts, which say the same in every row, each is kept once."""
    import pyarrow as pa

    slim = table.select(columns)
    for index, field in enumerate(slim.schema):
        if pa.types.is_string(field.type):
            values = slim.column(index).dictionary_encode()
            slim = slim.set_column(index, field.name, values)
    return slim


def _files(place: Output, folder: str) -> list[str]:
    return [name for name in place.names(folder) if name.endswith(".parquet")]


def _between(table: pa.Table, period: Period) -> pa.Table:
    import pyarrow.compute as pc

    if period.since is not None:
        table = table.filter(pc.greater_equal(table.column("analysed_at"), _scalar(period.since)))
    if period.until is not None:
        table = table.filter(pc.less_equal(table.column("analysed_at"), _scalar(period.until)))
    return table


def _scalar(moment: datetime) -> Any:
    import pyarrow as pa

    return pa.scalar(moment, type=pa.timestamp("us", tz="UTC"))
