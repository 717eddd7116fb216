"""Tags that tell of a flow run which commit and which data it worked on."""

from __future__ import annotations

from collections.abc import Iterable

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run


def tag_run(tags: Iterable[str]) -> None:
    """Add tags to the current flow run, so that runs of one commit or data set can be found."""
    run_id = flow_run.id
    if run_id is None:
        return
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        client.update_flow_run(run.id, tags=sorted({*run.tags, *tags}))
