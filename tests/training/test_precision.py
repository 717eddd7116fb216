"""Half precision trains: the loss falls, weights and logits stay float32."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from small_network import SCRIPT

pytestmark = pytest.mark.slow

_RUN = (
    SCRIPT
    + """
devices = configure(seed=1, precision=params.train.precision, deterministic=True)
trainer = module.Trainer(FaceTable.read(faces), params.train, seed=1, devices=devices)
state = trainer.run(Checkpoint(folder / "run"), lambda state: None)
norm = trainer.backbone.get_layer("norm")
print("found " + json.dumps({
    "losses": [one.loss for one in state.history],
    "computed": norm.compute_dtype,
    "fused": isinstance(norm, BatchNormalization) and norm._fits(norm.input),
    "kept": sorted({keras.backend.standardize_dtype(one.dtype) for one in
                    trainer.network.trainable_variables}),
    "logits": keras.backend.standardize_dtype(trainer.network.outputs[0].dtype),
}))
"""
)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_loss_falls(
    precision: str,
    tmp_path: Any,
    workplace: Callable[..., Any],
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    place = workplace(
        tmp_path / "place",
        precision=precision,
        dropout=0.0,
        mixup={"alpha": 0, "cutmix": 0, "off_epochs": 0},
        head={"epochs": 1, "learning_rate": 0.01},
        finetune={
            "epochs": 9,
            "learning_rate": 0.01,
            "warmup_epochs": 0.5,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
            "average": 0.0,
        },
        early_stopping={"patience": 20, "min_delta": 0.0},
    )
    done = python(_RUN, str(place.faces), str(place.folder / "params.yaml"), str(tmp_path))
    lines = [line for line in done.stdout.splitlines() if line.startswith("found ")]
    assert lines, done.stderr
    found = json.loads(lines[0].removeprefix("found "))
    half = precision == "mixed_bfloat16"
    assert found["computed"] == ("bfloat16" if half else "float32")
    assert found["fused"] is not half
    assert found["kept"] == ["float32"]
    assert found["logits"] == "float32"
    first, *_, last = found["losses"]
    assert last < first, found["losses"]
    assert last < math.log(7) - 0.02, "better than guessing all seven alike"
