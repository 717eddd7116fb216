"""Flow fetch-and-validate: the dataset, through the gate, into the prepared table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.logging import get_run_logger
from prefect.tasks import exponential_backoff

from fer.lineage import Lineage
from flows import artifacts, events
from flows.lineage import tag_run
from flows.redaction import redacted
from flows.stages import HOUR, dvc_stage, interrupted, transient

FOLDER = Path(".")

fetch = dvc_stage.with_options(
    name="fetch",
    task_run_name="fetch",
    description="Download or draw the dataset (DVC stage fetch). Retried where the network fails.",
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=20),
    retry_jitter_factor=0.2,
    retry_condition_fn=transient,
)
validate = dvc_stage.with_options(
    name="validate",
    task_run_name="validate",
    description="The data gate (DVC stage validate). A breach ends the run; it is never retried.",
    retries=1,
    retry_delay_seconds=30,
    retry_condition_fn=interrupted,
)
prepare = dvc_stage.with_options(
    name="prepare",
    task_run_name="prepare",
    description="Splits and cleaning (DVC stage prepare).",
    retries=1,
    retry_delay_seconds=30,
    retry_condition_fn=interrupted,
)


@flow(name="fetch-and-validate", validate_parameters=True)
@redacted
def fetch_and_validate(project: Path = FOLDER, force: bool = False) -> dict[str, str]:
    """Fetch FER2013, check it, clean it, split it.

    Nothing is done twice: a stage whose inputs did not change is skipped. A breach of the data
    gate fails the run, and the run names the expectation, the count and three of the files.

    Args:
        project: Folder of dvc.yaml. The default is the deployment's own checkout.
        force: Ask the source again even if nothing here has changed. Later stages run only if
            it gave other data.
    """
    events.remember_data(project)
    run = fetch(stage="fetch", project=project, seconds=3 * HOUR, force=force)
    try:
        validate(stage="validate", project=project, seconds=HOUR)
    finally:
        # A breach has a report too: that is when it is wanted most.
        if (report := project / "reports" / "validation").is_dir():
            show_validation(report)
    prepare(stage="prepare", project=project, seconds=2 * HOUR)
    show_cleaning(project / "reports" / "cleaning.json")
    lineage = Lineage.of(project)
    tag_run(lineage.tags("data/prepared"))
    events.data_validated(project)
    if not run.ran:
        get_run_logger().info("The source was not asked again: pass force to do so.")
    return lineage.outputs


@task(name="show validation", task_run_name="show validation")
@redacted
def show_validation(folder: Path) -> None:
    """The gate's findings as a table, and a link to the Data Docs."""
    document = _read(folder / "validation.json")
    if document is not None:
        artifacts.markdown(
            "data-validation", validation_text(document), "What the data gate found."
        )
    artifacts.link(
        "data-docs",
        folder / "data_docs" / "index.html",
        "Great Expectations Data Docs of this check.",
    )


@task(name="show cleaning", task_run_name="show cleaning")
@redacted
def show_cleaning(report: Path) -> None:
    """What cleaning left out, as a table."""
    document = _read(report)
    if document is not None:
        text = "## Cleaning\n\n" + artifacts.markdown_table(
            artifacts.figures(document), ("what", "how many")
        )
        artifacts.markdown("data-cleaning", text, "What cleaning left out of training, and why.")


def validation_text(document: dict[str, Any]) -> str:
    """validation.json as Markdown: the verdict, each expectation, the figures."""
    expectations = document.get("expectations", [])
    failed = [one for one in expectations if not one["passed"]]
    verdict = "Passed" if document.get("passed") else "**Breached: the workflow stops here**"
    lines = [f"## Data gate: {verdict}", ""]
    for one in failed:
        examples = ", ".join(map(str, one["examples"]))
        lines.append(
            f"- {one['severity']}: expected {one['words']}; found {one['count']}"
            + (f": {examples}" if examples else "")
        )
    lines += [
        "",
        f"{len(expectations) - len(failed)} of {len(expectations)} expectations hold.",
        "",
    ]
    lines.append(artifacts.markdown_table(artifacts.figures(document), ("figure", "value")))
    return "\n".join(lines)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return document if isinstance(document, dict) else None
