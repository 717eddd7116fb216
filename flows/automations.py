"""What starts by itself: Prefect automations, applied by `python -m flows.deploy`.

    fer.data.validated                 -> train     new data are trained on
    fer.model.registered, gate awaited -> gate      the challenger is evaluated, and may be promoted
    fer.model.promoted                 -> smoke     the new champion recognises a few drawn faces
    fer.drift.found                    -> train     the source is asked for new data first
    a run is silent for a while        -> crashed   its process or its machine died
    a run crashed                      -> again     where it stopped, until its tries are used up
    a run failed, crashed or is late   -> webhook
    a pool has lost its last worker    -> webhook
    one of the above could not act     -> webhook

This ends: a training without new data makes no new package, a package that is registered already
is no new version, a version that a gate decided on is not announced again, and the smoke run
tells nobody anything (it fails, and that is notified). evaluate-and-register takes its version
through the gate itself and says so in its event (`fer.gate: here`), so no gate runs twice.

All of them are here rather than partly under `triggers:` in prefect.yaml: those are deleted and
made anew at each deployment, which forgets how long ago each of them fired and whether an operator
had paused it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from prefect.automations import (
    Automation,
    AutomationCore,
    CallWebhook,
    ChangeFlowRunState,
    EventTrigger,
    Posture,
    RunDeployment,
)
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.filters import AutomationFilter, AutomationFilterTags
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.types import SecretDict

from fer.settings import settings
from flows import events

TRAIN: Final = "train/train"
GATE: Final = "gate/gate"
SMOKE: Final = "batch-smoke/smoke"
WEBHOOK: Final = "fer-notify"  # the block that holds FER_NOTIFY_URL, encrypted by the server
TAG: Final = "fer-workflow"  # of the automations that are made here, and may be removed here
RUN_TAG: Final = "fer"  # of every deployment in prefect.yaml, and so of its runs

DRIFT_PAUSE: Final = timedelta(hours=12)
LATE_PAUSE: Final = timedelta(hours=1)
# How often a run may begin in all: one that crashes in its third try stays crashed.
MOST_TRIES: Final = 3
# For so long it is remembered which tries have crashed; longer than any run may take.
CRASH_MEMORY: Final = timedelta(days=30)
# So that a server that restarts takes no run for dead.
_HEARTBEATS: Final = 5

_REFERENCE = "{{ event.resource['fer.model.reference'] }}"
# Where that version is; the worker's own FER_REGISTRY may be another, with an unrelated one.
_REGISTRY = "{{ event.resource['fer.model.registry'] }}"
_DIGEST = "{{ event.resource['fer.model.digest'] }}"
# JSON with a `text`, which Slack, Mattermost and their like show as it is.
_PAYLOAD = (
    '{"text": {{ (%s) | tojson }}, "event": {{ event.event | tojson }}, '
    '"occurred": {{ event.occurred | string | tojson }}, '
    '"resource": {{ event.resource | tojson }}, "url": {{ %s | ui_url | tojson }}}'
)
_RUN_PAYLOAD = _PAYLOAD % (
    "flow.name ~ ', run ' ~ event.resource['prefect.resource.name'] ~ ': ' "
    "~ event.resource['prefect.state-name'] ~ '. ' "
    "~ event.resource['prefect.state-message'] | default('', true)",
    "flow_run",
)
_LATE_PAYLOAD = _PAYLOAD % (
    "flow.name ~ ', run ' ~ event.resource['prefect.resource.name'] ~ ': Late. No worker has taken "
    "it from ' ~ ('work pool ' ~ work_pool.name if work_pool else 'its work pool') "
    "~ '. Is one online, and no limit reached? fer doctor says so.'",
    "flow_run",
)
_POOL_PAYLOAD = _PAYLOAD % (
    "'Work pool ' ~ event.resource['prefect.resource.name'] ~ ' has no worker any more. "
    "Start one: prefect worker start --pool ' ~ event.resource['prefect.resource.name']",
    "work_pool",
)
_ACTION_PAYLOAD = _PAYLOAD % (
    "'Automation ' ~ event.resource['prefect.resource.name'] ~ ' could not act: ' "
    "~ event.payload['reason']",
    "event.resource",
)
_RUNS: Final[dict[str, str | list[str]]] = {"prefect.resource.id": "prefect.flow-run.*"}
_OURS: Final[dict[str, str | list[str]]] = {
    "prefect.resource.role": "tag",
    "prefect.resource.id": f"prefect.tag.{RUN_TAG}",
}


@dataclass(frozen=True)
class Changes:
    """What `apply` did, by the names of automations."""

    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [f"{word} {', '.join(names)}" for word, names in vars(self).items() if names]
        return "; ".join(said) or "nothing new"


def silence() -> timedelta:
    """How long nothing may be heard of a run: five of Prefect's heartbeats.

    15 minutes, unless PREFECT_FLOWS_HEARTBEAT_FREQUENCY (180 s) is another, which must then be so
    for the workers and for `make deploy`.
    """
    return timedelta(
        seconds=_HEARTBEATS * (get_current_settings().flows.heartbeat_frequency or 180)
    )


def work(deployments: Mapping[str, UUID]) -> list[Automation]:
    """The automations that start runs, and those that end dead ones and start them again.

    Args:
        deployments: id by flow/name, of TRAIN, GATE and SMOKE.
    """
    quiet = silence()
    return [
        Automation(
            name="fer: new data start a training",
            description="Validated data that nobody has trained on yet.",
            tags=[TAG],
            trigger=_on(events.DATA_VALIDATED),
            # The data are there: the training need not ask for them again.
            actions=[_run(deployments[TRAIN], check_data=False)],
        ),
        Automation(
            name="fer: a registered challenger is taken through the gate",
            description="A version whose registration left the decision to the gate.",
            tags=[TAG],
            trigger=_on(events.MODEL_REGISTERED, match={events.GATE_LABEL: "awaited"}),
            actions=[_run(deployments[GATE], model=_REFERENCE, registry=_REGISTRY, digest=_DIGEST)],
        ),
        Automation(
            name="fer: a promotion is tried out",
            description="The new champion is pulled and recognises a few drawn faces.",
            tags=[TAG],
            trigger=_on(events.MODEL_PROMOTED),
            actions=[_run(deployments[SMOKE], model=_REFERENCE, registry=_REGISTRY)],
        ),
        Automation(
            name="fer: drift starts a training",
            description="Asks the source for new data; without any, nothing is trained. "
            f"Once in {_hours(DRIFT_PAUSE)} for each model.",
            tags=[TAG],
            # Reactive with a duration: fires at the first finding, then waits for the rest of it.
            trigger=_on(events.DRIFT_FOUND, for_each={"fer.model.name"}, within=DRIFT_PAUSE),
            actions=[_run(deployments[TRAIN], ask_source=True)],
        ),
        Automation(
            name="fer: a silent run is marked as crashed",
            description=f"Neither a heartbeat nor an end for {_duration(quiet)}: it was killed.",
            tags=[TAG],
            trigger=EventTrigger(
                # From each of these on, a heartbeat or any other state is expected. A worker that
                # is killed while it starts a run leaves it Pending or Submitting, without a
                # heartbeat.
                after={
                    "prefect.flow-run.heartbeat",
                    "prefect.flow-run.Pending",
                    "prefect.flow-run.Submitting",
                    "prefect.flow-run.Running",
                },
                expect={"prefect.flow-run.*"},
                match=_RUNS,
                match_related=_OURS,
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=quiet,
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    name="Crashed",
                    message=f"Nothing was heard of this run for {_duration(quiet)}.",
                    force=False,
                )
            ],
        ),
        Automation(
            name="fer: a crashed run is tried again",
            description="With the same parameters, until it has begun "
            f"{MOST_TRIES} times. What it had done is not done twice.",
            tags=[TAG],
            trigger=_on(
                "prefect.flow-run.Crashed",
                # The count rises when a run begins, not when it is tried again: one that crashes
                # before it begins, once more, comes to rest by `for_each`.
                match=_RUNS | {"prefect.run-count": [str(tries) for tries in range(MOST_TRIES)]},
                # Its own deployment's run, not one that another flow called.
                match_related=[_OURS, {"prefect.resource.role": "deployment"}],
                for_each={"prefect.resource.id", "prefect.run-count"},
                within=CRASH_MEMORY,
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.SCHEDULED,
                    name="AwaitingRetry",
                    message="It crashed, and is tried again.",
                    force=False,
                )
            ],
        ),
    ]


def notifications(
    webhook: UUID, pools: Iterable[str], watched: Iterable[Automation] = ()
) -> list[Automation]:
    """The automations that tell somebody.

    Args:
        webhook: id of the block to call.
        pools: names of the work pools that should have a worker.
        watched: automations that are not to fail unnoticed. Notifications themselves never are:
            a webhook that does not answer would be called to tell of that.
    """
    told = CallWebhook(block_document_id=webhook, payload=_RUN_PAYLOAD)
    return [
        Automation(
            name="fer: a failed run is notified",
            description="Failed, timed out or crashed.",
            tags=[TAG],
            trigger=_on(
                "prefect.flow-run.Failed",
                "prefect.flow-run.TimedOut",
                "prefect.flow-run.Crashed",
                match=_RUNS,
                match_related=_OURS,
            ),
            actions=[told],
        ),
        Automation(
            name="fer: late runs are notified",
            description=f"Once in {_hours(LATE_PAUSE)} for each deployment.",
            tags=[TAG],
            trigger=_on(
                "prefect.flow-run.Late",
                match=_RUNS,
                match_related=_OURS,
                for_each={"related:deployment:prefect.resource.id"},
                within=LATE_PAUSE,
            ),
            actions=[CallWebhook(block_document_id=webhook, payload=_LATE_PAYLOAD)],
        ),
        Automation(
            name="fer: a pool without a worker is notified",
            description="Its last worker has not been heard of for a minute and a half.",
            tags=[TAG],
            trigger=_on(
                "prefect.work-pool.not-ready", match={"prefect.resource.name": sorted(pools)}
            ),
            actions=[CallWebhook(block_document_id=webhook, payload=_POOL_PAYLOAD)],
        ),
        Automation(
            name="fer: an automation that could not act is notified",
            description="A training that does not start by itself must be started by hand.",
            tags=[TAG],
            trigger=_on(
                "prefect.automation.action.failed",
                match={"prefect.resource.name": [one.name for one in watched]},
            ),
            actions=[CallWebhook(block_document_id=webhook, payload=_ACTION_PAYLOAD)],
        ),
    ]


def ensure_webhook(client: SyncPrefectClient) -> UUID | None:
    """The block that notifications call, with FER_NOTIFY_URL where that is set.

    Where it is not, the block that an earlier deployment made stays in use: somebody who deploys
    without the address silences nobody. Delete the block to end notifications.

    Returns:
        its id; None where there is none.
    """
    address = settings().notify_url
    try:
        found = client.read_block_document_by_name(WEBHOOK, "webhook", include_secrets=True)
    except ObjectNotFound:
        found = None
    if address is None:
        return found.id if found else None
    url = address.get_secret_value()
    if found is None or found.data.get("url") != url:
        headers = SecretDict({"Content-Type": "application/json"})
        block = Webhook(url=address, headers=headers)
        block.save(WEBHOOK, overwrite=True)
        found = client.read_block_document_by_name(WEBHOOK, "webhook")
    return found.id


def apply(client: SyncPrefectClient, wanted: Iterable[Automation]) -> Changes:
    """Make the server's automations of this project those that are wanted.

    One that an operator has paused stays paused. Others' automations are left alone.
    """
    ours = AutomationFilter(tags=AutomationFilterTags(all_=[TAG]))
    present: dict[str, Any] = {}
    surplus = []
    for found in client.read_automations(automations=ours):
        if found.name in present:
            surplus.append(found)  # two deployments at once may have made two
        present.setdefault(found.name, found)
    created, updated = [], []
    for one in wanted:
        found = present.pop(one.name, None)
        if found is None:
            client.create_automation(_core(one))
            created.append(one.name)
        elif _content(found) != _content(one):
            client.update_automation(found.id, _core(one, enabled=found.enabled))
            updated.append(one.name)
    surplus += present.values()
    for found in surplus:
        client.delete_automation(found.id)
    removed = sorted({found.name for found in surplus})
    return Changes(tuple(created), tuple(updated), tuple(removed))


def deploy(client: SyncPrefectClient, pools: Iterable[str]) -> Changes:
    """Apply all of them; the deployments must exist."""
    ids = {name: client.read_deployment_by_name(name).id for name in (TRAIN, GATE, SMOKE)}
    wanted = work(ids)
    if (webhook := ensure_webhook(client)) is not None:
        wanted += notifications(webhook, pools, wanted)
    return apply(client, wanted)


def _on(*names: str, **conditions: Any) -> EventTrigger:
    return EventTrigger(expect=set(names), posture=Posture.Reactive, threshold=1, **conditions)


def _run(deployment: UUID, **parameters: Any) -> RunDeployment:
    return RunDeployment(
        source="selected", deployment_id=deployment, parameters=parameters, job_variables=None
    )


def _hours(time: timedelta) -> str:
    count = round(time.total_seconds() / 3600)
    return "an hour" if count == 1 else f"{count} hours"


def _duration(time: timedelta) -> str:
    seconds = round(time.total_seconds())
    return f"{seconds} s" if seconds < 600 else f"{round(seconds / 60)} minutes"


def _content(automation: AutomationCore) -> dict[str, Any]:
    return automation.model_dump(exclude={"id", "enabled", "owner_resource"})


def _core(automation: AutomationCore, enabled: bool = True) -> AutomationCore:
    # Through JSON, so that every field counts as set: an update sends only those, and without
    # the types of trigger and actions the server does not know what they are.
    document = automation.model_dump(mode="json", exclude={"id", "owner_resource"})
    return AutomationCore.model_validate(document | {"enabled": enabled})
