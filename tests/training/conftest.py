"""Commands and scripts in processes of their own, a tiny prepared table, and one real training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer.dataset.prepare import prepare
from fer.dataset.synthetic import synthetic_dataset
from fer.dataset.table import FaceTable, write_source
from fer.files import write_text
from fer.params import Params, parse_params

CHECKOUT = Path(__file__).resolve().parents[2]

Script = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**more: str) -> dict[str, str]:
    """This checkout first, nothing of the developer's settings."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), **more}


def start_training(folder: Path, *options: str, **more: str) -> subprocess.Popen[str]:
    """`fer train` with the table and params.yaml of a `Workplace`, in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "fer", "train", *options],
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tiny_params(**train: Any) -> dict[str, Any]:
    """params.yaml of a run that takes seconds per epoch; `train` overrides its section."""
    document: dict[str, Any] = yaml.safe_load((CHECKOUT / "params.yaml").read_text())
    tiny = {"input_size": 32, "smaller_first": [], "weights": "none", "batch_size": 16}
    document["train"] |= tiny | train
    return document


@dataclass
class Workplace:
    """A folder with what `fer train` reads: params.yaml and data/prepared/faces.parquet."""

    folder: Path
    params: Params

    @property
    def faces(self) -> Path:
        return self.folder / "data" / "prepared" / "faces.parquet"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared table of 70 drawn faces: 55 to train on, 7 for validation, 7 for the test."""
    folder = tmp_path_factory.mktemp("prepared")
    write_source(folder / "images.parquet", synthetic_dataset(10, 0.0, seed=1))
    params = parse_params(tiny_params())
    prepare(folder / "images.parquet", params.prepare, 1, folder, folder / "cleaning.json")
    return folder / "faces.parquet"


@pytest.fixture(scope="session")
def table(prepared: Path) -> FaceTable:
    return FaceTable.read(prepared)


@pytest.fixture(scope="session")
def workplace(prepared: Path) -> Callable[..., Workplace]:
    """Makes one: `workplace(folder, **section_train)`."""

    def make(folder: Path, **train: Any) -> Workplace:
        document = tiny_params(**train)
        place = Workplace(folder, parse_params(document))
        place.faces.parent.mkdir(parents=True)
        place.faces.write_bytes(prepared.read_bytes())
        write_text(folder / "params.yaml", yaml.safe_dump(document))
        return place

    return make


@pytest.fixture(scope="session")
def python() -> Script:
    """Runs a script of its own process, which must end within `timeout` seconds."""

    def run(
        script: str, *arguments: str, timeout: float = 600, **more: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env=environment(**more),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@dataclass
class Training:
    """A finished `fer train`: its folder, what it said, and how it ran."""

    place: Workplace
    document: dict[str, Any]
    log: str

    @property
    def trained(self) -> Path:
        return self.place.folder / "models" / "trained"


# The second epoch and the third cannot be 100 better than the first: the rule strikes after the
# third of four, and the weights of the first are kept.
STOPPING: dict[str, Any] = {
    "head": {"epochs": 1, "learning_rate": 0.03},
    "finetune": {
        "epochs": 3,
        "learning_rate": 0.01,
        "warmup_epochs": 0.5,
        "weight_decay": 0.02,
        "clip_norm": 1.0,
        "average": 0.0,
    },
    "early_stopping": {"patience": 2, "min_delta": 100.0},
}


def finish(process: subprocess.Popen[str], place: Workplace) -> Training:
    """Wait for `fer train --json`."""
    out, log = process.communicate(timeout=3600)
    assert process.returncode == 0, log
    return Training(place, json.loads(out), log)


@pytest.fixture(scope="session")
def training(
    tmp_path_factory: pytest.TempPathFactory, workplace: Callable[..., Workplace]
) -> Training:
    """A real EfficientNetB2, trained without a break until early stopping struck."""
    place = workplace(tmp_path_factory.mktemp("training") / "whole", **STOPPING)
    return finish(start_training(place.folder, "--json"), place)


@pytest.fixture(scope="session")
def exported(training: Training) -> Path:
    """model.onnx of that training, written by `fer export`."""
    done = subprocess.run(
        [sys.executable, "-m", "fer", "export"],
        cwd=training.place.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return training.place.folder / "models" / "exported" / "model.onnx"


class Runner:
    """What tests of whole runs share, beyond fixtures."""

    stopping = STOPPING
    params = staticmethod(tiny_params)
    start = staticmethod(start_training)
    finish = staticmethod(finish)


@pytest.fixture(scope="session")
def runner() -> type[Runner]:
    return Runner


@pytest.fixture(scope="session")
def shipped_network() -> Any:
    """The network of the shipped model: random weights would magnify rounding at every layer."""
    from fer.reference import reference_package
    from fer.training.warm_start import network_of

    return network_of(reference_package())


@pytest.fixture(scope="session")
def shipped_training(shipped_network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a training of that network would leave, as far as export reads it."""
    from fer.reference import reference_package

    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(reference_package().file("network.json"), folder)
    shipped_network.save_weights(folder / "network.weights.h5")
    return folder


@pytest.fixture(scope="session")
def shipped_onnx(shipped_training: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx of that network, as `fer export` writes it."""
    from fer.training import start

    folder = tmp_path_factory.mktemp("exported")
    start.export(shipped_training, folder)
    return folder / "model.onnx"
