"""Flow train: from the prepared table to a model package, through DVC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, task
from pydantic import Field

from fer.lineage import Lineage
from fer.registry.registry import Registry
from flows import artifacts
from flows.data import FOLDER, fetch_and_validate
from flows.lineage import tag_run
from flows.redaction import redacted
from flows.registration import register
from flows.stages import HOUR, dvc_stage, interrupted

EVALUATE_SECONDS, PACKAGE_SECONDS = 3 * HOUR, HOUR

train_network = dvc_stage.with_options(
    name="train",
    task_run_name="train",
    description="Two-phase training (DVC stage train). Killed, it resumes from its last epoch.",
    retries=2,
    retry_delay_seconds=60,
    retry_condition_fn=interrupted,
)
evaluate = dvc_stage.with_options(
    name="evaluate",
    task_run_name="evaluate",
    description="Figures on the test set (DVC stage evaluate).",
    retries=1,
    retry_delay_seconds=30,
    retry_condition_fn=interrupted,
)
package = dvc_stage.with_options(
    name="package",
    task_run_name="package",
    description="The model package (DVC stage package).",
    retries=1,
    retry_delay_seconds=30,
    retry_condition_fn=interrupted,
)


@flow(name="train")
@redacted
def train(
    project: Path = FOLDER,
    check_data: bool = True,
    timeout_hours: Annotated[float, Field(gt=0, le=24 * 14)] = 24,
    ask_source: bool = False,
    submit: bool = False,
    registry: Annotated[str, Field(min_length=1, max_length=2000)] | None = None,
) -> dict[str, Any]:
    """Train, evaluate and package a model as params.yaml says.

    One run writes a project at a time; a second one waits. Nothing is done twice: with
    unchanged data and parameters every stage is skipped.

    Args:
        project: Folder of dvc.yaml. The default is the deployment's own checkout.
        check_data: Run the data flow first. Without it DVC still brings the data up to date.
        timeout_hours: The training itself is ended after this many hours; its wait for another
            run, or for a GPU, does not count.
        ask_source: With check_data: ask the source for new data first, even if nothing here has
            changed.
        submit: Register the package, and leave it to the deployment gate to decide on it.
        registry: Where to register: a folder or s3://bucket/prefix. Empty takes FER_REGISTRY of
            the worker. Credentials never go here; they are AWS_* in the worker's environment.
    """
    if submit:
        Registry.open(registry)  # no address is better known now than after hours of training
    if check_data:
        fetch_and_validate(project=project, force=ask_source)
    train_network(stage="train", project=project, seconds=timeout_hours * HOUR, gpu=True)
    show_training(project)
    evaluate(stage="evaluate", project=project, seconds=EVALUATE_SECONDS)
    show_evaluation(project)
    package(stage="package", project=project, seconds=PACKAGE_SECONDS)
    tags = []
    if submit:
        tags.append(f"model:{register(project, registry, '', gate='awaited')}")
    lineage = Lineage.of(project)
    tag_run([*lineage.tags("data/prepared", "models/package"), *tags])
    return read_metrics(project)


@task(name="show training", task_run_name="show training")
@redacted
def show_training(project: Path) -> None:
    """The learning curves."""
    artifacts.image(
        "learning-curves",
        project / "models" / "trained" / "curves.png",
        "Loss and accuracy by epoch, training beside validation.",
    )


@task(name="show evaluation", task_run_name="show evaluation")
@redacted
def show_evaluation(project: Path) -> None:
    """The confusion matrix, the figures, and what they were made from."""
    folder = project / "reports" / "evaluation"
    artifacts.image(
        "confusion-matrix", folder / "confusion.png", "Test set: rows actual, columns predicted."
    )
    artifacts.image(
        "reliability", folder / "reliability.png", "Confidence beside accuracy, before and after."
    )
    artifacts.link("evaluation-page", folder / "index.html", "The evaluation as one page.")
    text = "## Figures on the test set\n\n"
    text += artifacts.markdown_table(artifacts.figures(read_metrics(project)), ("figure", "value"))
    text += "\n\n## Made from\n\n"
    text += artifacts.markdown_table(Lineage.of(project).rows(), ("what", "hash"))
    artifacts.markdown("metrics", text, "Figures on the test set, and what they were made from.")


def read_metrics(project: Path) -> dict[str, Any]:
    """reports/evaluation/metrics.json; empty where there is none."""
    try:
        document = json.loads((project / "reports/evaluation/metrics.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return document if isinstance(document, dict) else {}
