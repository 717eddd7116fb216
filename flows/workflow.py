"""Flow workflow: the four flows in sequence, from the source to recognised photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.batch import batch_inference
from flows.data import fetch_and_validate
from flows.redaction import redacted
from flows.release import evaluate_and_register
from flows.training import train


@flow(name="workflow")
@redacted
def run_workflow(project: Path, registry: str, input: str, output: str) -> dict[str, Any]:
    """Fetch, validate, prepare, train, evaluate, package, register, pull, recognise.

    Args:
        project: Folder of dvc.yaml and params.yaml.
        registry: Model registry: a folder or s3://bucket/prefix.
        input: Photographs: a folder or s3://bucket/prefix.
        output: Where the results go: a folder or s3://bucket/prefix.

    Returns:
        `data` (hashes by output), `metrics`, `model` (reference), `release` and `batch`.
    """
    data = fetch_and_validate(project=project)
    metrics = train(project=project, check_data=False)
    release = evaluate_and_register(project=project, registry=registry)
    # A model that misses the gate is a challenger; there may be no champion to use instead.
    batch = batch_inference(
        input=input,
        output=output,
        model=release.reference,
        registry=registry,
        project=project,
    )
    return {
        "data": data,
        "metrics": metrics,
        "model": release.reference,
        "release": release,
        "batch": batch,
    }
