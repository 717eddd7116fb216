"""What is left of a run after a kill, a full disk, a damaged file, and beside a second process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer.errors import TrainingError
from fer.params import parse_params
from fer.training.checkpoint import Checkpoint, EpochRecord, RunState, run_key

Script = Callable[..., "subprocess.CompletedProcess[str]"]
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def record(epoch: int, val_loss: float = 1.0) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        phase="head" if epoch == 1 else "finetune",
        loss=2.0 / epoch,
        accuracy=0.5,
        val_loss=val_loss,
        val_accuracy=0.25,
        learning_rate=1e-3,
        seconds=1.5,
    )


def state(epochs: int, best: int = 1) -> RunState:
    return RunState([record(epoch) for epoch in range(1, epochs + 1)], best_epoch=best)


def writes(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        assert path.name.endswith(".weights.h5"), "Keras refuses other names"
        path.write_text(text)

    return write


def saved(folder: Path, epochs: int, best: int) -> Checkpoint:
    """A checkpoint after so many epochs; the weights of epoch n are the text `n`."""
    checkpoint = Checkpoint(folder)
    for epoch in range(1, epochs + 1):
        checkpoint.save(state(epoch, min(epoch, best)), writes(str(epoch)), best=epoch <= best)
    return checkpoint


def content(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_that_has_not_begun(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run")
    assert checkpoint.load() == (RunState(), None)
    assert not checkpoint.best_weights.exists()


def test_other_processes_wait_until_they_see_it(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="All processes want one folder"):
        Checkpoint(tmp_path / "elsewhere").wait(seconds=0)
    folder = tmp_path / "run"

    def written_late() -> None:
        folder.mkdir()
        (folder / "progress.json").write_text("{}")

    writer = threading.Timer(0.2, written_late)
    writer.start()
    Checkpoint(folder).wait()
    writer.join()


def test_a_round_trip_keeps_history_last_and_best(tmp_path: Path) -> None:
    saved(tmp_path / "run", epochs=4, best=2)
    checkpoint = Checkpoint(tmp_path / "run")
    loaded, weights = checkpoint.load()
    assert loaded == state(4, best=2)
    assert loaded.best == record(2)
    assert weights is not None
    assert weights.read_text() == "4"
    assert checkpoint.best_weights.read_text() == "2"
    assert len(content(tmp_path / "run")) == 3, "two epochs' weights and progress.json"


def test_the_best_epochs_weights_may_be_others_than_training_goes_on_from(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "run", epochs=2, best=1)
    for epoch in (3, 4):
        checkpoint.keep(epoch, writes(f"average of {epoch}"))
        checkpoint.save(state(epoch, epoch), writes(str(epoch)), best=True)
    checkpoint.save(state(5, best=4), writes("5"), best=False)
    again = Checkpoint(tmp_path / "run")
    _, weights = again.load()
    assert weights is not None
    assert weights.read_text() == "5"
    assert again.best_weights.read_text() == "average of 4"
    assert len(content(tmp_path / "run")) == 3, "two files of weights and progress.json"


def test_kept_weights_count_only_once_they_are_saved(tmp_path: Path) -> None:
    saved(tmp_path / "run", epochs=2, best=2).keep(3, writes("average of 3"))
    killed = Checkpoint(tmp_path / "run")
    loaded, _ = killed.load()
    assert loaded == state(2, best=2)
    assert killed.best_weights.read_text() == "2"
    killed.save(state(3, best=2), writes("3"), best=False)
    assert killed.best_weights.read_text() == "2"
    assert len(content(tmp_path / "run")) == 3


def test_the_best_epoch_may_be_the_last(tmp_path: Path) -> None:
    saved(tmp_path / "run", epochs=3, best=3)
    checkpoint = Checkpoint(tmp_path / "run")
    _, weights = checkpoint.load()
    assert weights == checkpoint.best_weights
    assert len(content(tmp_path / "run")) == 2


def test_where_early_stopping_struck_is_kept(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "run", epochs=2, best=1)
    stopped = state(3)
    stopped.stopped_epoch = 3
    checkpoint.save(stopped, writes("3"), best=False)
    assert Checkpoint(tmp_path / "run").load()[0].stopped_epoch == 3


@pytest.mark.parametrize("best", [True, False])
@pytest.mark.parametrize("moment", ["before the weights", "in the weights", "before progress.json"])
def test_a_kill_while_saving_leaves_the_epoch_before(
    tmp_path: Path, python: Script, moment: str, best: bool
) -> None:
    """SIGKILL in a real process, at each step of writing epoch 3."""
    saved(tmp_path / "run", epochs=2, best=2)
    script = f"""
