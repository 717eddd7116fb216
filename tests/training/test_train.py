"""A whole training of the real network: stopped early, killed and resumed, the best restored."""

from __future__ import annotations

import importlib.util
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.dataset.table import FaceTable
from fer.errors import TrainingError
from fer.reports.curves import read_history

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def broken(
    tmp_path_factory: pytest.TempPathFactory, workplace: Callable[..., Any], runner: Any
) -> tuple[Any, dict[str, Any]]:
    """The same training, killed after its first epoch of phase 2 and started again.

    Gives the finished training, and progress.json as the kill left it.
    """
    place = workplace(tmp_path_factory.mktemp("broken") / "other place", **runner.stopping)
    first = runner.start(place.folder)
    said = []
    for line in first.stderr:
        said.append(line)
        if line.startswith("epoch 2 finetune"):
            first.send_signal(signal.SIGKILL)
            break
    first.stdout.close()
    first.stderr.close()
    assert first.wait() == -signal.SIGKILL, "".join(said)
    assert not (place.folder / "models").exists()
    (progress,) = (place.folder / "build" / "training").glob("*/progress.json")
    left = json.loads(progress.read_text())
    return runner.finish(runner.start(place.folder, "--json"), place), left


def test_what_a_training_leaves(training: Any) -> None:
    assert {path.name for path in training.trained.iterdir()} == {
        "curves.png",
        "history.csv",
        "network.json",
        "network.weights.h5",
        "training.json",
    }
    assert training.document == json.loads((training.trained / "training.json").read_text())
    assert training.document["training_images"] == 55
    assert training.document["validation_images"] == 7
    assert training.document["initial_weights"] == {"kind": "none"}
    assert not list((training.place.folder / "build" / "training").glob("*/*"))


def test_early_stopping_strikes_by_its_rule(training: Any) -> None:
    history = read_history(training.trained / "history.csv")
    assert [one.phase for one in history] == ["head", "finetune", "finetune"]
    assert training.document["best_epoch"] == 1
    assert training.document["stopped_epoch"] == 3
    assert training.document["epochs"] == 3
    assert "stopped early: no better validation accuracy since epoch 1" in training.log


def test_where_it_struck_is_drawn(training: Any, tmp_path: Path) -> None:
    from PIL import Image

    from fer.reports.curves import plot_curves

    def red(path: Path) -> int:
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        return int(((pixels[..., 0] > 170) & (pixels[..., 1:].max(axis=-1) < 90)).sum())

    plot_curves(training.trained / "history.csv", tmp_path / "ran.png", 1, None)
    assert red(training.trained / "curves.png") > red(tmp_path / "ran.png") + 300


def test_the_best_epochs_weights_are_the_ones_that_are_kept(
    training: Any, exported: Path, table: FaceTable
) -> None:
    """The validation loss of what was exported is the best epoch's, not the last one's."""
    from fer.inference.classifier import Classifier

    validation = table.part("validation")
    logits = Classifier(exported).logits(validation.pixels).astype(np.float64)
    smoothing = training.place.params.train.label_smoothing
    wanted = np.eye(7)[validation.expression] * (1 - smoothing) + smoothing / 7
    loss = -(wanted * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1).mean()
    history = read_history(training.trained / "history.csv")
    first, *later = (one.val_loss for one in history)
    assert all(abs(one - first) > 1e-3 for one in later), "the epochs can be told apart"
    assert loss == pytest.approx(first, abs=2e-4)
    assert training.document["validation_loss"] == first


def test_a_killed_training_leaves_its_last_epoch(broken: tuple[Any, dict[str, Any]]) -> None:
    _, left = broken
    assert [one["phase"] for one in left["history"]] == ["head", "finetune"]
    assert left["stopped_epoch"] is None


def test_two_processes_compute_the_same_epochs(
    training: Any, broken: tuple[Any, dict[str, Any]]
) -> None:
    _, left = broken
    whole = read_history(training.trained / "history.csv")
    for one, other in zip(whole, left["history"], strict=False):
        assert (one.loss, one.accuracy) == (other["loss"], other["accuracy"])
        assert (one.val_loss, one.val_accuracy) == (other["val_loss"], other["val_accuracy"])
        assert one.learning_rate == other["learning_rate"]


@pytest.mark.parametrize(
    "name", ["history.csv", "network.weights.h5", "network.json", "training.json", "curves.png"]
)
def test_a_resumed_training_ends_with_the_bytes_of_one_without_a_break(
    training: Any, broken: tuple[Any, dict[str, Any]], name: str
) -> None:
    resumed, _ = broken
    assert (resumed.trained / name).read_bytes() == (training.trained / name).read_bytes()


def test_a_resumed_training_repeats_no_epoch(broken: tuple[Any, dict[str, Any]]) -> None:
    resumed, left = broken
    times = json.loads((resumed.place.folder / "reports" / "training_time.json").read_text())
    before = [one["seconds"] for one in left["history"]]
    assert [one["seconds"] for one in times["epochs"]][:2] == before
    assert "epoch 1 head" not in resumed.log
    assert "epoch 3 finetune" in resumed.log


