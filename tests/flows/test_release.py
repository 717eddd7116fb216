"""Flow evaluate-and-register: a folder registry, a gate, two versions."""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, TaskRunFilter

from fer.dataset.table import FaceTable
from fer.errors import GateError, NotFoundError, UnavailableError, WorkflowError
from fer.evaluation.gate_data import judge
from fer.expressions import EXPRESSIONS
from fer.inference import judged
from fer.params import load_params
from fer.registry.package import write_package
from fer.registry.registry import Registry
from flows import events
from flows.release import Release, decide, evaluate_and_register, gate, register
from flows.writer import writer

pytestmark = pytest.mark.usefixtures("server", "clean_environment")

ROOT = Path(__file__).parents[2]
NAME = "fer2013-efficientnetb2"


@pytest.fixture
def trained(project: Callable[..., Path], put_package: Callable[..., None]) -> Path:
    """A project whose package is made already."""
    folder = project({"evaluate": {"cmd": "echo done"}, "package": {"cmd": "echo done"}})
    shutil.copy(ROOT / "params.yaml", folder)
    put_package(folder, 0.70)
    return folder


def test_the_gate_decides_who_is_champion(
    trained: Path, tmp_path: Path, put_package: Callable[..., None]
) -> None:
    registry = str(tmp_path / "registry")
    state = evaluate_and_register(project=trained, registry=registry, return_state=True)
    release = state.result()
    assert isinstance(release, Release)
    assert (state.name, release.reference, release.number) == ("Promoted", f"{NAME}@champion", 1)

    put_package(trained, 0.65)  # above the gate, too far below the champion
    state = evaluate_and_register(project=trained, registry=registry, return_state=True)
    assert state.is_completed()
    assert state.name == "NotPromoted"
    assert "too far below the champion's 0.7000" in (state.message or "")
    models = Registry.open(registry)
    assert models.resolve(f"{NAME}@champion").number == 1
    assert models.resolve(f"{NAME}@challenger").number == 2
    gate = models.events(NAME)[-1].gate
    assert gate is not None
    assert (gate["passed"], gate["champion"]) == (False, 1)
    assert models.state(NAME, 2).gate == gate
    assert models.state(NAME, 1).gate is not None


