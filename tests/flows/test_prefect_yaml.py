"""prefect.yaml: what it names exists, and explains itself in the UI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import Flow, load_flow_from_entrypoint

from flows.deploy import POOLS

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())[
    "deployments"
]


def load(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Flow[..., Any]:
    monkeypatch.chdir(ROOT)
    return load_flow_from_entrypoint(deployment["entrypoint"])


def test_deployments_on_two_pools() -> None:
    found = {one["name"]: one["work_pool"]["name"] for one in DEPLOYMENTS}
    wanted = {"data": "cpu", "train": "gpu", "gate": "cpu", "batch": "cpu"}
    wanted |= {"smoke": "cpu", "monitor": "cpu"}
    assert found == wanted
    assert set(found.values()) == set(POOLS)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: str(one["name"]))
def test_deployment(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    flow = load(deployment, monkeypatch)
    # What is asked for on top comes from the event, or from whoever starts it by hand.
    asked = dict.fromkeys(flow.parameters.required, "any")
    flow.validate_parameters(asked | deployment["parameters"])
    assert not asked or not deployment["schedules"]
    for name, field in flow.parameters.properties.items():
        assert field.get("description"), f"parameter {name} has no description"
        assert not any(word in name for word in ("secret", "password", "token", "key"))
    for schedule in deployment["schedules"]:
        cron = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        assert cron.timezone
    assert deployment["description"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: str(one["name"]))
def test_one_run_at_a_time(deployment: dict[str, Any]) -> None:
    if deployment["name"] == "train":
        assert "concurrency_limit" not in deployment, "a lease would end it with the server"
    else:
        assert deployment["concurrency_limit"]["limit"] == 1


@pytest.mark.parametrize("name", ["data", "batch", "monitor"])
def test_what_runs_by_itself_is_scheduled_and_may_stay_paused(name: str) -> None:
    """With `active` every deployment would start again what an operator has paused."""
    found = next(one for one in DEPLOYMENTS if one["name"] == name)
    (schedule,) = found["schedules"]
    assert "active" not in schedule
    assert schedule["slug"], "without one it is made anew, and so active, at each deployment"
