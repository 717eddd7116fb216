"""Several devices, in one process or in two: each takes its share, and the step is that of one."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.errors import TrainingError
from fer.training.devices import Devices, configure, data_parallel

pytestmark = pytest.mark.slow

# A small network stands for EfficientNetB2, whose graph takes a minute to build; everything
# around it (augmentation with its random state, optimizer with its schedule, batches from an
# iterator, checkpoints) is the real thing.
_SMALL = """def small():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=4, activation="relu")(x)
    return keras.Model(inputs, x, name="backbone")

module.build_backbone = small"""
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

# SMALL
params = load_params(params_file)
table = FaceTable.read(faces)
devices = configure(seed=params.seed, precision="float32", deterministic=True)
# Each device sees the same eight faces, as its batch norm takes its own share's statistics.
pixels = np.concatenate([table.part("train").pixels[:8]] * 2)[..., None]
labels = np.eye(7, dtype="float32")[np.concatenate([table.part("train").expression[:8]] * 2)]

same = [(pixels, labels)] * 3

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
            batches = module._Sequence(same, devices)
            logs = trainer.model.fit(batches, verbose=0, shuffle=False).history
            steps.append(logs["loss"][0])
    # Whole runs, each on a fresh trainer.
    print("steps " + json.dumps({
        "count": devices.count, "replicas": replicas, "losses": steps,
        "description": devices.description,
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
""".replace("# SMALL", _SMALL)

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


jax_only = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed; TensorFlow is"
)
_BACKENDS = ["tensorflow", pytest.param("jax", marks=jax_only)]

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
        place = small(workplace, folder)
        done = python(
            _RUN,
            str(count),
            str(place.faces),
            str(place.folder / "params.yaml"),
            str(folder),
            KERAS_BACKEND=request.param,
            XLA_FLAGS=f"--xla_force_host_platform_device_count={count}",
        )
        found[count] = read(done.stdout, done.stderr)
    return found


def small(workplace: Callable[..., Any], folder: Path) -> Any:
    """Three epochs, with averaged weights."""
    return workplace(
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


def read(stdout: str, stderr: str) -> dict[str, Any]:
    """What a run printed."""
    assert "steps " in stdout, stderr
    found: dict[str, Any] = {"stderr": stderr}
    for line in stdout.splitlines():
        word, _, document = line.partition(" ")
        if word in {"steps", "runs"}:
            found |= json.loads(document)
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


class Processes:
    """Processes that train together, on one machine."""

    def __init__(self, script: str, arguments: Callable[[int], list[str]], count: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.running = [
            subprocess.Popen(
                [sys.executable, "-c", script, *arguments(number)],
                env={
                    **os.environ,
                    "KERAS_BACKEND": "jax",
                    "JAX_PLATFORMS": "cpu",
                    "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
                    "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count),
                    "KERAS_DISTRIBUTION_PROCESS_ID": str(number),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]

    def finish(self) -> list[tuple[int, str, str]]:
        """Exit status, stdout and stderr of each."""
        try:
            # All at once: one whose output nobody reads would stop, and the others wait for it.
            with ThreadPoolExecutor(len(self.running)) as pool:
                texts = list(pool.map(lambda one: one.communicate(timeout=800), self.running))
        finally:
            for one in self.running:
                one.kill()
        return [(one.returncode, *text) for one, text in zip(self.running, texts, strict=True)]


@jax_only
@pytest.mark.parametrize("runs", ["jax"], indirect=True)
def test_two_processes_train_as_one_does(
    runs: Runs, workplace: Callable[..., Any], tmp_path: Path
) -> None:
    place = small(workplace, tmp_path)
    arguments = ["1", str(place.faces), str(place.folder / "params.yaml"), str(tmp_path)]
    ended = Processes(_RUN, lambda number: arguments, 2).finish()
    assert [status for status, _, _ in ended] == [0, 0], ended[0][2] + ended[1][2]
    first, second = (read(stdout, stderr) for _, stdout, stderr in ended)
    assert first["count"] == first["replicas"] == 2
    assert first["description"].startswith("2 x CPU in 2 processes (")
    for name in ("losses", "history", "resumed"):
        assert first[name] == second[name], "both know the same"
    assert first["losses"] == pytest.approx(runs[1]["losses"], abs=1e-3)
    expected, found = (np.array(one["history"]) for one in (runs[1], first))
    assert found == pytest.approx(expected, abs=2e-2), "as one process, epoch by epoch"
    assert first["resumed"] == first["history"], "the same after a break"


_TRAIN = """
import sys
from pathlib import Path

import keras
import fer.training.train as module
from fer.params import load_params

# SMALL
faces, params, folder = map(Path, sys.argv[1:])
module.train(faces=faces, params=load_params(params), out=folder / "trained",
             curves=folder / "reports" / "curves", checkpoints=folder / "checkpoints")
""".replace("# SMALL", _SMALL)


@jax_only
def test_the_first_process_writes_what_was_trained(
    workplace: Callable[..., Any], tmp_path: Path
) -> None:
    place = small(workplace, tmp_path)
    params = str(place.folder / "params.yaml")
    arguments = [str(place.faces), params, str(tmp_path / "first")]
    ended = Processes(_TRAIN, lambda number: arguments, 2).finish()
    assert [status for status, _, _ in ended] == [0, 0], ended[0][2] + ended[1][2]
    document = json.loads((tmp_path / "first" / "trained" / "training.json").read_text())
    assert document["devices"].startswith("2 x CPU in 2 processes")
    assert document["epochs"] == 3
    assert (tmp_path / "first" / "trained" / "network.weights.h5").exists()
    assert [one.suffix for one in (tmp_path / "first" / "checkpoints").iterdir()] == [".lock"]


@jax_only
def test_processes_with_other_parameters_are_refused(
    workplace: Callable[..., Any], tmp_path: Path
) -> None:
    place = small(workplace, tmp_path)
    params = place.folder / "params.yaml"
    other = tmp_path / "other.yaml"
    other.write_text(params.read_text().replace("dropout: 0.0", "dropout: 0.1"))
    assert other.read_text() != params.read_text()
    ended = Processes(
        _TRAIN,
        lambda number: [str(place.faces), str([params, other][number]), str(tmp_path / "out")],
        2,
    ).finish()
    for status, _, stderr in ended:
        assert status != 0
        assert "The processes of this training differ" in stderr
    assert not (tmp_path / "out" / "trained").exists()


@pytest.mark.parametrize("name", ["KERAS_DISTRIBUTION_NUM_PROCESSES", "TF_CONFIG"])
def test_several_processes_without_jax_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    if keras.backend.backend() == "jax":
        pytest.skip("this is JAX")
    monkeypatch.setenv(name, "2")
    with pytest.raises(TrainingError, match="several processes train under JAX alone"):
        configure(seed=1, precision="float32", deterministic=False)


@jax_only
def test_what_is_tensorflows_alone_does_not_concern_jax(
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    script = """
from fer.training.devices import configure
print(configure(seed=1, precision="float32", deterministic=False).processes)
"""
    done = python(script, KERAS_BACKEND="jax", TF_CONFIG="{}")
    assert done.stdout == "1\n", done.stderr


def test_one_device_needs_no_strategy() -> None:
    with data_parallel(Devices("tensorflow", "CPU", 1)) as strategy:
        assert strategy is None


def test_the_description_names_what_it_ran_on() -> None:
    text = Devices("tensorflow", "GPU", 2).description
    assert text.startswith("2 x GPU (")
    assert text.endswith("Keras on tensorflow")