def test_registering_without_promotion(trained: Path, tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")

    @flow(name="without-promotion")
    def without_promotion() -> Release:
        return decide(register(trained, registry, "new"), trained, registry, False)

    release = without_promotion()
    assert (release.alias, release.moved) == ("challenger", True)
    with pytest.raises(NotFoundError):
        Registry.open(registry).resolve(f"{NAME}@champion")


@pytest.mark.parametrize("error", [UnavailableError("the answer was lost"), RuntimeError("killed")])
def test_what_ends_between_promotion_and_event_is_told_of_by_the_next_try(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The first of the two is tried again by the task, the second by the run."""
    registry = str(tmp_path / "registry")
    told: list[str] = []
    monkeypatch.setattr(events, "model_promoted", lambda version, *_: told.append(str(version)))
    promote, errors = Registry.promote, [error]

    def ended_after(*arguments: Any, **options: Any) -> Any:
        alias = promote(*arguments, **options)
        if errors:
            raise errors.pop()
        return alias

    monkeypatch.setattr(Registry, "promote", ended_after)
    deciding = decide.with_options(retry_delay_seconds=0)

    @flow(name="ended-in-between", retries=1)
    def ended_in_between() -> Release:
        return deciding(register(trained, registry, ""), trained, registry, True)

    for _ in range(2):  # the second moves nothing, and is no second try
        assert ended_in_between().alias == "champion"
        assert told == [f"{NAME}:1"]
    assert not errors


def test_a_version_of_that_number_in_another_registry_is_refused(
    trained: Path, tmp_path: Path, put_package: Callable[..., None]
) -> None:
    """As where a worker's FER_S3_ENDPOINT leads to another server."""
    meant = Registry.open(str(tmp_path / "meant")).register(trained / "models" / "package")
    put_package(trained, 0.71)
    other = Registry.open(str(tmp_path / "other"))
    other.register(trained / "models" / "package")
    with pytest.raises(WorkflowError, match="another one than that of the version"):
        gate(f"{NAME}:1", other.url, project=trained, digest=meant.digest)
    assert other.state(NAME, 1).gate is None
    with pytest.raises(NotFoundError):
        other.resolve(f"{NAME}@champion")
    release = gate(f"{NAME}:1", str(tmp_path / "meant"), project=trained, digest=meant.digest)
    assert release.alias == "champion"


def test_both_models_are_run_on_the_test_images_of_the_project(
    trained: Path,
    tmp_path: Path,
    put_package: Callable[..., None],
    put_faces: Callable[[Path], None],
) -> None:
    """Where the prepared table is there, recorded figures decide nothing."""
    put_faces(trained / "data" / "prepared" / "faces.parquet")
    registry = str(tmp_path / "registry")

    @flow(name="with-test-images")
    def with_test_images() -> Release:
        return decide(register(trained, registry, ""), trained, registry, True)

    release = with_test_images()
    # Recorded is an accuracy of 0.70; what it says of these images is right for one in seven.
    assert release.alias == "challenger"
    assert "accuracy 0.1429 is below 0.6" in release.text
    models = Registry.open(registry)
    gate = models.state(NAME, 1).gate
    assert gate is not None
    assert (gate["champion"], gate["figures"]["images"]) == (None, 14)
    assert gate["figures"]["challenger"]["recall"]["happy"] == 1.0
    with pytest.raises(GateError, match=r"did not pass the gate"):
        models.promote(NAME, 1)
    assert models.promote(NAME, 1, force=True).forced

    put_package(trained, 0.71)  # another package, of the same model
    release = with_test_images()
    gate = models.state(NAME, 2).gate
    assert gate is not None
    assert gate["champion"] == 1
    assert gate["figures"]["mcnemar"]["p_value"] == 1.0


def names_data(folder: Path) -> None:
    """As a dvc.lock of a project whose data have been prepared."""
    stage = {"cmd": "true", "outs": [{"path": "data/prepared", "md5": "0" * 32}]}
    lock = {"schema": "2.0", "stages": {"prepare": stage}}
    (folder / "dvc.lock").write_text(json.dumps(lock) + "\n")


def test_data_that_are_being_prepared_are_waited_for(
    trained: Path, tmp_path: Path, put_faces: Callable[[Path], None]
) -> None:
    """DVC has removed them, and whoever prepares them holds the project's lock."""
    names_data(trained)
    models = Registry.open(str(tmp_path / "registry"))
    models.register(trained / "models" / "package")
    held = threading.Event()

    def prepare() -> None:
        with writer(trained, "stage prepare", logging.getLogger(), limit=None, timeout=10):
            held.set()
            time.sleep(3)
            put_faces(trained / "data" / "prepared" / "faces.parquet")

    preparing = threading.Thread(target=prepare)
    preparing.start()
    assert held.wait(10)
    release = gate(f"{NAME}:1", models.url, project=trained)
    preparing.join()
    assert "accuracy 0.1429 is below" in release.text, "measured, not the recorded 0.70"
    assert release.alias == "challenger"


def test_data_that_should_be_there_are_not_done_without(trained: Path, tmp_path: Path) -> None:
    names_data(trained)
    models = Registry.open(str(tmp_path / "registry"))
    models.register(trained / "models" / "package")
    with pytest.raises(WorkflowError, match=r"dvc\.lock names data/prepared"):
        gate(f"{NAME}:1", models.url, project=trained)
    assert models.state(NAME, 1).gate is None


@pytest.mark.filterwarnings("default")  # what distributed warns of is its own affair
def test_workers_come_to_the_same_decision(
    trained: Path,
    tmp_path: Path,
    model_file: Path,
    put_faces: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("prefect_dask")
    monkeypatch.setattr(judged, "SHARE_IMAGES", 5)  # three shares for each model
    faces = trained / "data" / "prepared" / "faces.parquet"
    put_faces(faces)
    registry = str(tmp_path / "registry")
    models = Registry.open(registry)
    versions = []
    for named in ("happy", "fear"):  # one model takes every face for happy, the other for fear
        package = write_package(
            tmp_path / named,
            name=NAME,
            description="A stand-in.",
            files={"model.onnx": always(named, model_file, tmp_path / f"{named}.onnx")},
            metrics={},
            lineage={},
        )
        versions.append(models.register(package.folder))
    models.promote(NAME, 1, force=True)
    params = load_params(trained / "params.yaml")
    alone = judge(
        models.pull(str(versions[1])),
        models.pull(str(versions[0])),
        FaceTable.read(faces),
        params.gate,
        bins=params.evaluate.calibration_bins,
    )

    state = gate(f"{NAME}:2", registry, project=trained, workers=2, return_state=True)
    assert state.result().alias == "challenger"
    decision = models.state(NAME, 2).gate
    assert decision is not None
    recall = {role: decision["figures"][role]["recall"] for role in ("challenger", "champion")}
    assert (recall["challenger"]["fear"], recall["champion"]["happy"]) == (1.0, 1.0)
    assert untimed(decision) == untimed(json.loads(json.dumps(alone.document())) | {"champion": 1})
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_filter=FlowFilter(name={"any_": ["judge-models"]}))
        wanted = TaskRunFilter(flow_run_id={"any_": [run.id]})
        assert len(client.read_task_runs(task_run_filter=wanted)) == 6


def always(named: str, model_file: Path, path: Path) -> Path:
    """A copy of the model that finds one expression in every face."""
    import onnx

    model = onnx.load(model_file)
    (weights,) = [one for one in model.graph.initializer if one.name == "weights"]
    found = np.array([one == named for one in EXPRESSIONS], np.float32)
    weights.CopyFrom(onnx.numpy_helper.from_array(found, "weights"))
    onnx.save(model, path)
    return path


def untimed(document: dict[str, Any]) -> dict[str, Any]:
    """A decision without what is measured anew each time: the seconds."""
    text = re.sub(r"latency_ms [0-9.]+", "latency_ms", document["text"])
    checks = [
        one | ({"value": 0, "text": ""} if one["name"] == "latency_ms" else {})
        for one in document["checks"]
    ]
    figures = {
        name: {key: one for key, one in value.items() if key != "latency_ms"}
        if isinstance(value, dict)
        else value
        for name, value in document["figures"].items()
    }
    return document | {"text": text, "checks": checks, "figures": figures}