def test_dvc_plots_show_every_epoch_also_after_a_break(
    training: Any, broken: tuple[Any, dict[str, Any]]
) -> None:
    resumed, _ = broken
    for run in (training, resumed):
        metrics = run.place.folder / "reports" / "training" / "plots" / "metrics"
        history = read_history(run.trained / "history.csv")
        for name, values in {
            "train/loss": [one.loss for one in history],
            "train/accuracy": [one.accuracy for one in history],
            "validation/loss": [one.val_loss for one in history],
            "validation/accuracy": [one.val_accuracy for one in history],
        }.items():
            lines = (metrics / f"{name}.tsv").read_text().splitlines()
            assert lines[0].split("\t")[0] == "step"
            shown = [float(line.split("\t")[1]) for line in lines[1:]]
            assert shown == pytest.approx(values)
        last = json.loads((run.place.folder / "reports" / "training" / "metrics.json").read_text())
        assert last["validation"]["loss"] == pytest.approx(history[-1].val_loss)


def test_times_are_kept_apart_from_what_is_tracked(training: Any) -> None:
    text = (training.trained / "history.csv").read_text().splitlines()
    assert text[0].split(",")[-1] == "seconds"
    assert {line.split(",")[-1] for line in text[1:]} == {"0.0"}
    times = json.loads((training.place.folder / "reports" / "training_time.json").read_text())
    assert times["seconds_in_epochs"] > 0
    assert 100 < times["peak_memory_mb"] < 6000


@pytest.mark.e2e
@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed; TensorFlow is"
)
def test_the_same_on_jax(
    training: Any, tmp_path: Path, workplace: Callable[..., Any], runner: Any
) -> None:
    place = workplace(tmp_path / "jax", **runner.stopping)
    process = runner.start(place.folder, "--json", KERAS_BACKEND="jax")
    found = runner.finish(process, place)
    assert found.document["backend"] == "jax"
    assert found.document["stopped_epoch"] == 3


# The rule alone, on histories made up to be told by.


def judged(
    runner: Any, errors: list[float], *, patience: int, min_delta: float = 0.0, head: int = 1
) -> Any:
    """The state after epochs with these shares of wrong answers; ends where the rule strikes."""
    from fer.params import parse_params
    from fer.training.checkpoint import EpochRecord, RunState
    from fer.training.train import Trainer

    document = runner.params()
    document["train"]["head"]["epochs"] = head
    document["train"]["finetune"]["epochs"] = len(errors) - head
    document["train"]["early_stopping"] = {"patience": patience, "min_delta": min_delta}
    trainer = object.__new__(Trainer)
    trainer.params = parse_params(document).train
    state = RunState()
    for epoch, error in enumerate(errors, start=1):
        phase = trainer.phase_of(epoch)
        state.history.append(EpochRecord(epoch, phase, 1, 0.5, error, 1 - error, 1e-3, 1))
        improved = trainer._judge(state)
        assert improved == (state.best_epoch == epoch)
        if state.stopped_epoch:
            break
    return state


@pytest.mark.parametrize(
    ("losses", "options", "best", "stopped"),
    [
        ([3, 2, 1.5, 1.2, 1.1], {"patience": 1}, 5, None),
        ([3, 2, 2.5, 2.4, 2.3, 1], {"patience": 3}, 2, 5),
        ([3, 2, 2.5, 2.4, 1.9, 2, 2, 2, 2], {"patience": 3}, 5, 8),
        # Progress below min_delta is none.
        ([3, 2, 1.9999, 1.9998, 1.9997], {"patience": 2, "min_delta": 0.001}, 2, 4),
        ([3, 2, 1.9, 1.8, 1.7], {"patience": 2, "min_delta": 0.001}, 5, None),
        # Phase 1 is never stopped, and its epochs may be the best.
        ([1, 2, 2, 2, 2, 2], {"patience": 1, "head": 4}, 1, 5),
        # Where the last epoch is the one, nothing was stopped.
        ([3, 2, 2.1, 2.2], {"patience": 2}, 2, None),
        ([2.0], {"patience": 1}, 1, None),
    ],
)
def test_the_rule(
    runner: Any, losses: list[float], options: dict[str, Any], best: int, stopped: int | None
) -> None:
    state = judged(runner, losses, **options)
    assert (state.best_epoch, state.stopped_epoch) == (best, stopped)


@pytest.mark.parametrize(
    "loss",
    [
        float("nan"),
        float("inf"),
    ],
)
def test_a_loss_that_is_no_number_ends_the_run_with_advice(runner: Any, loss: float) -> None:
    with pytest.raises(TrainingError, match=r"epoch 2\. Lower train\.finetune\.learning_rate"):
        judged(runner, [1.9, loss, 1.8], patience=2)


def test_what_cannot_be_trained_is_said_before_anything_is_built(
    table: FaceTable, runner: Any
) -> None:
    from fer.params import parse_params
    from fer.training.devices import Devices
    from fer.training.train import Trainer

    params = parse_params(runner.params()).train
    cpu = Devices("tensorflow", "CPU", 1)
    with pytest.raises(TrainingError, match=r"no validation images\. Run: dvc repro prepare"):
        Trainer(table.rows(table.split != "validation"), params, seed=1, devices=cpu)
    kept = np.flatnonzero((table.split == "train") & (table.cleaning == "keep"))
    few = table.rows(np.concatenate([kept[:5], np.flatnonzero(table.split == "validation")]))
    with pytest.raises(TrainingError, match="5 training images do not fill one batch of 16"):
        Trainer(few, params, seed=1, devices=cpu)
    three = Devices("jax", "GPU", 3)
    with pytest.raises(TrainingError, match=r"cannot be shared equally by 3 devices\. Make"):
        Trainer(table, params, seed=1, devices=three)
