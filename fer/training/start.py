"""Starts training, export and quantisation with the environment that their backends need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
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
    done = subprocess.run(
        command, env=_for_tensorflow(), stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        reason = _reason(done.stderr.strip().splitlines(), done.returncode)
        raise TrainingError(f"Export of {trained} failed: {reason}.")


def quantize(package: Path, faces: Path, out: Path) -> None:
    """Quantise in a process of its own, as `export` does; see `fer.training.quantize.quantize`.

    Raises:
        TrainingError: it failed, or integers cost too much accuracy.
    """
    from fer.progress import Progress
    from fer.training.quantize import STEPS

    _quiet()
    command = [sys.executable, "-m", "fer.training.quantize", str(package), str(faces), str(out)]
    with tempfile.TemporaryFile("w+") as log, Progress("Quantizing") as bar:
        with subprocess.Popen(
            command, env=_for_tensorflow(), stdout=subprocess.PIPE, stderr=log, text=True
        ) as child:
            for line in child.stdout or ():
                if found := re.fullmatch(r"step (\d+) of \d+\n", line):
                    bar.update(int(found[1]), STEPS)
        log.seek(0)
        lines = log.read().strip().splitlines()
    if child.returncode:
        reason = _reason(lines, child.returncode)
        raise TrainingError(f"{package} was not quantised: {reason}.")


def _for_tensorflow() -> dict[str, str]:
    """The environment of a converter: TensorFlow on the CPU, whatever trained."""
    return {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONHASHSEED": "0",  # one training always exports to the same bytes
    }


def _reason(lines: list[str], status: int) -> str:
    """What a process that failed said last."""
    last = lines[-1] if lines else f"exit status {status}"
    return last.removeprefix("fer.errors.").rstrip(".")


def _quiet() -> None:
    """Keep TensorFlow's start-up messages out of the log, unless the user set the levels."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
