"""A batch that several workers share: a driver lists and counts, workers analyse and write.

The driver gives out shares of about equal bytes, a few more than there are workers at a time, and
gets a small summary of each back; pictures and results never pass through it, so its memory does
not depend on how many there are. A worker writes its share as one part, under a name that follows
from the share's pictures: a share that is done again, because its worker was lost, replaces or
finds its part, and every picture is in the results exactly once.

Who the workers are is the `Pool`'s affair; the flow batch-inference has one of Dask workers.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fer.errors import DetectorError, PackageError, UnavailableError
from fer.inference.batch import (
    GIVE_UP,
    LISTED,
    BatchRun,
    BatchSummary,
    Progress,
    faces_digest,
    require_pictures,
)
from fer.inference.inputs import Inputs, open_inputs
from fer.inference.objects import S3
from fer.inference.outputs import Output, open_output
from fer.inference.recognizer import Recognizer
from fer.inference.recorded import PARTS, QUARANTINE
from fer.inference.results import quarantine_schema, read_part
from fer.inference.shares import Share, split

if TYPE_CHECKING:
    from fer.params import FacesParams

SHARE_BYTES = 128 << 20
CHUNK = 256
"""Pictures of a share whose faces a worker holds at a time."""


BARREN = 3
"""As many shares in a row without a result mean that something is wrong with all."""


@dataclass(frozen=True)
class ShareJob:
    """What a worker must know to do shares of a run; all of it plain values.

    Attributes:
        model: a version, never an alias, which might move meanwhile; or a package's folder.
        model_digest: what the worker's model must be.
        faces: section faces of the parameters, as JSON.
        faces_digest: what `fer.inference.batch.faces_digest` must be of the worker's recognizer.
    """

    run_id: str
    input: str
    output: str
    model: str
    model_digest: str
    registry: str | None
    faces: str
    faces_digest: str
    csv: bool

    def as_dict(self) -> dict[str, Any]:
        """The job as a JSON object."""
        return asdict(self)


class Pool(Protocol):
    """Workers that do shares. `HerePool` is the simplest one."""

    def room(self) -> int:
        """How many shares may be under way at a time; asked before each is given out."""

    def submit(self, job: ShareJob, share: Share, number: int) -> None:
        """Give a share out: `run_share(job, share)`. `number` counts from 1."""

    def take(self) -> BatchSummary:
        """Wait for a share, whichever ends first, and give its summary or raise its error."""

    def drain(self) -> None:
        """Give out nothing more, and return when nothing is under way."""


class HerePool:
    """One worker: this process."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[ShareJob, Share]] = deque()

    def room(self) -> int:
        return 1

    def submit(self, job: ShareJob, share: Share, number: int) -> None:
        self._waiting.append((job, share))

    def take(self) -> BatchSummary:
        return run_share(*self._waiting.popleft())

    def drain(self) -> None:
        self._waiting.clear()


def run_shares(
    input: str | Path,
    output: str | Path,
    *,
    pool: Pool,
    model: str | Path | None = None,
    registry: str | None = None,
    faces: FacesParams | None = None,
    share_bytes: int = SHARE_BYTES,
    csv: bool = False,
    progress: Progress | None = None,
) -> BatchSummary:
    """`fer.inference.batch.run_batch`, done by a pool of workers.

    Input, output and registry must be reachable under the same address from every worker. What
    fits in one share is done here: a few pictures are not worth a pool.

    Args:
        input, output, model, registry, faces, csv: as for `run_batch`.
        pool: who does the shares.
        share_bytes: of pictures per share, which is what a lost worker's successor does again.
        progress: called with pictures done and in all after every share.

    Raises:
        PackageError: a worker has another model under the same name.
        DetectorError: a worker lacks the file of landmarks that the driver has, or has it alone.
        What `run_batch` raises, and what the pool does.
    """
    started = time.monotonic()
    inputs, sink = open_inputs(input), open_output(output)
    require_pictures(inputs, input)
    with sink.only_writer():
        recognizer = Recognizer.load(model, registry=registry, faces=faces)
        run = BatchRun(inputs, sink, recognizer, csv)
        here = recognizer.model
        job = ShareJob(
            run_id=run.summary.run_id,
            input=_everywhere(input),
            output=_everywhere(output),
            # Without a version it is a path, or the model that ships with the library.
            model=f"{here.name}:{here.version}" if here.version else _everywhere(model or ""),
            model_digest=here.digest,
            registry=registry_address(registry),
            faces=recognizer.faces.model_dump_json(),
            faces_digest=run.summary.faces_digest,
            csv=csv,
        )
        share_out(run, job, pool, share_bytes, progress)
        return run.finish(started)


