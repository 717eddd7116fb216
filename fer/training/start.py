"""Starts training and export with the environment that their backends need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fer.errors import TrainingError, UsageError
from fer.params import Params
from fer.training.guard import end_with_workflow


def train(
    *, params: Params, faces: Path, out: Path, curves: Path, checkpoints: Path
) -> dict[str, Any]:
    """Train; see `fer.training.train.train`. Ends with the `dvc repro` that started it."""
    _quiet()
    end_with_workflow()
    from fer.training.train import train as run

    return run(faces=faces, params=params, out=out, curves=curves, checkpoints=checkpoints)


def warm_start(package: Path | None, out: Path) -> None:
    """Write initial weights from a package, or from the shipped model.

    Raises:
        UsageError: `out` has another ending than .weights.h5.
        ModelReferenceError, PackageError: no such package, or no model of this project.
    """
    if not out.name.endswith(".weights.h5"):
        raise UsageError(f"{out} is to hold Keras weights; name it {out.stem}.weights.h5.")
    _quiet()
    from fer.reference import reference_package
    from fer.training.warm_start import write_initial_weights

    write_initial_weights(package or reference_package().folder, out)


def export(trained: Path, out: Path) -> None:
    """Export in a process of its own: the converter needs TensorFlow, whatever trained.

    Raises:
        TrainingError: the export failed, or the exported model does not agree with Keras.
    """
    _quiet()
    end_with_workflow()
    command = [sys.executable, "-m", "fer.training.export", str(trained), str(out)]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONHASHSEED": "0",  # one training always exports to the same bytes
    }
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        text = lines[-1].removeprefix("fer.errors.").rstrip(".")
        raise TrainingError(f"Export of {trained} failed: {text}.")


def _quiet() -> None:
    """Keep TensorFlow's start-up messages out of the log, unless the user set the levels."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
