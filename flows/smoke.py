"""Flow batch-smoke: does a model that was just promoted do its work on this worker?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, task
from pydantic import Field

from fer.errors import WorkflowError
from fer.expressions import Expression
from flows.batch import MODEL, Place, analyse, faces_params
from flows.data import FOLDER
from flows.lineage import tag_run
from flows.redaction import redacted
from flows.states import completed

_SEED = 11


@flow(name="batch-smoke", timeout_seconds=3600)
@redacted
def batch_smoke(
    model: Annotated[str, Field(min_length=1, max_length=500)] = MODEL,
    registry: Place | None = None,
    project: Path = FOLDER,
) -> dict[str, Any]:
    """Pull a model and let it recognise a few drawn faces, as a batch run would.

    It reads no photographs of anybody, and its results are thrown away. What it shows is that
    the model can be pulled, loaded and run here; its accuracy is the gate's business.

    Args:
        model: Which model: name:version, or name@alias.
        registry: Folder or s3://bucket/prefix of the model registry. Empty takes FER_REGISTRY
            of the worker. Credentials never go here; they are AWS_* in its environment.
        project: Folder of params.yaml, whose section faces says how faces are found.
    """
    with tempfile.TemporaryDirectory(prefix="fer-smoke-") as name:
        pictures = draw(Path(name) / "pictures")
        # The task alone: a batch run of its own would count as one in the statistics.
        summary = analyse(
            input=str(Path(name) / "pictures"),
            output=str(Path(name) / "results"),
            model=model,
            registry=registry,
            faces=faces_params(project),
            csv=False,
            part_size=256,
        )
    version = f"{summary.model_name}:{summary.model_version or summary.model_digest[:12]}"
    tag_run([f"model:{version}"])
    text = f"{version} found {summary.faces} faces in {summary.analysed} of {pictures} pictures."
    if summary.analysed != pictures or not summary.faces:
        raise WorkflowError(
            f"{text} Look at the run's log; `fer models rollback {summary.model_name}` returns "
            "to the champion before."
        )
    return completed(summary.as_dict(), "Completed", text)


@task(name="draw", task_run_name="draw")
@redacted
def draw(folder: Path) -> int:
    """One drawn picture for each expression, the same at each run; how many."""
    import cv2
    import numpy as np

    from fer.dataset.scenes import draw_scene

    folder.mkdir(parents=True)
    generator = np.random.default_rng(_SEED)
    for expression in Expression:
        picture, _ = draw_scene([expression], generator)
        cv2.imwrite(str(folder / f"{expression.label}.png"), picture)
    return len(Expression)
