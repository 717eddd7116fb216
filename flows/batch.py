"""Flow batch-inference: photographs in, expressions out, with a registered model."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import UUID

from prefect import Task, flow, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from pydantic import Field

from fer.errors import SettingsError, StoreError, UsageError
from fer.inference.batch import BatchSummary, run_batch
from fer.params import FacesParams, load_params
from fer.settings import settings
from flows import artifacts, events
from flows.data import FOLDER
from flows.lineage import tag_run
from flows.states import completed

MODEL = "fer2013-efficientnetb2@champion"
Place = Annotated[str, Field(min_length=1, max_length=2000)]
# Errors of a file system that another try does not mend.
_LASTING = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
}
_PROGRESS_SECONDS = 5.0


def storage_failed(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry condition: storage that may answer next time, not a wrong address or a bad model."""
    error: object = state.result(raise_on_failure=False)
    # Python counts every timeout as an OSError, the task's own too.
    if state.name == "TimedOut" or isinstance(error, UsageError):
        return False
    cause = error.__cause__ if isinstance(error, StoreError) else error
    if isinstance(cause, OSError) and cause.errno in _LASTING:
        return False
    return isinstance(error, StoreError | OSError)


@flow(name="batch-inference")
def batch_inference(
    input: Place | None = None,
    output: Place | None = None,
    model: Annotated[str, Field(min_length=1, max_length=500)] = MODEL,
    registry: Place | None = None,
    csv: bool = False,
    part_size: Annotated[int, Field(ge=1, le=100_000)] = 256,
    project: Path = FOLDER,
) -> dict[str, Any]:
    """Find the faces in photographs and say which expression each shows.

    May be run again at any time: pictures that an earlier run has recorded at the output are
    skipped, so a killed run goes on where it stopped and a scheduled one does only what is new.
    Pictures that cannot be read are set aside with the reason; they never end the run.

    Args:
        input: Folder, picture or s3://bucket/prefix with the photographs. Empty takes
            FER_BATCH_INPUT of the worker.
        output: Folder or s3://bucket/prefix for the results (Parquet). Empty takes
            FER_BATCH_OUTPUT of the worker.
        model: Which model: name, name@alias, name:version, or a package's folder.
        registry: Folder or s3://bucket/prefix of the model registry. Empty takes FER_REGISTRY
            of the worker. Credentials never go here; they are AWS_* in its environment.
        csv: Write the results as CSV too.
        part_size: Photographs per results file; a killed run repeats at most this many.
        project: Folder of params.yaml, whose section faces says how faces are found.
    """
    here = settings()
    source = _named("input", input or here.batch_input)
    target = _named("output", output or here.batch_output)
    summary = analyse(
        input=source,
        output=target,
        model=model,
        registry=registry,
        faces=faces_params(project),
        csv=csv,
        part_size=part_size,
    )
    show_summary(summary)
    tag_run([f"model:{summary.model_name}:{summary.model_version or summary.model_digest[:12]}"])
    events.batch_finished(summary)
    text = (
        f"{summary.pictures} pictures: {summary.analysed} analysed with {summary.faces} faces, "
        f"{summary.skipped} done before, {summary.quarantined} quarantined, "
        f"{summary.failed} to be tried again."
    )
    name = "Partial" if summary.failed else "Completed"
    return completed(summary.as_dict(), name, text)


@task(
    name="analyse",
    task_run_name="analyse",
    retries=3,
    retry_delay_seconds=[10, 60, 300],
    retry_jitter_factor=0.2,
    retry_condition_fn=storage_failed,
    timeout_seconds=24 * 3600,
)
def analyse(
    *,
    input: str,
    output: str,
    model: str,
    registry: str | None,
    faces: FacesParams,
    csv: bool,
    part_size: int,
) -> BatchSummary:
    """Pull the model and run it over every picture that the output does not hold yet."""
    return run_batch(
        input,
        output,
        model=model,
        registry=registry,
        faces=faces,
        csv=csv,
        part_size=part_size,
        progress=Progress(),
    )


@task(name="show summary", task_run_name="show summary")
def show_summary(summary: BatchSummary) -> None:
    """The run's figures, and the pictures set aside."""
    document = summary.as_dict()
    rows = [
        {"what": name, "value": value}
        for name, value in document.items()
        if not isinstance(value, dict | list)
    ]
    rows += [
        {"what": f"faces: {name}", "value": count} for name, count in summary.expressions.items()
    ]
    artifacts.table("batch-summary", rows, f"Results in {summary.output}.")
    if summary.problems:
        artifacts.table(
            "batch-quarantine", summary.problems, "Pictures set aside, and why; the first ones."
        )


def _named(name: str, value: str | None) -> str:
    if value is None:
        raise SettingsError(
            f"No {name} is named. Give the parameter {name}, or set FER_BATCH_{name.upper()} "
            "in the worker's environment or in the deployment's job_variables.env."
        )
    return value


def faces_params(project: Path) -> FacesParams:
    """Section faces of the project's params.yaml; the defaults where there is no file."""
    path = project / "params.yaml"
    return load_params(path).faces if path.exists() else FacesParams()


class Progress:
    """Shows in the UI how far a run is; told after every picture, it writes now and then."""

    def __init__(self) -> None:
        self.log = get_run_logger()
        created = create_progress_artifact(
            progress=0.0, key="batch-progress", description="Pictures done."
        )
        self.artifact = cast(UUID, created)  # a coroutine only in asynchronous code
        self.next = time.monotonic() + _PROGRESS_SECONDS

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self.next and done != total:
            return
        self.next = now + _PROGRESS_SECONDS
        share = 100.0 * done / total if total else 0.0
        try:
            update_progress_artifact(
                self.artifact, round(share, 1), f"{done} of {total or '?'} pictures."
            )
        except Exception as error:  # a server that restarts does not end hours of work
            self.log.debug("The progress could not be shown: %s", error)
