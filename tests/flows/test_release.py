"""Flow evaluate-and-register: a folder registry, a gate, two versions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prefect import flow

from fer.dataset.table import FaceTable
from fer.errors import GateError, NotFoundError
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


def test_both_models_are_run_on_the_test_images_of_the_project(
    trained: Path, tmp_path: Path, put_package: Callable[..., None]
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


def put_faces(path: Path) -> None:
    """A prepared table of 14 bright test images, two of each expression."""
    expression = np.repeat(np.arange(7, dtype=np.int8), 2)
    n = len(expression)
    FaceTable(
        name=np.array([f"{index}.png" for index in range(n)]),
        pixels=np.full((n, 48, 48), 250, np.uint8),
        expression=expression,
        split=np.array(["test"] * n),
        sha256=np.array([f"{index:064d}" for index in range(n)]),
        cleaning=np.array(["keep"] * n),
        near_twin=np.zeros(n, bool),
    ).write(path)