import os, signal, sys
from pathlib import Path
import fer.training.checkpoint as module
from fer.training.checkpoint import Checkpoint, EpochRecord

checkpoint = Checkpoint(Path({str(tmp_path / "run")!r}))
state, _ = checkpoint.load()
state.history.append(EpochRecord(3, "finetune", 1, 1, 0.5, 1, 1e-3, 1))
state.best_epoch = 3 if {best} else 2

def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def write(path):
    if {moment!r} == "before the weights":
        kill()
    with path.open("w") as file:
        file.write("half an ")
        file.flush()
        if {moment!r} == "in the weights":
            kill()
        file.write("epoch")

if {moment!r} == "before progress.json":
    module.write_json = kill
checkpoint.save(state, write, best={best})
"""
    done = python(script)
    assert done.returncode == -9, done.stderr
    checkpoint = Checkpoint(tmp_path / "run")
    loaded, weights = checkpoint.load()
    assert loaded == state(2, best=2)
    assert weights is not None
    assert weights.read_text() == "2"
    assert checkpoint.best_weights.read_text() == "2"
    # The repeat of epoch 3 overwrites what the kill left, and tidies up.
    checkpoint.save(state(3, best=2), writes("3"), best=False)
    assert content(tmp_path / "run") == {
        "progress.json",
        "epoch-002.weights.h5",
        "epoch-003.weights.h5",
    }


_DAMAGE = {
    "cut short": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "no object": lambda text: "[]",
    "null": lambda text: "null",
    "nothing in it": lambda text: "{}",
    "unknown column": lambda text: text.replace('"val_loss"', '"value_loss"'),
    "no history": lambda text: json.dumps({**json.loads(text), "history": []}),
    "no stopped_epoch": lambda text: text.replace('"stopped_epoch"', '"stopped"'),
    "files of another type": lambda text: json.dumps({**json.loads(text), "files": [1]}),
    "not UTF-8": lambda text: "\udcff",
}


@pytest.mark.parametrize("damage", _DAMAGE)
def test_damaged_progress_says_what_to_do(tmp_path: Path, damage: str) -> None:
    saved(tmp_path / "run", epochs=2, best=1)
    progress = tmp_path / "run" / "progress.json"
    progress.write_text(_DAMAGE[damage](progress.read_text()), errors="surrogateescape")
    with pytest.raises(
        TrainingError, match=r"damaged\. Delete it to train from the start"
    ) as error:
        Checkpoint(tmp_path / "run").load()
    assert str(tmp_path / "run") in str(error.value)


@given(cut=st.integers(0, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_progress_cut_anywhere_is_an_error_or_the_whole(tmp_path: Path, cut: int) -> None:
    folder = tmp_path / str(cut)
    saved(folder, epochs=2, best=1)
    progress = folder / "progress.json"
    whole = progress.read_text()
    progress.write_text(whole[:cut])
    if whole[:cut].strip() == whole.strip():
        assert Checkpoint(folder).load()[0] == state(2)
    else:
        with pytest.raises(TrainingError, match="damaged"):
            Checkpoint(folder).load()


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("damage", ["absent", "truncated"])
def test_damaged_weights_are_found_before_they_are_used(
    tmp_path: Path, epoch: int, damage: str
) -> None:
    saved(tmp_path / "run", epochs=2, best=1)
    weights = tmp_path / "run" / f"epoch-{epoch:03d}.weights.h5"
    if damage == "absent":
        weights.unlink()
    else:
        weights.write_text("")
    with pytest.raises(TrainingError, match=r"damaged\. Delete it to train from the start"):
        Checkpoint(tmp_path / "run").load()


def test_a_full_disk_while_saving_is_one_message_and_keeps_the_epoch_before(
    tmp_path: Path, python: Script
) -> None:
    """A limit on the size of files stands for the full disk; h5py writes, as Keras does."""
    saved(tmp_path / "run", epochs=1, best=1)
    script = f"""
