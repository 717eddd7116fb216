"""Pools, concurrency limit, deployments and automations: `python -m flows.deploy` creates them.

May be run again at any time: what is there stays as an operator has set it, deployments are
updated to the checkout's prefect.yaml, automations to flows/automations.py. PREFECT_API_URL, or
Prefect's profile, names the server; without one there is nowhere to deploy to.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker

from fer.errors import FerError, SettingsError, WorkflowError
from flows import automations
from flows.redaction import redactor
from flows.writer import GPU_LIMIT, LIMIT

POOLS = {
    "cpu": "Data preparation and batch inference.",
    "gpu": "Training. A worker on a machine with a GPU; a CPU does the same work slower.",
}


def ensure_pools(client: SyncPrefectClient) -> list[str]:
    """Create the process pools that are missing; the names of the new ones."""
    made = []
    for name, description in POOLS.items():
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(
                    name=name,
                    type="process",
                    description=description,
                    base_job_template=ProcessWorker.get_default_base_job_template(),
                )
            )
            made.append(name)
    return made


def ensure_limits(client: SyncPrefectClient) -> list[str]:
    """Create the limits that are missing, of one each; the names of the new ones.

    An operator with two GPUs sets `prefect gcl update gpu --limit 2`.
    """
    made = []
    for name in (LIMIT, GPU_LIMIT):
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            made.append(name)
    return made


def need_server() -> None:
    """Do nothing where the server answers.

    Raises:
        SettingsError: none is named. Prefect would start one for the length of the command, and
            lose what was deployed to it.
        WorkflowError: it does not answer, refuses the login, or is something else.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise SettingsError(
            "PREFECT_API_URL is not set, so there is no server to deploy to. Start one and set its "
            "address, such as http://127.0.0.1:4200/api: infra/README.md."
        )
    url = redactor()(url)
    try:
        with get_client(sync_client=True) as client:
            client.api_version()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        advice = (
            "Set PREFECT_API_AUTH_STRING or PREFECT_API_KEY to what the server wants."
            if status in {401, 403}
            else "PREFECT_API_URL ends with /api: http://host:4200/api."
        )
        raise WorkflowError(f"{url} answers {status}. {advice}") from error
    except (httpx.HTTPError, ValueError) as error:
        raise WorkflowError(
            f"{url} is no Prefect API that answers: {error}. Start the server (prefect server "
            "start), or correct PREFECT_API_URL."
        ) from error


def main() -> int:
    """Deploy; 0, or the exit status of what failed, after one line that says what to do."""
    try:
        need_server()
        return deploy()
    except FerError as error:
        sys.stderr.write(f"deploy: {error}\n")
        return error.exit_code
    except httpx.HTTPError as error:
        sys.stderr.write(
            f"deploy: the server answered, and then no more: {error}. Look at its log, and deploy "
            "again: what is done is not done twice.\n"
        )
        return 1


def deploy() -> int:
    """Exit status of `prefect deploy`; automations follow where that is 0."""
    with get_client(sync_client=True) as client:
        made = ensure_pools(client)
        made += [f"limit {name}" for name in ensure_limits(client)]
    sys.stderr.write(f"Created: {', '.join(made) or 'nothing new'}.\n")
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    if status := subprocess.run(command, check=False, cwd=Path.cwd()).returncode:
        return status
    with get_client(sync_client=True) as client:
        changes = automations.deploy(client, POOLS)
    sys.stderr.write(f"Automations: {changes}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
