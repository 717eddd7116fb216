"""The averaged weights are judged and kept, and training goes on from its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from small_network import SCRIPT

pytestmark = pytest.mark.slow  # TensorFlow starts

MOMENTUM = 0.8
IMAGES = np.random.default_rng(5).normal(1, 2, (24, 6, 6, 3)).astype("float32")
LABELS = np.eye(7, dtype="float32")[np.arange(24) % 7]
BATCHES = [(IMAGES[at : at + 8], LABELS[at : at + 8]) for at in (0, 8, 16)]


def model_of(*, average: float) -> Any:
    """A convolution, a batch norm and a classifier, after three steps."""
    import keras

    from fer.training.averaging import AveragingAdamW
    from fer.training.batch_norm import BatchNormalization

    keras.utils.set_random_seed(1)
    norm = BatchNormalization(momentum=0.5, name="norm")
    inner = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3), norm])
    layers = [inner, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(7)]
    model = keras.Sequential([keras.Input((6, 6, 3)), *layers])
    optimizer = AveragingAdamW(0.05, use_ema=average > 0, ema_momentum=average)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    return model


def arrays(variables: Any) -> list[Any]:
    import keras

    tensors = [keras.ops.copy(one) for one in variables]
    return [keras.ops.convert_to_numpy(one) for one in tensors]


def test_the_average_and_its_statistics_stand_in_for_a_while() -> None:
    from fer.training.averaging import averaged

    model = model_of(average=MOMENTUM)
    expected: list[Any] = []
    for images, labels in BATCHES:
        model.train_on_batch(images, labels)
        now = arrays(model.trainable_variables)
        expected = [
            MOMENTUM * old + (1 - MOMENTUM) * new
            for old, new in zip(expected or now, now, strict=True)
        ]
    before = arrays(model.variables)
    inner = model.layers[0]
    norm = inner.get_layer("norm")
    with averaged(model, BATCHES):
        for ours, wanted in zip(arrays(model.trainable_variables), expected, strict=True):
            np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-6)
        seen = arrays(inner.layers[0](images) for images, _ in BATCHES)
        means = np.mean([one.mean(axis=(0, 1, 2)) for one in seen], axis=0)
        # The fused kernel's estimate is the unbiased one.
        variances = np.mean([one.var(axis=(0, 1, 2), ddof=1) for one in seen], axis=0)
        mean, variance = arrays([norm.moving_mean, norm.moving_variance])
        np.testing.assert_allclose(mean, means, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(variance, variances, rtol=1e-4)
        assert norm.momentum == 0.5
    for ours, wanted in zip(arrays(model.variables), before, strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_its_own_weights_come_back_after_an_error_too() -> None:
    from fer.training.averaging import averaged

    model = model_of(average=MOMENTUM)
    for images, labels in BATCHES:
        model.train_on_batch(images, labels)
    before = arrays(model.variables)
    with pytest.raises(OSError, match="full"), averaged(model, BATCHES):
        raise OSError("full")
    for ours, wanted in zip(arrays(model.variables), before, strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_where_nothing_is_averaged_nothing_happens() -> None:
    from fer.training.averaging import averaged

    model = model_of(average=0.0)
    model.train_on_batch(*BATCHES[0])
    before = arrays(model.variables)
    with averaged(model, BATCHES):
        for ours, wanted in zip(arrays(model.variables), before, strict=True):
            np.testing.assert_array_equal(ours, wanted)


_RUN = (
    SCRIPT
    + """
devices = configure(seed=1, precision="float32", deterministic=True)

def fresh(name):
    keras.utils.set_random_seed(1)
    train = params.train
    if name == "plain":
        finetune = train.finetune.model_copy(update={"average": 0.0})
        train = train.model_copy(update={"finetune": finetune})
    return module.Trainer(FaceTable.read(faces), train, seed=1, devices=devices)

class Cut(Exception): pass

def cut(state):
    if len(state.history) == 3:
        raise Cut

found = {}
for name in ("whole", "cut", "plain"):
    trainer = fresh(name)
    if name == "cut":
        try:
            trainer.run(Checkpoint(folder / name), cut)
        except Cut:
            trainer = fresh(name)
    state = trainer.run(Checkpoint(folder / name), lambda state: None)
    found[name] = {
        "history": [[one.loss, one.val_loss, one.val_accuracy] for one in state.history],
        "best": state.best.val_loss,
        # Of the weights that are left in the network.
        "kept": trainer._validate()[0],
        "weights": [float(abs(one.numpy()).sum()) for one in trainer.network.weights],
        "files": sorted(path.name for path in (folder / name).iterdir()),
    }
print("found " + json.dumps(found))
"""
)


def test_the_average_is_what_is_kept_and_a_resumed_run_keeps_the_same(
    tmp_path: Any,
    workplace: Callable[..., Any],
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    place = workplace(
        tmp_path / "place",
        head={"epochs": 1, "learning_rate": 0.01},
        finetune={
            "epochs": 4,
            "learning_rate": 0.01,
            "warmup_epochs": 0.5,
            "weight_decay": 0.02,
            "clip_norm": 1.0,
            "average": 0.9,
        },
        early_stopping={"patience": 20, "min_delta": 0.0},
    )
    done = python(_RUN, str(place.faces), str(place.folder / "params.yaml"), str(tmp_path))
    lines = [line for line in done.stdout.splitlines() if line.startswith("found ")]
    assert lines, done.stderr
    found = json.loads(lines[0].removeprefix("found "))
    whole = found["whole"]
    assert whole == found["cut"], "to the digit"
    assert whole["kept"] == pytest.approx(whole["best"], abs=1e-6)
    assert len(whole["history"]) == 5
    plain = found["plain"]
    losses, judged = zip(*[one[:2] for one in whole["history"]], strict=True)
    without, judged_without = zip(*[one[:2] for one in plain["history"]], strict=True)
    assert losses == pytest.approx(without, rel=1e-6), "training goes on from its own weights"
    assert judged[1:] != pytest.approx(judged_without[1:], rel=1e-3), "the average is judged"
