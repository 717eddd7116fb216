"""A profile: what a window of results looks like, in counts and distributions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.errors import TableError
from fer.expressions import EXPRESSIONS
from fer.files import json_text
from fer.monitoring.distribution import Distribution
from fer.monitoring.statistics import entropy

if TYPE_CHECKING:
    import pyarrow as pa

    from fer.monitoring.history import Analysis, History

SCHEMA: Final = "fer-baseline/1"
REFERENCE_SCHEMA: Final = "fer-reference/1"


@dataclass(frozen=True)
class Profile:
    """One window of results.

    A part that is None was not recorded: a model package's reference.json knows of faces only.

    Attributes:
        title: which window it is, for people.
        expressions: faces by predicted expression, all seven names in index order.
        values: distributions of the watched values, by the names of `VALUES`.
        pictures: analysed, with and without faces.
        without_face: of these.
        quarantined: pictures that could not be read; not among `pictures`.
        runs: that made the rows.
        since: when the first row was made.
        until: when the last one was.
        analysis: of the model that made them, as `Analysis.document()` has it.
    """

    title: str
    expressions: dict[str, int]
    values: dict[str, Distribution]
    pictures: int | None = None
    without_face: int | None = None
    quarantined: int | None = None
    runs: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    analysis: dict[str, Any] = field(default_factory=dict)

    @property
    def faces(self) -> int:
        """Faces with an expression."""
        return sum(self.expressions.values())

    @classmethod
    def of(cls, history: History, title: str, analysis: Analysis) -> Profile:
        """Of a window that one model made."""
        import pyarrow.compute as pc

        rows, refused = history.rows, history.refused
        indices = rows.column("face")
        # Each picture has one row that says so: its first face, or that it has none.
        with_face = int(pc.sum(pc.equal(indices, 0)).as_py() or 0)
        without = int(indices.null_count)
        faces = rows.filter(pc.is_valid(indices))
        counts = {
            one["values"]: one["counts"]
            for one in faces.column("expression").value_counts().to_pylist()
        }
        times = [
            time
            for table in (rows, refused)
            if table.num_rows
            for time in pc.min_max(table.column("analysed_at")).as_py().values()
        ]
        run_ids = {
            one for table in (rows, refused) for one in table.column("run_id").unique().to_pylist()
        }
        return cls(
            title=title,
            expressions={name: int(counts.get(name, 0)) for name in EXPRESSIONS},
            values={name: Distribution.of(value.read(faces)) for name, value in VALUES.items()},
            pictures=with_face + without,
            without_face=without,
            quarantined=int(refused.num_rows),
            runs=len(run_ids),
            since=min(times, default=None),
            until=max(times, default=None),
            analysis=analysis.document(),
        )

    def document(self) -> dict[str, Any]:
        """For JSON: counts, and quantiles of every value; no address and no face."""
        return {
            "schema": SCHEMA,
            "title": self.title,
            "analysis": self.analysis,
            "since": self.since and self.since.isoformat(),
            "until": self.until and self.until.isoformat(),
            "runs": self.runs,
            "pictures": self.pictures,
            "without_face": self.without_face,
            "quarantined": self.quarantined,
            "faces": self.faces,
            "expressions": self.expressions,
            "values": {name: value.document() for name, value in self.values.items()},
        }

    def to_json(self) -> bytes:
        """The bytes of a baseline file."""
        return json_text(self.document()).encode()


def read_profile(data: bytes, where: str) -> Profile:
    """A baseline file, or a model package's reference.json.

    Args:
        data: the file's bytes.
        where: the file, for messages.

    Raises:
        TableError: damaged, or of another schema.
    """
    try:
        document = json.loads(data)
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema == REFERENCE_SCHEMA:
            return _of_reference(document, where)
        if schema == SCHEMA:
            return _of_baseline(document, where)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TableError(
            f"{where} is damaged ({type(error).__name__}: {error}). Write it again: "
            "fer drift baseline RESULTS"
        ) from None
    raise TableError(
        f"{where} has schema {schema or 'none'}; a baseline has {SCHEMA}. Make one with "
        "`fer drift baseline RESULTS`, or name a model package's reference.json."
    )


def _of_baseline(document: Mapping[str, Any], where: str) -> Profile:
    def count(name: str) -> int | None:
        value = document[name]
        return None if value is None else _count(value)

    def time(name: str) -> datetime | None:
        value = document[name]
        return None if value is None else datetime.fromisoformat(value)

    known = {name: Distribution.parse(one) for name, one in document["values"].items()}
    return Profile(
        title=f"{document['title']} ({where})",
        expressions=_seven({name: _count(n) for name, n in document["expressions"].items()}),
        values={name: known[name] for name in VALUES if name in known},
        pictures=count("pictures"),
        without_face=count("without_face"),
        quarantined=count("quarantined"),
        runs=count("runs"),
        since=time("since"),
        until=time("until"),
        analysis=dict(document["analysis"]),
    )


def _of_reference(document: Mapping[str, Any], where: str) -> Profile:
    """What the model said of the test images that it was evaluated on."""
    images = _count(document["images"])
    counts = {name: round(share * images) for name, share in document["expressions"].items()}
    confidence = Distribution.from_quantiles(images, document["confidence_quantiles"])
    return Profile(
        title=f"test images of the model's evaluation ({where})",
        expressions=_seven(counts),
        values={"confidence": confidence},
    )


def _seven(counts: Mapping[str, int]) -> dict[str, int]:
    if set(counts) != set(EXPRESSIONS):
        raise ValueError(f"expressions {', '.join(sorted(counts))}")
    return {name: counts[name] for name in EXPRESSIONS}


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


@dataclass(frozen=True)
class Value:
    """A number that every face has, and what it is called."""

    name: str
    meaning: str
    unit: str
    read: Callable[[pa.Table], NDArray[np.float64]]


def _column(name: str) -> Callable[[pa.Table], NDArray[np.float64]]:
    def read(faces: pa.Table) -> NDArray[np.float64]:
        # Null becomes not-a-number, and `Distribution` leaves that out.
        column = faces.column(name).cast("float64")
        return np.asarray(column.to_numpy(), dtype=np.float64)

    return read


def _entropies(faces: pa.Table) -> NDArray[np.float64]:
    columns = [_column(f"p_{name}")(faces) for name in EXPRESSIONS]
    return entropy(np.stack(columns, axis=1))


VALUES: Final[dict[str, Value]] = {
    one.name: one
    for one in (
        Value("confidence", "probability of the expression named", "", _column("confidence")),
        Value("entropy", "0 sure of one expression, 1 undecided among all", "", _entropies),
        Value("detection_score", "the detector's score", "", _column("detection_score")),
        Value("face_size", "longer side of the face's box", "px", _column("quality_size")),
        Value("brightness", "mean grey level of the crop", "", _column("quality_brightness")),
        Value("sharpness", "variance of the crop's Laplacian", "", _column("quality_sharpness")),
    )
}
"""The watched values by name, in the order in which they are shown."""
