"""Automations as they are defined; tests/flows/test_server.py lets a server act on them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from prefect.automations import Automation, CallWebhook, EventTrigger, RunDeployment
from prefect.events.schemas.events import Resource
from prefect.flows import load_flow_from_entrypoint

from flows import automations, events
from flows.deploy import POOLS

ROOT = Path(__file__).parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())[
    "deployments"
]
IDS = {name: uuid4() for name in (automations.TRAIN, automations.GATE, automations.SMOKE)}
WORK = automations.work(IDS)
NOTIFICATIONS = automations.notifications(uuid4(), POOLS, WORK)
EVERY = WORK + NOTIFICATIONS
STARTS = [one for one in WORK if isinstance(one.actions[0], RunDeployment)]


def trigger(automation: Automation) -> EventTrigger:
    assert isinstance(automation.trigger, EventTrigger)
    return automation.trigger


def action(automation: Automation) -> Any:
    (only,) = automation.actions
    return only


def deployment_of(found: UUID | None) -> dict[str, Any]:
    (name,) = [name for name, one in IDS.items() if one == found]
    return next(one for one in DEPLOYMENTS if one["name"] == name.partition("/")[2])


@pytest.mark.parametrize(
    ("event", "deployment", "parameters"),
    [
        (events.DATA_VALIDATED, automations.TRAIN, {"check_data": False}),
        (
            events.MODEL_REGISTERED,
            automations.GATE,
            {
                "model": automations._REFERENCE,
                "registry": automations._REGISTRY,
                "digest": automations._DIGEST,
            },
        ),
        (
            events.MODEL_PROMOTED,
            automations.SMOKE,
            {"model": automations._REFERENCE, "registry": automations._REGISTRY},
        ),
        (events.DRIFT_FOUND, automations.TRAIN, {"ask_source": True}),
    ],
)
def test_what_an_event_starts(event: str, deployment: str, parameters: dict[str, Any]) -> None:
    (found,) = [one for one in EVERY if event in trigger(one).expect]
    started = action(found)
    assert isinstance(started, RunDeployment)
    assert started.deployment_id == IDS[deployment]
    assert started.parameters == parameters


def test_a_batch_starts_nothing() -> None:
    assert not [one for one in EVERY if events.BATCH_FINISHED in trigger(one).expect]


def test_only_a_version_that_waits_is_taken_through_the_gate() -> None:
    (found,) = [one for one in EVERY if events.MODEL_REGISTERED in trigger(one).expect]
    assert trigger(found).match.model_dump() == {"fer.gate": "awaited"}


def test_drift_trains_a_model_once_in_hours() -> None:
    (found,) = [one for one in EVERY if events.DRIFT_FOUND in trigger(one).expect]
    assert trigger(found).for_each == {"fer.model.name"}
    assert trigger(found).within.total_seconds() >= 6 * 3600


@pytest.mark.parametrize("automation", STARTS, ids=lambda one: str(one.name))
def test_the_deployment_takes_the_parameters(
    automation: Automation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    deployment = deployment_of(action(automation).deployment_id)
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    templates = {
        automations._REFERENCE: "fer2013-efficientnetb2:7",
        automations._REGISTRY: "s3://fer/staging",
        automations._DIGEST: "0" * 64,
    }
    given = {
        name: templates.get(value, value) for name, value in action(automation).parameters.items()
    }
    assert set(given) <= set(flow.parameters.properties)
    flow.validate_parameters(deployment["parameters"] | given)


def test_the_named_deployments_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flows = {one["name"]: load_flow_from_entrypoint(one["entrypoint"]).name for one in DEPLOYMENTS}
    assert set(IDS) <= {f"{flow}/{name}" for name, flow in flows.items()}


def test_every_deployment_has_the_tag_that_notifications_ask_for() -> None:
    assert all(automations.RUN_TAG in one["tags"] for one in DEPLOYMENTS)


@pytest.mark.parametrize("automation", EVERY, ids=lambda one: str(one.name))
def test_a_server_takes_it(automation: Automation) -> None:
    """By the server's own schema, which also knows of automations that would never end."""
    from prefect.server.events.schemas.automations import AutomationCreate, AutomationUpdate

    core = automations._core(automation)
    AutomationCreate.model_validate(core.model_dump(mode="json"))
    AutomationUpdate.model_validate(core.model_dump(mode="json", exclude_unset=True))
    assert automation.tags == [automations.TAG]
    assert automation.description
    assert automations._content(core) == automations._content(automation)


