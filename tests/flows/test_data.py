"""Flow fetch-and-validate on a real Prefect server and a tiny DVC project."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows import stages
from flows.data import fetch, fetch_and_validate
from flows.stages import StageError, StageRun, interrupted, transient
from flows.training import train_network

pytestmark = pytest.mark.usefixtures("server")

Make = Callable[[dict[str, dict[str, object]]], Path]

EXPECTATION = {
    "key": "rows",
    "severity": "critical",
    "words": "each split has its rows",
    "passed": False,
    "count": 1,
    "examples": ["test"],
}
VALIDATION = {"passed": True, "rows": {"train": 28709}, "expectations": []}
BREACHED = {"passed": False, "rows": {"test": 7}, "expectations": [EXPECTATION]}
GOOD: dict[str, dict[str, object]] = {
    "fetch": {"cmd": "echo fetched; echo data > source", "outs": ["source"]},
    "validate": {
        "cmd": "mkdir -p reports/validation/data_docs && "
        "cp ../validation.json reports/validation/ && "
        "echo page > reports/validation/data_docs/index.html",
        "deps": ["source"],
        "outs": ["reports/validation"],
    },
    "prepare": {
        "cmd": "mkdir -p data/prepared && cp source data/prepared/faces.parquet && "
        "echo '{\"blanks\": 12}' > reports/cleaning.json",
        "deps": ["source"],
        "outs": ["data/prepared", "reports/cleaning.json"],
    },
}


def artifact(key: str) -> Any:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        )
    return max(found, key=lambda one: one.created).data


def test_runs_the_stages_and_shows_what_they_found(project: Make) -> None:
    folder = project(GOOD)
    (folder.parent / "validation.json").write_text(json.dumps(VALIDATION))
    state = fetch_and_validate(project=folder, return_state=True)
    assert state.is_completed()
    outputs = state.result()
    assert (folder / "data/prepared/faces.parquet").read_text() == "data\n"
    assert "28709" in artifact("data-validation")
    assert "12" in artifact("data-cleaning")
    assert (folder / "reports/validation/data_docs/index.html").as_uri() in artifact("data-docs")
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(state.state_details.flow_run_id)
    assert f"data/prepared:{outputs['data/prepared'][:12]}" in run.tags
    assert any(tag.startswith("commit:") for tag in run.tags)


def test_a_breach_is_shown_and_never_retried(project: Make) -> None:
    breach = (
        "echo again >> ../tries; mkdir -p reports/validation && "
        "cp ../validation.json reports/validation/ && "
        "echo 'fer: The data gate found 1 breach.' >&2; "
        "echo '  1. test: 7, at least 3500 expected' >&2; exit 1"
    )
    folder = project(GOOD | {"validate": GOOD["validate"] | {"cmd": breach}})
    (folder.parent / "validation.json").write_text(json.dumps(BREACHED))
    state = fetch_and_validate(project=folder, return_state=True)
    assert state.is_failed()
    error = state.result(raise_on_failure=False)
    assert isinstance(error, StageError)
    assert "7, at least 3500 expected" in str(error)
    assert "7, at least 3500 expected" in (state.message or "")
    assert (folder.parent / "tries").read_text().count("again") == 1
    assert "expected each split has its rows; found 1: test" in artifact("data-validation")
    assert not (folder / "data").exists()


def test_fetch_is_retried_where_the_network_failed(project: Make) -> None:
    command = "echo try >> ../tries; test $(wc -l < ../tries) -gt 1 || exit 1; echo x > source"
    folder = project({"fetch": {"cmd": command, "outs": ["source"]}})
    quick = fetch.with_options(retries=2, retry_delay_seconds=0)

    @flow(name="only-fetch")
    def only_fetch() -> StageRun:
        return quick(stage="fetch", project=folder, seconds=300)

    assert only_fetch().ran == ("fetch",)
    assert (folder.parent / "tries").read_text().count("try") == 2


@pytest.mark.parametrize(("length", "end"), [(0.0, "Completed"), (60.0, "TimedOut")])
def test_only_the_stage_itself_is_timed(
    project: Make, monkeypatch: pytest.MonkeyPatch, length: float, end: str
) -> None:
    @contextmanager
    def queue(*_: object, **__: object) -> Iterator[int]:
        time.sleep(1.5)
        yield 0

    def run(*_: object) -> int:
        for _ in range(round(10 * length)):
            time.sleep(0.1)
        return 0

    monkeypatch.setattr(stages, "slot", queue)
    monkeypatch.setattr(stages, "writer", queue)
    monkeypatch.setattr(stages, "_run", run)
    stage = train_network.with_options(name="wait")

    @flow(name="only-wait")
    def only_wait() -> tuple[str | None, str | None]:
        state = stage("train", project({}), seconds=1, gpu=True, return_state=True)
        return state.name, state.message

    name, message = only_wait()
    assert name == end, message
    if end == "TimedOut":
        assert "Stage train was ended after 1 s." in (message or "")


@pytest.mark.parametrize(
    ("status", "fetch_again", "others_again"),
    [
        (1, True, False),  # what is not there now may be later; what was found stays found
        (2, False, False),  # a wrong source or digest
        (-9, True, True),
        (137, True, True),
        (None, False, False),  # DVC itself refused
    ],
)
def test_what_is_retried(status: int | None, fetch_again: bool, others_again: bool) -> None:
    state: State[Any] = Failed(data=StageError.of("stage", status, "why"))
    assert transient(None, None, state) is fetch_again  # type: ignore[arg-type]
    assert interrupted(None, None, state) is others_again  # type: ignore[arg-type]
