"""A profile of params.yaml in small: all of `fer train`, on fewer, smaller faces, in minutes.

    KERAS_BACKEND=jax PYTHONPATH=. python benchmarks/rehearsal.py --profile gpu --faces data/prepared/faces.parquet
    python -m fer.training.export build/rehearsal/trained build/rehearsal   # always under TensorFlow

Precision, optimizer, schedule, mixup and augmentation stay as the profile has them. What it shows
is that the profile runs on a backend and that the loss falls, not how good its model would be.
Only `fer.training` and what it imports must be there: under JAX, no TensorFlow.
"""  # noqa: E501 - a command that can be copied

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import report
import yaml

COLUMNS = ("epoch", "phase", "size, px", "steps so far", "training loss", "training accuracy",
           "validation loss", "validation accuracy")  # fmt: skip


def reduced(options: argparse.Namespace) -> Any:
    """The profile's parameters at the sizes of the command line; a third of it at 32 px."""
    from fer.params import parse_params

    document = yaml.safe_load(options.params.read_text(encoding="utf-8"))
    document["profile"] = options.profile
    changes = document["profiles"].get(options.profile) or {}
    phases = {name: changes.get(name, {}) for name in ("finetune", "mixup")}
    smaller = [{"size": 32, "epochs": options.epochs // 3}] if options.epochs // 3 else []
    document["profiles"][options.profile] = changes | {
        "input_size": options.size,
        "smaller_first": smaller,
        "weights": str(options.weights or "none"),
        "batch_size": options.batch_size,
        "head": {"epochs": 1},
        "finetune": phases["finetune"] | {"epochs": options.epochs - 1, "warmup_epochs": 0.5},
        "mixup": phases["mixup"] | {"off_epochs": options.epochs // 3},
    }
    return parse_params(document)


def fewer(faces: Path, images: int, out: Path) -> None:
    """Some of the faces of training, and a fifth as many of validation, as a table."""
    from fer.dataset.table import FaceTable

    table = FaceTable.read(faces)
    generator = np.random.default_rng(0)
    kept = (table.split == "train") & (table.cleaning == "keep")
    chosen = [
        generator.permutation(np.flatnonzero(part))[:count]
        for part, count in ((kept, images), (table.split == "validation", images // 5))
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    table.rows(np.concatenate(chosen)).write(out)


def main() -> None:
    """Train and print a table of the epochs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="gpu")
    parser.add_argument("--faces", type=Path, default=Path("data/prepared/faces.parquet"))
    parser.add_argument("--images", type=int, default=1600, help="training images")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--weights", type=Path, help="initial weights; left out: none")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--out", type=Path, default=Path("build/rehearsal"))
    options = parser.parse_args()
    from fer.training.start import train

    shutil.rmtree(options.out, ignore_errors=True)
    fewer(options.faces, options.images, options.out / "faces.parquet")
    params = reduced(options)
    started = time.perf_counter()
    document = train(
        params=params,
        faces=options.out / "faces.parquet",
        out=options.out / "trained",
        curves=options.out / "curves" / "live",
        checkpoints=options.out / "checkpoints",
    )
    with (options.out / "trained" / "history.csv").open(encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    steps = options.images // options.batch_size
    print(
        f"{report.machine('keras', 'jax', 'tensorflow-cpu', 'tensorflow')}. {document['devices']}, "
        f"{params.train.precision}, {len(epochs) * steps} steps in "
        f"{time.perf_counter() - started:.0f} s; TensorFlow was "
        f"{'' if 'tensorflow' in sys.modules else 'not '}imported.\n"
    )
    rows = [
        [
            one["epoch"],
            one["phase"],
            str(params.train.size_in(int(one["epoch"]))),
            str(int(one["epoch"]) * steps),
            *(f"{float(one[name]):.4f}" for name in ("loss", "accuracy")),
            *(f"{float(one[name]):.4f}" for name in ("val_loss", "val_accuracy")),
        ]
        for one in epochs
    ]
    print(report.table(COLUMNS, rows))


if __name__ == "__main__":
    main()
