"""A folder or bucket of photographs in, Parquet out; killed at any moment, it can go on.

Pictures go through in parts. A part is one Parquet file, written whole after its pictures
are done: what it names is done, and nothing else is. A run skips whatever the parts at the
output name already, so a killed run goes on where its last part ended, a finished one takes
only new pictures, and every picture is there exactly once per content, model and `faces`
parameters; once more when the landmarks' file has come, which brings the poses. Memory depends on
the part size and the largest picture, not on their number.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.errors import (
    ConflictError,
    DetectorError,
    ImageError,
    StoreError,
    UnavailableError,
    UsageError,
)
from fer.inference.inputs import Inputs, PictureFile, open_inputs
from fer.inference.outputs import Output, open_output
from fer.inference.recognizer import Prediction, Recognizer
from fer.inference.recorded import PARTS, QUARANTINE, Recorded
from fer.inference.results import (
    face_columns,
    quarantine_schema,
    results_schema,
    to_csv,
    to_parquet,
    to_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from fer.faces.finder import FoundFace
    from fer.params import FacesParams

SUMMARY = "summary.json"
OWNER = "owner.json"
LISTED = 50  # how many bad pictures the summary names; the quarantine names all
PAUSES = (5.0, 20.0)  # s before another look at what storage did not give: a server restarts
GIVE_UP = 20  # as many unreadable pictures in a row mean that the input is gone

Progress = Callable[[int, int], None]
"""Called with pictures done and pictures in all; 0 in all means not known."""


@dataclass
class BatchSummary:
    """What one run did. `summary.json` and `runs/<run_id>.json` hold it.

    Attributes:
        pictures: how many the input holds.
        skipped: of these, recorded by an earlier run (`quarantined_before` among them).
        analysed: read and searched for faces in this run; their rows are in the parts.
        quarantined: not decodable or too large; never tried again unless they change.
        failed: could not be read for now; the next run tries again.
        ignored: files whose name is no picture's.
        problems: the first quarantined and failed ones, with reasons.
    """

    run_id: str
    input: str
    output: str
    model_name: str
    model_version: int | None
    model_digest: str
    detector: str
    faces_digest: str
    started_at: str
    pictures: int = 0
    skipped: int = 0
    analysed: int = 0
    faces: int = 0
    without_face: int = 0
    quarantined: int = 0
    quarantined_before: int = 0
    failed: int = 0
    ignored: int = 0
    expressions: dict[str, int] = field(default_factory=dict)
    problems: list[dict[str, str]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    seconds: float = 0.0
    pictures_per_second: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class _Seen:
    """One picture after detection: faces, or why there are none."""

    file: PictureFile
    width: int = 0
    height: int = 0
    faces: tuple[FoundFace, ...] = ()
    quarantine: str = ""
    failure: str = ""
    passing: bool = False  # the failure: storage did not answer just then


Look = Callable[[Iterable[PictureFile]], Iterator[_Seen]]
"""Looks at pictures and gives what it saw, in their order."""


def run_batch(
    input: str | Path,
    output: str | Path,
    *,
    model: str | Path | Recognizer | None = None,
    registry: str | None = None,
    faces: FacesParams | None = None,
    part_size: int = 256,
    csv: bool = False,
    progress: Progress | None = None,
) -> BatchSummary:
    """Analyse every picture of a folder or S3 prefix that the output does not hold yet.

    Writes under `output`: `parts/part-*.parquet` (the results schema, see
    `fer.inference.results`), `quarantine/part-*.parquet` (what cannot be decoded, and why),
    `summary.json`, `runs/<run_id>.json`.

    Args:
        input: a folder (searched with its sub-folders), one picture, or s3://bucket/prefix.
        output: a folder or s3://bucket/prefix.
        model: a reference as for `Recognizer.load`, or a loaded one (which has its own `faces`).
        registry: where a registered model comes from; None is FER_REGISTRY.
        faces: detector and crop; None is their defaults.
        part_size: pictures per part: what a killed run may have to do again.
        csv: write each part as CSV too, also those of earlier runs.
        progress: called after every picture.

    Raises:
        UsageError: the input is absent or holds no picture; the output is a file.
        StoreError: the output cannot be written.
        UnavailableError: the input went away.
        ConflictError: another batch is writing to the same folder, or has begun since at the
            same prefix.
        ModelReferenceError, PackageError, RegistryError, DetectorError: see `Recognizer.load`.
    """
    if part_size < 1:
        raise UsageError(f"part_size is {part_size}; it must be at least 1.")
    started = time.monotonic()
    inputs, sink = open_inputs(input), open_output(output)
    require_pictures(inputs, input)
    with sink.only_writer():
        recognizer = (
            model
            if isinstance(model, Recognizer)
            else Recognizer.load(model, registry=registry, faces=faces)
        )
        run = BatchRun(inputs, sink, recognizer, csv)
        run.go(part_size, progress)
        return run.finish(started)


def require_pictures(inputs: Inputs, name: object) -> None:
    """See that there is at least one picture.

    Raises:
        UsageError: there is none; `name` is how the input was named.
    """
    if next(inputs.pictures(), None) is None:
        raise UsageError(
            f"{name} holds no picture ({inputs.ignored} other files, {len(inputs.unreadable)} "
            "unreadable). Name a folder or prefix with .jpg, .png, .webp, .tif or similar files."
        )


class BatchRun:
    """One run over an input, or a worker's part in it: recorded, counted, and still to do.

    Args:
        inputs: what is read.
        sink: what is written.
        recognizer: the model and the detector.
        csv: write each part as CSV too.
        run_id: of the run that a worker has a share of; None begins a run.
    """

    def __init__(
        self,
        inputs: Inputs,
        sink: Output,
        recognizer: Recognizer,
        csv: bool,
        run_id: str | None = None,
    ) -> None:
        now = datetime.now(UTC)
        self.inputs, self.sink, self.recognizer, self.csv = inputs, sink, recognizer, csv
        self.summary = BatchSummary(
            run_id=run_id or f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
            input=inputs.uri,
            output=sink.uri,
            model_name=recognizer.model.name,
            model_version=recognizer.model.version,
            model_digest=recognizer.model.digest,
            detector=recognizer.detector.name,
            faces_digest=faces_digest(recognizer),
            started_at=now.isoformat(timespec="seconds"),
        )
        self.recorded = Recorded(sink, recognizer.model.digest, self.summary.faces_digest)
        self._failures_in_a_row = 0

    def go(self, part_size: int, progress: Progress | None) -> None:
        """All of it, here, in parts of `part_size` pictures.

        Raises:
            ConflictError: another run has begun since at the output.
        """
        self.begin()
        total = (self.inputs.count() or 0) if progress else 0
        todo = self.todo()
        with self._looking() as look:
            while part := list(islice(todo, part_size)):
                before = self.summary.pictures - len(part)
                seen = []
                for done, one in enumerate(self._looked(look, part), start=1):
                    seen.append(one)
                    if progress:
                        progress(before + done, total)
                rows, refused = self._classify(self._once_more(look, seen))
                self.require_ownership()
                self._write(rows, refused)
        if progress:  # only now is the number known of what lists as it goes
            progress(self.summary.pictures, self.summary.pictures)

    def finish(self, started: float) -> BatchSummary:
        """Write and return the summary; `started` is when the run began (time.monotonic)."""
        summary = self.summary
        for uri, reason in self.inputs.unreadable:
            self._fail(uri, reason)
        summary.ignored = self.inputs.ignored
        summary.seconds = round(time.monotonic() - started, 3)
        done = summary.analysed + summary.quarantined + summary.failed
        summary.pictures_per_second = round(done / summary.seconds, 3) if summary.seconds else 0.0
        document = (json.dumps(summary.as_dict(), indent=2, sort_keys=True) + "\n").encode()
        self.sink.write(f"runs/{summary.run_id}.json", document)
        self.sink.write(SUMMARY, document)
        return summary

    def begin(self) -> None:
        """Take the output over from earlier runs, and learn from it which pictures are done."""
        # First this, then the look: what an earlier run or its workers may still write is then
        # either seen here or refused there.
        document = json.dumps({"run_id": self.summary.run_id}) + "\n"
        self.sink.write(OWNER, document.encode())
        self.recorded.load(csv=self.csv)

    def require_ownership(self) -> None:
        """Leave the output to a run that has begun since: it does what this one has not written.

        Its parts have other bounds, and so other names, where a picture has come in between.

        Raises:
            ConflictError: there is such a run.
        """
        owner = json.loads(self.sink.read(OWNER))["run_id"]
        if owner != self.summary.run_id:
            raise ConflictError(
                f"Run {owner} has taken over {self.sink.uri}, so run {self.summary.run_id} writes "
                "nothing more there. Let one run at a time write to an output."
            )

    @contextmanager
    def _looking(self) -> Iterator[Look]:
        """A function that looks at pictures in threads and gives what it saw, in their order."""
        with ThreadPoolExecutor(_workers(), thread_name_prefix="faces") as pool:
            try:
                yield lambda pictures: pool.map(self._look, pictures)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def todo(self) -> Iterator[PictureFile]:
        """Pictures that no part names yet; counts all."""
        for picture in self.inputs.pictures():
            self.summary.pictures += 1
            key = self.recorded.key(picture.uri, picture.etag)
            if key in self.recorded.analysed or key in self.recorded.quarantined:
                self.summary.skipped += 1
                self.summary.quarantined_before += key in self.recorded.quarantined
            else:
                yield picture

    def _look(self, file: PictureFile) -> _Seen:
        """Read, decode and search one picture, in a worker thread."""
        try:
            picture = self.recognizer.read(self.inputs.read(file))
            found = self.recognizer.find(picture)
        except ImageError as error:
            return _Seen(file, quarantine=str(error))
        except DetectorError:
            raise
        except StoreError as error:
            return _Seen(file, failure=str(error), passing=isinstance(error, UnavailableError))
        except Exception as error:  # one picture never ends the run
            return _Seen(file, failure=f"{type(error).__name__}: {error}")
        return _Seen(file, picture.width, picture.height, tuple(found))

    def _looked(self, look: Look, part: Iterable[PictureFile]) -> Iterator[_Seen]:
        """What was seen of each picture, in order.

        Raises:
            UnavailableError: the input has gone; rather than fail every picture one by one.
        """
        for one in look(part):
            self._failures_in_a_row = self._failures_in_a_row + 1 if one.failure else 0
            if self._failures_in_a_row >= GIVE_UP:
                raise UnavailableError(
                    f"{GIVE_UP} pictures in a row could not be read, the last because: "
                    f"{one.failure} Correct that and run the same command again: what is recorded "
                    "is kept."
                )
            yield one

    def _once_more(self, look: Look, seen: list[_Seen]) -> list[_Seen]:
        """The same, after another look at those pictures that storage did not give just then."""
        for pause in PAUSES:
            places = [place for place, one in enumerate(seen) if one.passing]
            if not places:
                break
            time.sleep(pause)
            for place, one in zip(places, look([seen[it].file for it in places]), strict=True):
                seen[place] = one
        return seen

    def _classify(self, seen: list[_Seen]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of results and of the quarantine; the faces are classified together."""
        crops = [face.crop for one in seen for face in one.faces]
        scores = iter(self.recognizer.classifier.probabilities(crops))
        now = datetime.now(UTC)
        rows: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []
        counts = Counter(self.summary.expressions)
        for one in seen:
            if one.failure:
                self._fail(one.file.uri, one.failure)
            elif one.quarantine:
                refused.append(self._identity(one.file, now) | {"reason": one.quarantine})
                self.summary.quarantined += 1
                self._name_problem("quarantined", one.file.uri, one.quarantine)
            else:
                predictions = [Prediction.of(next(scores)) for _ in one.faces]
                counts.update(prediction.expression for prediction in predictions)
                rows += self._rows(one, predictions, now)
                self.summary.analysed += 1
                self.summary.faces += len(one.faces)
                self.summary.without_face += not one.faces
        self.summary.expressions = dict(sorted(counts.items()))
        return rows, refused

    def _rows(
        self, one: _Seen, predictions: list[Prediction], now: datetime
    ) -> Iterator[dict[str, Any]]:
        base = self._identity(one.file, now) | {
            "media": "image",
            "width": one.width,
            "height": one.height,
            "frame": 0,
            "detector": self.summary.detector,
            "model_name": self.summary.model_name,
            "model_version": self.summary.model_version,
        }
        if not one.faces:
            yield base
        for index, (face, prediction) in enumerate(zip(one.faces, predictions, strict=True)):
            yield base | face_columns(index, face.detection, face.quality, prediction)

    def _identity(self, file: PictureFile, now: datetime) -> dict[str, Any]:
        return {
            "uri": file.uri,
            "etag": file.etag,
            "faces_digest": self.summary.faces_digest,
            "model_digest": self.summary.model_digest,
            "run_id": self.summary.run_id,
            "analysed_at": now,
        }

    def _write(
        self, rows: list[dict[str, Any]], refused: list[dict[str, Any]], name: str | None = None
    ) -> None:
        # In this order a kill between two writes leaves nothing to be done twice: each file
        # names other pictures, and a CSV that is missing is made up for by the next run.
        if refused:
            self._write_table(QUARANTINE, to_table(refused, quarantine_schema()), name)
        if rows:
            self._write_table(PARTS, to_table(rows, results_schema()), name)

    def _write_table(self, folder: str, table: pa.Table, name: str | None) -> None:
        if name is None:
            # A picture is recorded once, so the first one's key names the part for good.
            first = table.slice(0, 1).to_pylist()[0]
            name = self.recorded.key(first["uri"], first["etag"]).hex()
        path = f"{folder}/part-{name}"
        self.sink.write(f"{path}.parquet", to_parquet(table))
        if self.csv:
            self.sink.write(f"{path}.csv", to_csv(table))
        if folder == PARTS:
            self.summary.parts.append(f"{path}.parquet")

    def _fail(self, uri: str, reason: str) -> None:
        self.summary.failed += 1
        self._name_problem("failed", uri, reason)

    def _name_problem(self, kind: str, uri: str, reason: str) -> None:
        if len(self.summary.problems) < LISTED:
            self.summary.problems.append({"kind": kind, "uri": uri, "reason": reason})


def faces_digest(recognizer: Recognizer) -> str:
    """Of what decides a face's columns besides the model: `faces`, and whether poses are told."""
    document = recognizer.faces.model_dump_json()
    # Crops are only turned upright where there are landmarks; poses are told wherever there are.
    if not recognizer.faces.align and recognizer.landmarks is not None:
        document += " with poses"
    return hashlib.sha256(document.encode()).hexdigest()[:16]


def _workers() -> int:
    from fer.settings import settings

    return settings().threads or os.cpu_count() or 1
