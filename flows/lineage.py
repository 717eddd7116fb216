"""Tags that tell of a flow run which commit and which data it worked on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from fer.lineage import Lineage

PREPARED = "data/prepared"


def made_from(lineage: Mapping[str, Any]) -> dict[str, str]:
    """Commit, and hash of data/prepared, that a package's own lineage names.

    Returns:
        `commit`, and `data` where it is known.
    """
    commit = lineage.get("git_commit")
    code = Lineage(str(commit) if commit else None, bool(lineage.get("git_changed")))
    data = lineage.get("dvc")
    digest = data.get(PREPARED) if isinstance(data, Mapping) else None
    return {"commit": code.version} | ({"data": str(digest)} if digest else {})


def model_tags(reference: str, lineage: Mapping[str, Any]) -> list[str]:
    """Tags for a run that used a model: which one, and what that was made from, if it says so."""
    if not lineage:
        return [f"model:{reference}"]
    found = made_from(lineage)
    tags = [f"model:{reference}", f"model-commit:{found['commit']}"]
    return tags + ([f"{PREPARED}:{found['data'][:12]}"] if "data" in found else [])


def tag_run(tags: Iterable[str]) -> None:
    """Add tags to the current flow run, so that runs of one commit or data set can be found."""
    run_id = flow_run.id
    if run_id is None:
        return
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        client.update_flow_run(run.id, tags=sorted({*run.tags, *tags}))
