"""Pools, concurrency limit, deployments and automations: `python -m flows.deploy` creates them.

May be run again at any time: what is there stays as an operator has set it, deployments are
updated to the checkout's prefect.yaml, automations to flows/automations.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows import automations
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


def main() -> int:
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
