"""Events: what is told, once, with which labels, and that no flow fails for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import flow

from fer.errors import SettingsError
from fer.inference.batch import BatchSummary
from fer.registry.registry import Registry
from fer.registry.versions import Version
from flows import events
from flows.registration import register
from flows.training import train

Told = list[tuple[str, dict[str, str], dict[str, Any]]]
Make = Callable[[dict[str, dict[str, object]]], Path]
NAME = "fer2013-efficientnetb2"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What would be sent; tests/flows/test_server.py sends it."""
    sent: Told = []

    def emit(event: str, resource: dict[str, str], payload: dict[str, Any]) -> object:
        sent.append((event, resource, payload))
        return sent

    monkeypatch.setattr(events, "emit_event", emit)
    return sent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def prepared(folder: Path, digest: str) -> None:
    """As if DVC had made these data."""
    stage = {"outs": [{"path": "data/prepared", "md5": digest}]}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": {"prepare": stage}}))


@flow(name="telling")
def telling(folder: Path) -> bool:
    return events.data_validated(folder)


@flow(name="calling")
def calling(folder: Path) -> bool:
    return telling(folder)


@pytest.mark.usefixtures("server")
class TestData:
    def test_other_data_are_told_of_once(self, folder: Path, told: Told) -> None:
        prepared(folder, "a" * 32)
        events.remember_data(folder)
        assert not telling(folder)
        prepared(folder, "b" * 32)
        assert telling(folder)
        assert not telling(folder)
        ((event, resource, _),) = told
        assert event == "fer.data.validated"
        assert resource["prefect.resource.id"] == "fer.data.bbbbbbbbbbbb"
        assert resource["fer.data.hash"] == "b" * 32
        assert resource["fer.commit"]

    def test_the_first_data_of_a_project_are_new(self, folder: Path, told: Told) -> None:
        events.remember_data(folder)
        prepared(folder, "a" * 32)
        assert telling(folder)
        assert len(told) == 1

    def test_a_run_killed_before_its_event_is_made_good(self, folder: Path, told: Told) -> None:
        prepared(folder, "a" * 32)
        events.remember_data(folder)
        prepared(folder, "b" * 32)  # and here it was killed
        events.remember_data(folder)
        assert telling(folder)

    def test_what_could_not_be_sent_is_told_of_by_the_next_run(
        self, folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events.remember_data(folder)
        prepared(folder, "a" * 32)
        with monkeypatch.context() as patch:
            patch.setattr(events, "emit_event", lambda *_, **__: None)
            assert not telling(folder)
        assert telling(folder)
        assert len(told) == 1

    def test_who_calls_the_flow_uses_the_data_itself(self, folder: Path, told: Told) -> None:
        events.remember_data(folder)
        prepared(folder, "a" * 32)
        assert not calling(folder)
        assert not telling(folder)
        assert told == []

    def test_a_damaged_note_is_no_failure(self, folder: Path, told: Told) -> None:
        prepared(folder, "a" * 32)
        events.remember_data(folder)
        (folder / ".dvc/tmp/fer-announced.json").write_text("[")
        assert telling(folder)
        assert not telling(folder)


def summary(**figures: Any) -> BatchSummary:
    return BatchSummary(
        run_id="r1",
        input="s3://key:wJalrXUtnFEMI@host/in",
        output="out",
        model_name=NAME,
        model_version=7,
        model_digest="d" * 64,
        detector="dlib-hog",
        faces_digest="f",
        started_at="now",
        **figures,
    )


@flow(name="batch-like")
def batch_like() -> None:
    events.batch_finished(summary(faces=3, problems=[{"picture": "a.jpg", "reason": "torn"}]))


@flow(name="calling-a-batch")
def calling_a_batch() -> None:
    batch_like()


@pytest.mark.usefixtures("server")
def test_a_batch_run_by_itself_is_told_of(told: Told) -> None:
    calling_a_batch()
    assert told == []
    batch_like()
    ((event, resource, payload),) = told
    assert event == "fer.batch.finished"
    assert resource["fer.model.reference"] == f"{NAME}:7"
    assert resource["fer.model.digest"] == "d" * 64
    assert payload["faces"] == 3
    assert "problems" not in payload
    assert "wJalrXUtnFEMI" not in json.dumps(payload)


@pytest.fixture
def version(tmp_path: Path, put_package: Callable[..., None]) -> Version:
    put_package(tmp_path, 0.7)
    return Registry.open(str(tmp_path / "registry")).register(tmp_path / "models" / "package")


def test_a_model_is_told_of_with_its_origin(version: Version, told: Told) -> None:
    lineage = {"git_commit": "a" * 40, "git_changed": True, "dvc": {"data/prepared": "b" * 32}}
    manifest = version.manifest.model_copy(update={"lineage": lineage})
    made = Version(version.name, 7, version.digest, "", "", "", manifest)
    events.model_registered(made, "s3://fer/staging", "awaited")
    events.model_promoted(made, "s3://fer/staging", "better")
    events.drift_found(NAME, 7, version.digest, {"psi": 0.3})
    (registered, promoted, drift) = told
    assert [one[0] for one in told] == [
        "fer.model.registered",
        "fer.model.promoted",
        "fer.drift.found",
    ]
    assert registered[1] == {
        "prefect.resource.id": f"fer.model.{NAME}.7",
        "prefect.resource.name": f"{NAME}:7",
        "fer.model.name": NAME,
        "fer.model.version": "7",
        "fer.model.reference": f"{NAME}:7",
        "fer.model.digest": version.digest,
        "fer.model.registry": "s3://fer/staging",
        "fer.data.hash": "b" * 32,
        "fer.commit": "a" * 12 + "-dirty",
        "fer.gate": "awaited",
    }
    assert promoted[1]["fer.model.registry"] == "s3://fer/staging"
    assert promoted[2]["accuracy"] == 0.7
    assert promoted[2]["reason"] == "better"
    assert drift[1]["fer.model.name"] == NAME
    assert drift[2] == {"psi": 0.3}


def test_a_package_of_unknown_origin_has_a_commit_that_says_so(
    version: Version, told: Told
) -> None:
    events.model_registered(version, "s3://fer/staging", "here")
    assert told[0][1]["fer.commit"] == "no-commit"
    assert "fer.data.hash" not in told[0][1]


@pytest.mark.parametrize("outcome", [None, OSError("no route")])
def test_what_cannot_be_sent_is_a_line_in_the_log(
    outcome: Exception | None,
    version: Version,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def emit(*_: object, **__: object) -> None:
        if outcome:
            raise outcome

    monkeypatch.setattr(events, "emit_event", emit)
    with caplog.at_level(logging.WARNING):
        events.model_promoted(version, "s3://fer/staging", "better")
    assert "fer.model.promoted was not sent" in caplog.text


@pytest.mark.usefixtures("server", "clean_environment")
class TestRegistration:
    def test_a_version_is_told_of_until_a_gate_has_decided(
        self, folder: Path, put_package: Callable[..., None], told: Told
    ) -> None:
        put_package(folder, 0.7)
        models = Registry.open(str(folder / "registry"))

        @flow(name="registering")
        def registering() -> Version:
            return register(folder, models.url, "", gate="awaited")

        version = registering()
        registering()  # the run before may have been killed right after the registration
        assert [one[1]["fer.gate"] for one in told] == ["awaited", "awaited"]
        assert {one[1]["fer.model.registry"] for one in told} == {str(folder / "registry")}
        models.judge(version.name, version.number, {"passed": False})
        registering()
        assert len(told) == 2

    def test_a_training_leaves_the_decision_to_the_gate(
        self, project: Make, put_package: Callable[..., None], tmp_path: Path, told: Told
    ) -> None:
        names = ("train", "evaluate", "package")
        stages: dict[str, dict[str, object]] = {name: {"cmd": "echo done"} for name in names}
        folder = project(stages)
        put_package(folder, 0.7)
        train(project=folder, check_data=False, submit=True, registry=str(tmp_path / "registry"))
        ((event, resource, _),) = told
        assert (event, resource["fer.gate"]) == ("fer.model.registered", "awaited")

    def test_without_a_registry_it_does_not_begin(self, project: Make) -> None:
        with pytest.raises(SettingsError, match="FER_REGISTRY"):
            train(project=project({}), submit=True)