def share_out(
    run: BatchRun, job: ShareJob, pool: Pool, share_bytes: int, progress: Progress | None = None
) -> None:
    """Have a pool do what a run has still to do, and count it in `run.summary`."""
    run.begin()
    total = (run.inputs.count() or 0) if progress else 0
    shares = split(run.todo(), share_bytes)
    first = list(islice(shares, 2))
    if len(first) < 2:
        for share in first:
            add(run.summary, share_run(run).take(share))
    else:
        _give_out(run, job, pool, chain(first, shares), progress, total)
    if progress:  # only now is the number known of what lists as it goes
        progress(run.summary.pictures, run.summary.pictures)


def _give_out(
    run: BatchRun,
    job: ShareJob,
    pool: Pool,
    shares: Iterator[Share],
    progress: Progress | None,
    total: int,
) -> None:
    summary = run.summary
    under_way = given = 0
    barren: list[BatchSummary] = []  # the last shares of which nothing could be analysed
    try:
        while True:
            while under_way < pool.room() and (share := next(shares, None)) is not None:
                given += 1
                pool.submit(job, share, given)
                under_way += 1
            if not under_way:
                return
            done = pool.take()
            under_way -= 1
            add(summary, done)
            barren = [] if done.analysed or done.quarantined else [*barren, done]
            if len(barren) >= BARREN and sum(one.failed for one in barren) >= GIVE_UP:
                reasons = [one["reason"] for one in done.problems] or ["see the workers' logs."]
                raise UnavailableError(
                    f"Of {len(barren)} shares in a row no picture could be analysed, of the last "
                    f"because: {reasons[-1]} Correct that and run the same command again: what is "
                    "recorded is kept."
                )
            if progress:
                at = summary.skipped + summary.analysed + summary.quarantined + summary.failed
                progress(at, total)
    finally:
        # The output is this run's until the last worker has written to it.
        pool.drain()


def run_share(job: ShareJob, share: Share) -> BatchSummary:
    """Do one share, in whatever process this is; the summary counts that share alone.

    Raises:
        PackageError: the model is not the one that the run began with.
        DetectorError: faces are not described as the run began to.
        StoreError: input or output cannot be used from here.
        ConflictError: another run has taken the output over.
    """
    inputs, sink, recognizer = _opened(job)
    return ShareRun(inputs, sink, recognizer, job.csv, job.run_id).take(share)


def lost_share(job: ShareJob, share: Share, reason: str) -> BatchSummary:
    """The summary of a share that no worker lived to finish: its pictures failed."""
    return BatchSummary(
        run_id=job.run_id,
        input=job.input,
        output=job.output,
        model_name=job.model,
        model_version=None,
        model_digest=job.model_digest,
        detector="",
        faces_digest="",
        started_at="",
        failed=len(share.pictures),
        problems=[
            {"kind": "failed", "uri": one.uri, "reason": reason} for one in share.pictures[:LISTED]
        ],
    )


def share_run(run: BatchRun) -> ShareRun:
    """For a share of `run` in the same process."""
    return ShareRun(run.inputs, run.sink, run.recognizer, run.csv, run.summary.run_id)


def add(summary: BatchSummary, share: BatchSummary) -> None:
    """Count in what was done of one share of a run."""
    for name in ("analysed", "faces", "without_face", "quarantined", "failed"):
        setattr(summary, name, getattr(summary, name) + getattr(share, name))
    counts = Counter(summary.expressions) + Counter(share.expressions)
    summary.expressions = dict(sorted(counts.items()))
    summary.problems += share.problems[: LISTED - len(summary.problems)]
    summary.parts += share.parts