import resource, signal
from pathlib import Path
import h5py, numpy
from fer.errors import TrainingError
from fer.training.checkpoint import Checkpoint, EpochRecord

def write(path):
    with h5py.File(path, "w") as file:
        file["kernel"] = numpy.zeros(1_000_000)

checkpoint = Checkpoint(Path({str(tmp_path / "run")!r}))
state, _ = checkpoint.load()
state.history.append(EpochRecord(2, "finetune", 1, 1, 0.5, 1, 1e-3, 1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    checkpoint.save(state, write, best=False)
except TrainingError as error:
    print(error)
"""
    done = python(script)
    assert "cannot be written" in done.stdout, done.stderr
    assert "Free some space" in done.stdout
    loaded, weights = Checkpoint(tmp_path / "run").load()
    assert loaded == state(1)
    assert weights is not None
    assert weights.read_text() == "1"


_HOLD = """
import sys, time
from pathlib import Path
from fer.training.checkpoint import Checkpoint
with Checkpoint(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(120)
"""


def test_the_lock_keeps_a_second_process_out_until_the_first_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=_ENVIRONMENT,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(TrainingError, match="Another process is training the same run"),
            Checkpoint(folder).locked(wait=0.1),
        ):
            pytest.fail("two processes hold the lock")
        with Checkpoint(tmp_path / "runs" / "two").locked(wait=0.1):
            pass  # another run is not in the way
        holder.kill()
        holder.wait()
    with Checkpoint(folder).locked(wait=0.1):
        pass  # a killed process holds nothing


def test_the_second_process_goes_on_when_the_first_is_done(tmp_path: Path) -> None:
    script = _HOLD.replace("time.sleep(120)", "time.sleep(1)")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env=_ENVIRONMENT,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with Checkpoint(tmp_path / "run").locked(wait=60):
            pass
        assert holder.wait(60) == 0


def test_the_key_names_all_that_defines_a_run(checkout: Path) -> None:
    document = yaml.safe_load((checkout / "params.yaml").read_text())
    params = parse_params(document).train.model_dump()

    def key(**changed: object) -> str:
        parts = {"faces": "a", "start": "none", "seed": 1, "train": params} | changed
        return run_key(*parts.values())

    assert key() == key(), "the same in every process"
    others = [
        key(faces="b"),
        key(start="imagenet"),
        key(seed=2),
        key(train={**params, "dropout": 0.31}),
        key(train={**params, "augment": {**params["augment"], "flip": False}}),
        key(train={**params, "finetune": {**params["finetune"], "epochs": 9}}),
    ]
    assert len({key(), *others}) == len(others) + 1


def test_the_key_is_the_same_in_another_process(python: Script) -> None:
    script = (
        "from fer.training.checkpoint import run_key; print(run_key('a', {'x': 1, 'y': [2.5]}))"
    )
    done = python(script)
    assert done.stdout.strip() == run_key("a", {"y": [2.5], "x": 1})


def test_delete(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "run", epochs=1, best=1)
    checkpoint.delete()
    assert not (tmp_path / "run").exists()
    checkpoint.delete()  # again is fine
