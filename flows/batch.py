"""Flow batch-inference: photographs in, expressions out, with a registered model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, task
from prefect.logging import get_run_logger
from pydantic import Field

from fer.errors import FerError, SettingsError
from fer.inference.batch import BatchSummary, run_batch
from fer.lineage import Lineage
from fer.params import FacesParams, load_params
from fer.registry.registry import Registry
from fer.settings import settings
from flows import artifacts, events
from flows.data import FOLDER
from flows.lineage import made_from, model_tags, tag_run
from flows.progress import Progress
from flows.redaction import redacted
from flows.shares import is_shared, share_out
from flows.states import completed
from flows.storage import storage_failed

MODEL = "fer2013-efficientnetb2@champion"
Place = Annotated[str, Field(min_length=1, max_length=2000)]


@flow(name="batch-inference")
@redacted
def batch_inference(
    input: Place | None = None,
    output: Place | None = None,
    model: Annotated[str, Field(min_length=1, max_length=500)] = MODEL,
    registry: Place | None = None,
    csv: bool = False,
    part_size: Annotated[int, Field(ge=1, le=100_000)] = 256,
    workers: Annotated[int, Field(ge=0, le=256)] | None = None,
    share_mb: Annotated[int, Field(ge=1, le=100_000)] = 128,
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
        part_size: Photographs per results file; a killed run repeats at most this many. Without
            effect where workers share the run out.
        workers: Dask worker processes to start on this machine for this run. Empty takes the
            cluster of FER_DASK_SCHEDULER where that is set; else, as with 0, the run is done in
            its own process.
        share_mb: Megabytes of photographs that a worker takes at a time and writes as one
            results file. What fits in one share is done without workers.
        project: Folder of params.yaml, whose section faces says how faces are found.
    """
    here = settings()
    source = _named("input", input or here.batch_input)
    target = _named("output", output or here.batch_output)
    faces = faces_params(project)
    if is_shared(workers):
        summary = share_out(
            input=source,
            output=target,
            model=model,
            registry=registry,
            faces=faces,
            csv=csv,
            share_bytes=share_mb << 20,
            workers=workers,
        )
    else:
        summary = analyse(
            input=source,
            output=target,
            model=model,
            registry=registry,
            faces=faces,
            csv=csv,
            part_size=part_size,
        )
    lineage = model_lineage(summary, registry)
    show_summary(summary, lineage)
    reference = f"{summary.model_name}:{summary.model_version or summary.model_digest[:12]}"
    tag_run([*Lineage.of(project).tags(), *model_tags(reference, lineage)])
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
@redacted
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
@redacted
def show_summary(summary: BatchSummary, lineage: Mapping[str, Any]) -> None:
    """The run's figures, what its model was made from, and the pictures set aside."""
    document = summary.as_dict()
    rows = [
        {"what": name, "value": value}
        for name, value in document.items()
        if not isinstance(value, dict | list)
    ]
    rows += [
        {"what": f"faces: {name}", "value": count} for name, count in summary.expressions.items()
    ]
    if lineage:
        rows += [
            {"what": f"the model's {name}", "value": value}
            for name, value in made_from(lineage).items()
        ]
    artifacts.table("batch-summary", rows, f"Results in {summary.output}.")
    if summary.problems:
        artifacts.table(
            "batch-quarantine", summary.problems, "Pictures set aside, and why; the first ones."
        )


def model_lineage(summary: BatchSummary, registry: str | None) -> Mapping[str, Any]:
    """The lineage that a registered model's manifest names; empty where that cannot be asked."""
    if summary.model_version is None:
        return {}
    reference = f"{summary.model_name}:{summary.model_version}"
    try:
        return Registry.open(registry).resolve(reference).manifest.lineage
    except FerError as error:  # the work is done: this is no reason to fail
        get_run_logger().warning("What %s was made from is not shown: %s", reference, error)
        return {}


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