class ShareRun(BatchRun):
    """A worker's side of a run: one share, read, analysed and written."""

    def take(self, share: Share) -> BatchSummary:
        """Analyse a share and write it as one part, whole or not at all; the share's figures.

        The part is named after the pictures of the share, so that doing it again replaces it, and
        the names of different shares differ. Of a share whose part is there, that part is
        counted and nothing is done.

        Raises:
            ConflictError: another run has begun since at the output.
        """
        keys = b"".join(self.recorded.key(one.uri, one.etag) for one in share.pictures)
        name = hashlib.blake2b(keys, digest_size=16).hexdigest()
        if self._count_recorded(share, name):
            return self.summary
        rows: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []
        todo = iter(share.pictures)
        with self._looking() as look:
            while part := list(islice(todo, CHUNK)):
                seen = self._once_more(look, list(self._looked(look, part)))
                more_rows, more_refused = self._classify(seen)
                rows += more_rows
                refused += more_refused
        self.require_ownership()
        self._write(rows, refused, name)
        return self.summary

    def _count_recorded(self, share: Share, name: str) -> bool:
        """Count in a share's part that is there: its worker was lost after it had written it."""
        part = f"{PARTS}/part-{name}.parquet"
        if not self.sink.exists(part):
            return False
        summary = self.summary
        table = read_part(self.sink.read(part), f"{self.sink.uri}/{part}")
        rows = table.select(["uri", "face", "expression"]).to_pylist()
        summary.analysed = len({row["uri"] for row in rows})
        summary.without_face = sum(row["face"] is None for row in rows)
        summary.faces = len(rows) - summary.without_face
        counts = Counter(row["expression"] for row in rows if row["face"] is not None)
        summary.expressions = dict(sorted(counts.items()))
        summary.parts = [part]
        refused = f"{QUARANTINE}/part-{name}.parquet"
        if self.sink.exists(refused):
            where = f"{self.sink.uri}/{refused}"
            bad = read_part(self.sink.read(refused), where, quarantine_schema()).to_pylist()
            summary.quarantined = len(bad)
            for row in bad:
                self._name_problem("quarantined", row["uri"], row["reason"])
        # Why they could not be read went with the worker; the next run tries them again.
        summary.failed = len(share.pictures) - summary.analysed - summary.quarantined
        return True


_open: dict[ShareJob, tuple[Inputs, Output, Recognizer]] = {}
_opening = threading.Lock()


def _opened(job: ShareJob) -> tuple[Inputs, Output, Recognizer]:
    """Input, output and model of a run, opened once per process; the last ones only."""
    places = replace(job, run_id="", csv=False)
    with _opening:
        if places not in _open:
            from fer.params import FacesParams

            recognizer = Recognizer.load(
                job.model or None,
                registry=job.registry,
                faces=FacesParams.model_validate_json(job.faces),
            )
            if recognizer.model.digest != job.model_digest:
                raise PackageError(
                    f"A worker has another model than the run under {job.model or 'its own name'}: "
                    f"{recognizer.model.digest[:12]}, not {job.model_digest[:12]}. Give all "
                    "workers the same registry, or the same package at the same path."
                )
            if faces_digest(recognizer) != job.faces_digest:
                raise DetectorError(
                    "A worker tells faces' poses and the run does not, or the other way round: "
                    "only one of them has dlib's file of landmarks. Put it on all machines, where "
                    "FER_LANDMARKS says, or on none."
                )
            opened = open_inputs(job.input), open_output(job.output), recognizer
            _open.clear()
            _open[places] = opened
        return _open[places]


def _everywhere(place: str | Path) -> str:
    """An address that holds in another working directory too."""
    text = str(place)
    return text if not text or text.startswith(S3) else os.path.abspath(Path(text).expanduser())


def registry_address(named: str | None) -> str | None:
    """The registry's address (FER_REGISTRY where none is named), as it holds everywhere."""
    from fer.settings import settings

    place = named or settings().registry
    return _everywhere(place) if place else None
