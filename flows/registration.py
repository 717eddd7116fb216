"""Task register: the package that training made, as a version in the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.utilities.timeout import timeout

from fer.errors import ConflictError, UnavailableError
from fer.registry.registry import Registry
from fer.registry.versions import Version
from flows import events
from flows.redaction import redacted
from flows.stages import HOUR, WAIT_SECONDS
from flows.writer import writer


def again(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry condition: the store could not be reached, or somebody moved the alias meanwhile."""
    error: object = state.result(raise_on_failure=False)
    return isinstance(error, UnavailableError | ConflictError)


@task(
    name="register",
    task_run_name="register",
    retries=3,
    retry_delay_seconds=[5, 30, 120],
    retry_condition_fn=again,
)
@redacted
def register(project: Path, registry: str | None, note: str, gate: events.Gate = "here") -> Version:
    """Upload models/package and commit it as a version.

    A version that no gate has decided on yet is told of, so a run that is killed right after the
    registration tells of it when it is repeated.

    Args:
        gate: `awaited` where the caller leaves the decision to an automation.
    """
    log = get_run_logger()
    models = Registry.open(registry)
    # Nobody may rewrite the package while it is read. The wait for that is not in the hour.
    with writer(project, "registering", log, limit=None, timeout=WAIT_SECONDS), timeout(HOUR):
        version = models.register(project / "models" / "package", note)
    log.info("Registered as %s, digest %s.", version, version.digest[:12])
    if models.state(version.name, version.number).gate is None:
        events.model_registered(version, models.url, gate)
    return version