NASTY = 'it said: "no"\n\\ {{ 7 * 7 }} </script> Müller'


@pytest.mark.parametrize(
    ("automation", "labels", "text"),
    [
        (
            NOTIFICATIONS[0],
            {"prefect.state-name": "Failed", "prefect.state-message": NASTY},
            f"train, run grey-owl: Failed. {NASTY}",
        ),
        (
            NOTIFICATIONS[1],
            {"prefect.state-name": "Late", "prefect.state-message": None},
            "train, run grey-owl: Late. No worker has taken it from work pool gpu. "
            "Is one online, and no limit reached? fer doctor says so.",
        ),
        (
            NOTIFICATIONS[2],
            {},
            "Work pool grey-owl has no worker any more. "
            "Start one: prefect worker start --pool grey-owl",
        ),
        (NOTIFICATIONS[3], {}, f"Automation grey-owl could not act: {NASTY}"),
    ],
    ids=lambda one: one.name if isinstance(one, Automation) else "",
)
def test_a_notification_is_json_whatever_the_run_said(
    automation: Automation, labels: dict[str, str | None], text: str
) -> None:
    from prefect.server.utilities.user_templates import (
        register_user_template_filters,
        render_user_template_sync,
    )

    register_user_template_filters({"ui_url": lambda _: "http://ui/run"})
    call = action(automation)
    assert isinstance(call, CallWebhook)
    resource = {"prefect.resource.name": "grey-owl"} | labels
    happened = SimpleNamespace(
        event="e", occurred="2026-11-23", resource=resource, payload={"reason": NASTY}
    )
    context = {
        "event": happened,
        "flow": SimpleNamespace(name="train"),
        "work_pool": SimpleNamespace(name="gpu"),
    }
    document = json.loads(render_user_template_sync(call.payload, context))
    assert document == {
        "text": text,
        "event": "e",
        "occurred": "2026-11-23",
        "resource": resource,
        "url": "http://ui/run",
    }


def test_no_notification_tells_of_notifications() -> None:
    watched = trigger(NOTIFICATIONS[3]).match.model_dump()["prefect.resource.name"]
    assert set(watched) == {one.name for one in WORK}


def test_silence_follows_the_heartbeats() -> None:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    assert automations.silence().total_seconds() == 15 * 60
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 30}):
        assert automations.silence().total_seconds() == 150
        (found,) = [one for one in automations.work(IDS) if "is marked as crashed" in one.name]
        assert "150 s" in str(found.description)


def test_a_run_that_crashes_again_and_again_stays_crashed() -> None:
    (found,) = [one for one in EVERY if "tried again" in one.name]
    # Each try that crashes gives one more, however long ago; the last gives none.
    assert trigger(found).for_each == {"prefect.resource.id", "prefect.run-count"}
    assert trigger(found).within.days >= 14  # as long as a training may take

    def again(tries: int) -> bool:
        labels = {"prefect.resource.id": "prefect.flow-run.x", "prefect.run-count": str(tries)}
        return trigger(found).match.matches(Resource.model_validate(labels))

    assert [again(tries) for tries in range(6)] == [True, True, True, False, False, False]
    assert automations.MOST_TRIES == 3


def test_a_run_that_never_began_is_found_too() -> None:
    (found,) = [one for one in EVERY if "is marked as crashed" in one.name]
    # What a worker says of a run before the run says anything itself.
    assert {f"prefect.flow-run.{name}" for name in ("Pending", "Submitting")} <= trigger(
        found
    ).after


def test_changes_are_told_by_name() -> None:
    assert str(automations.Changes()) == "nothing new"
    changes = automations.Changes(created=("a", "b"), removed=("c",))
    assert str(changes) == "created a, b; removed c"
