"""The project's events: what happened, for automations here and elsewhere to act on.

`flows/automations.py` says what each one starts, docs/operations.md has the table. An event names
one resource, with labels that tell which model, data and commit it is about:

    fer.data.hash        hash of data/prepared, as dvc.lock has it
    fer.commit           commit that made it, as in deployment versions and tags
    fer.model.name       name, version, reference (name:7) and digest of a registered model
    fer.model.version
    fer.model.reference
    fer.model.digest
    fer.model.registry   address of the registry that it is a version of

Sending happens in the background and never fails a flow: where there is no server, or it does not
take the event, the run's log says so and the work that was done stays done.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from fer.files import write_json
from fer.inference.batch import BatchSummary
from fer.lineage import Lineage
from fer.registry.versions import Version
from flows.lineage import PREPARED, made_from
from flows.redaction import redactor
from flows.writer import Log, dvc_root

DATA_VALIDATED: Final = "fer.data.validated"
MODEL_REGISTERED: Final = "fer.model.registered"
MODEL_PROMOTED: Final = "fer.model.promoted"
BATCH_FINISHED: Final = "fer.batch.finished"
DRIFT_FOUND: Final = "fer.drift.found"
ALL: Final = (DATA_VALIDATED, MODEL_REGISTERED, MODEL_PROMOTED, BATCH_FINISHED, DRIFT_FOUND)

# Whether the run that registers a model takes it through the gate, or leaves that to an automation.
Gate = Literal["here", "awaited"]
GATE_LABEL: Final = "fer.gate"


def remember_data(project: Path) -> None:
    """Before the stages run: note which data everybody knows, unless that is noted already.

    The note outlives a run that is killed between its last stage and its event, so that the next
    run still finds the data new.
    """
    note = _note(project)
    if not note.exists():
        _write_note(note, Lineage.of(project).outputs.get(PREPARED))


def data_validated(project: Path) -> bool:
    """After the stages: tell of validated and prepared data, if they are others than last time.

    A flow that was called by another one tells nobody: its caller uses the data itself.

    Returns:
        whether it was told. What could not be sent is new to the next run, too.
    """
    lineage = Lineage.of(project)
    digest = lineage.outputs.get(PREPARED)
    note = _note(project)
    if digest is None or digest == _read_note(note):
        return False
    alone = _alone()
    if alone and not _emit(DATA_VALIDATED, _data(digest) | {"fer.commit": lineage.version}, {}):
        return False
    _write_note(note, digest)
    return alone


def model_registered(version: Version, registry: str, gate: Gate) -> None:
    """Tell of a version that no gate has decided on yet.

    Args:
        version: of the model.
        registry: its address. Another registry may have an unrelated version of that number.
        gate: who decides on it.
    """
    _emit(MODEL_REGISTERED, _model(version, registry) | {GATE_LABEL: gate}, _figures(version))


def model_promoted(version: Version, registry: str, reason: str) -> None:
    """Tell that a version is the champion of a registry now, and was not before."""
    _emit(MODEL_PROMOTED, _model(version, registry), _figures(version) | {"reason": reason})


def batch_finished(summary: BatchSummary) -> None:
    """Tell what a batch run did, unless another flow called it."""
    if not _alone():
        return
    document = summary.as_dict()
    resource = {
        "prefect.resource.id": f"fer.batch.{summary.run_id}",
        "prefect.resource.name": f"batch {summary.run_id}",
        **_model_labels(summary.model_name, summary.model_version, summary.model_digest),
    }
    # Lists may be long, and the artifacts of the run have them.
    payload = {name: value for name, value in document.items() if not isinstance(value, list)}
    _emit(BATCH_FINISHED, resource, payload)


def drift_found(name: str, number: int | None, digest: str, figures: Mapping[str, Any]) -> None:
    """Tell that what a model sees, or says, has moved away from its reference.

    Args:
        name: of the model.
        number: its version; None where it is not from a registry.
        digest: sha256 of the package's manifest.
        figures: what was measured, small enough to be read in a log.
    """
    resource = {
        "prefect.resource.id": f"fer.drift.{name}",
        "prefect.resource.name": f"drift of {name}",
        **_model_labels(name, number, digest),
    }
    _emit(DRIFT_FOUND, resource, dict(figures))


def _emit(event: str, resource: dict[str, str], payload: dict[str, Any]) -> bool:
    """Send an event; whether a server took it, as far as that is known at once."""
    log = _log()
    try:
        clean = redactor()
        document = json.loads(clean(json.dumps(payload, default=str)))
        if emit_event(event, resource, payload=document) is None:
            log.warning("Event %s was not sent: no server takes events.", event)
            return False
        log.info("Event %s of %s.", event, resource["prefect.resource.name"])
    except Exception as error:  # nobody's work is lost because nobody was told
        log.warning("Event %s was not sent: %s", event, error)
        return False
    return True


def _data(digest: str) -> dict[str, str]:
    return {
        "prefect.resource.id": f"fer.data.{digest[:12]}",
        "prefect.resource.name": f"data {digest[:12]}",
        "fer.data.hash": digest,
    }


def _model(version: Version, registry: str) -> dict[str, str]:
    labels = {
        "prefect.resource.id": f"fer.model.{version.name}.{version.number}",
        "prefect.resource.name": str(version),
        **_model_labels(version.name, version.number, version.digest),
        "fer.model.registry": registry,
    }
    # The package's own, not those of the folder that the flow happens to run in.
    found = made_from(version.manifest.lineage)
    if "data" in found:
        labels["fer.data.hash"] = found["data"]
    return labels | {"fer.commit": found["commit"]}


def _model_labels(name: str, number: int | None, digest: str) -> dict[str, str]:
    labels = {"fer.model.name": name, "fer.model.digest": digest}
    if number is not None:
        labels |= {"fer.model.version": str(number), "fer.model.reference": f"{name}:{number}"}
    return labels


def _figures(version: Version) -> dict[str, Any]:
    """The package's figures on the test set, without the long ones."""
    test = version.manifest.metrics.get("test")
    document = test if isinstance(test, Mapping) else {}
    return {name: value for name, value in document.items() if isinstance(value, int | float)}


def _alone() -> bool:
    """Whether this flow run was started by itself: by a schedule, a hand or an automation."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run is not None and run.parent_task_run_id is None


def _log() -> Log:
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


def _note(project: Path) -> Path:
    return dvc_root(project) / ".dvc" / "tmp" / "fer-announced.json"


def _read_note(note: Path) -> str | None:
    try:
        document = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # at worst the data are told of once more
    found = document.get("data") if isinstance(document, dict) else None
    return found if isinstance(found, str) else None


def _write_note(note: Path, digest: str | None) -> None:
    try:
        write_json(note, {"data": digest})
    except OSError as error:
        _log().warning("%s cannot be written, so the data may be told of twice: %s", note, error)
