"""Flow evaluate-and-register: a folder registry, a gate, two versions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect import flow

from fer.errors import NotFoundError
from fer.registry.registry import Registry
from flows.release import Release, decide, evaluate_and_register, register

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
    assert gate["passed"] is False


def test_registering_without_promotion(trained: Path, tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")

    @flow(name="without-promotion")
    def without_promotion() -> Release:
        return decide(register(trained, registry, "new"), trained, registry, False)

    release = without_promotion()
    assert (release.alias, release.moved) == ("challenger", True)
    with pytest.raises(NotFoundError):
        Registry.open(registry).resolve(f"{NAME}@champion")
