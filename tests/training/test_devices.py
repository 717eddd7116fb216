"""Several devices: each takes its share of a batch, and the step is the same as on one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from fer.training.devices import Devices, data_parallel

pytestmark = pytest.mark.slow

# A small network stands for EfficientNetB2, whose graph takes a minute to build; everything
# around it (augmentation with its random state, optimizer with its schedule, batches from an
# iterator, checkpoints) is the real thing.
_RUN = """
import json, sys
from pathlib import Path

import numpy as np

count, faces, params_file, folder = int(sys.argv[1]), *map(Path, sys.argv[2:])

import keras
if keras.backend.backend() == "tensorflow":  # JAX has its number of devices from XLA_FLAGS
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(cpu, devices)
    shares = lambda strategy: strategy.num_replicas_in_sync
else:
    shares = lambda distribution: distribution.device_mesh.devices.size

import fer.training.train as module
from fer.dataset.table import FaceTable
from fer.params import load_params
from fer.training.checkpoint import Checkpoint
from fer.training.devices import configure, data_parallel

def small():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=4, activation="relu")(x)
    return keras.Model(inputs, x, name="backbone")

module.build_backbone = small
params = load_params(params_file)
table = FaceTable.read(faces)
devices = configure(seed=params.seed, precision="float32", deterministic=True)
# Each device sees the same eight faces, as its batch norm takes its own share's statistics.
pixels = np.concatenate([table.part("train").pixels[:8]] * 2)[..., None]
labels = np.eye(7, dtype="float32")[np.concatenate([table.part("train").expression[:8]] * 2)]

class Same(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, step):
        return pixels, labels

def fresh():
    keras.utils.set_random_seed(params.seed)
    return module.Trainer(table, params.train, seed=params.seed, devices=devices)

with data_parallel(devices) as strategy:
    trainer = fresh()
    replicas = shares(strategy) if strategy else 1
    steps = []
    for epoch in (1, 2):
        trainer.prepare(epoch)
        for _ in range(2):
            logs = trainer.model.fit(Same(), verbose=0, shuffle=False).history
            steps.append(logs["loss"][0])
    # Whole runs, each on a fresh trainer.
    print("steps " + json.dumps({
        "count": devices.count, "replicas": replicas, "losses": steps
    }), flush=True)
    trainer = fresh()
    state = trainer.run(Checkpoint(folder / "whole"), lambda state: None)
    # And a run that is cut off after its first finetune epoch and goes on.
    class Cut(Exception): pass
    def cut(state):
        if len(state.history) == 2:
            raise Cut
    trainer = fresh()
    try:
        trainer.run(Checkpoint(folder / "cut"), cut)
    except Cut:
        pass
    trainer = fresh()
    resumed = trainer.run(Checkpoint(folder / "cut"), lambda state: None)
print("runs " + json.dumps({
    "history": [[one.loss, one.val_loss, one.learning_rate] for one in state.history],
    "resumed": [[one.loss, one.val_loss, one.learning_rate] for one in resumed.history],
}))
"""

# Nothing random: the same step on one device and on two.
_PLAIN: dict[str, Any] = {
    "dropout": 0.0,
    "mixup": {"alpha": 0, "cutmix": 0, "off_epochs": 0},
    "augment": {
        "flip": False,
        "shift": 0,
        "scale": 0,
        "rotation": 0,
        "brightness": 0,
        "contrast": 0,
        "far": 0,
        "noise": 0,
        "erase": 0,
        "erase_area": [0.02, 0.2],
    },
}


_BACKENDS = [
    "tensorflow",
    pytest.param(
        "jax",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("jax") is None, reason="JAX is not installed; TensorFlow is"
        ),
    ),
]

Runs = dict[int, dict[str, Any]]


@pytest.fixture(scope="module", params=_BACKENDS)
def runs(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    workplace: Callable[..., Any],
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> Runs:
    """What one device and two devices gave."""
    found: Runs = {}
    for count in (1, 2):
        folder = tmp_path_factory.mktemp("devices")
        place = workplace(
            folder / "place",
            **_PLAIN,
            head={"epochs": 1, "learning_rate": 0.01},
            finetune={
                "epochs": 2,
                "learning_rate": 0.01,
                "warmup_epochs": 0.5,
                "weight_decay": 0.02,
                "clip_norm": 1.0,
                "average": 0.5,
            },
        )
        done = python(
            _RUN,
            str(count),
            str(place.faces),
            str(place.folder / "params.yaml"),
            str(folder),
            KERAS_BACKEND=request.param,
            XLA_FLAGS=f"--xla_force_host_platform_device_count={count}",
        )
        assert "steps " in done.stdout, done.stderr
        found[count] = {"stderr": done.stderr}
        for line in done.stdout.splitlines():
            word, _, document = line.partition(" ")
            if word in {"steps", "runs"}:
                found[count] |= json.loads(document)
    return found


def test_two_devices_are_found_and_used(runs: Runs) -> None:
    assert [runs[count]["count"] for count in (1, 2)] == [1, 2]
    assert [runs[count]["replicas"] for count in (1, 2)] == [1, 2]


def test_a_step_on_two_devices_is_the_step_on_one(runs: Runs) -> None:
    one, two = runs[1]["losses"], runs[2]["losses"]
    assert len(set(one)) == len(one), "the losses move"
    assert two[0] == pytest.approx(one[0], abs=1e-4)
    # Sums in another order differ in the last digit, and each step of Adam carries that on.
    assert two == pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize("count", [1, 2])
def test_a_whole_run_learns_and_resumes(runs: Runs, count: int) -> None:
    run = runs[count]
    assert "history" in run, run["stderr"]
    assert "ran out of data" not in run["stderr"], "each epoch has all its steps"
    assert len(run["history"]) == 3
    assert run["resumed"] == run["history"], "the same after a break"


def test_one_device_needs_no_strategy() -> None:
    with data_parallel(Devices("tensorflow", "CPU", 1)) as strategy:
        assert strategy is None


def test_the_description_names_what_it_ran_on() -> None:
    text = Devices("tensorflow", "GPU", 2).description
    assert text.startswith("2 x GPU (")
    assert text.endswith("Keras on tensorflow")
