"""Images per second of training: the data path alone, the network alone, and both together.

    python benchmarks/training.py > docs/training-speed.md           # 48, 64 and 96 px
    python benchmarks/training.py --sizes 48 --steps 20 --json training.json
    KERAS_BACKEND=jax python benchmarks/training.py --norms keras

All go through `Model.fit` with the batches of `fer train`. *batches*: indexing and mixup only.
*data*: batches and augmentation as `Trainer` runs them, into a network of one layer. *network*:
training steps on one fixed batch. *both*: an epoch of `Trainer` without its validation, mixup
included. The norm `fused` is fer/training/batch_norm.py, `keras` is what Keras composes itself (all
there is under JAX). Each size and norm is a process of its own with its own peak memory; the norms
of one size take turns, round by round. `--freed returned` is without fer/training/allocator.py.
Random pixels: what they show does not change the speed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import report

KINDS = ("batches", "data", "network", "both")
NORMS = ("fused", "keras")
_EPOCH = 1
"""Every round is this epoch: the last ones of a training are without mixup."""

PAGE = """# Speed of training

{machine}. Keras on {backend}. Measured by `benchmarks/training.py`, which says what each column is;
{options.steps} steps a round, {options.rounds} rounds: median (smallest to largest). Freed memory
is {options.freed}.
"""


class Measured:
    """A `Trainer` in phase 2, and the models that stand for one half of its work."""

    def __init__(self, size: int, norm: str, options: argparse.Namespace) -> None:
        import keras

        from fer.params import TrainParams, load_params
        from fer.training import allocator, batch_norm
        from fer.training.devices import configure

        if options.freed == "returned":
            allocator.keep_freed_memory = lambda: False

        params = load_params(options.params)
        section = params.train.model_dump()
        section |= {"input_size": size, "smaller_first": [], "weights": "none"}
        section |= {"precision": options.precision or section["precision"]}
        section |= {"batch_size": options.batch_size or section["batch_size"]}
        section["head"]["epochs"] = 0
        self.params = TrainParams.model_validate(section)
        self.steps = options.steps
        devices = configure(
            seed=params.seed,
            precision=self.params.precision,
            deterministic=self.params.deterministic,
        )
        if norm == "keras":
            batch_norm.with_fused_batch_norm = lambda model: model
        from fer.training.train import Trainer

        trainer = Trainer(self._table(), self.params, seed=params.seed, devices=devices)
        trainer.prepare(_EPOCH)
        self.trainer = trainer
        faces = keras.Input(trainer.network.input_shape[1:])
        pool, head = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(7, dtype="float32")
        self.models = {
            "data": keras.Sequential([faces, trainer.augmentation, pool, head]),
            "network": trainer.network,
        }
        for model in self.models.values():
            optimizer = trainer._optimizer("finetune")
            model.compile(optimizer, trainer.model.loss, metrics=["accuracy"])

    def round(self, kind: str) -> float:
        """Images per second; the first round of a kind compiles and does not count."""
        batches = self._batches()
        fixed = batches[0]
        work: dict[str, Callable[[], Any]] = {
            "batches": lambda: [batches[step] for step in range(self.steps)],
            "data": lambda: self._fit("data", batches),
            "network": lambda: self._fit("network", [fixed] * self.steps),
            "both": lambda: self.trainer._fit(_EPOCH, batches),
        }
        started = time.perf_counter()
        work[kind]()
        return self.steps * self.params.batch_size / (time.perf_counter() - started)

    def _fit(self, name: str, batches: Any) -> None:
        from fer.training.train import _Sequence

        self.models[name].fit(_Sequence(batches, self.trainer.devices), verbose=0, shuffle=False)

    def _batches(self) -> Any:
        from fer.training.batches import EpochBatches

        train = self.trainer.train
        return EpochBatches(
            train.pixels,
            train.expression,
            batch_size=self.params.batch_size,
            seed=self.trainer.seed,
            epoch=_EPOCH,
            mixup=self.params.mixup_in(_EPOCH),
            cutmix=self.params.cutmix_in(_EPOCH),
        )

    def _table(self) -> Any:
        """As many training images as the steps take, and one for validation."""
        from fer.dataset.table import SIDE, FaceTable

        generator = np.random.default_rng(0)
        count = self.steps * self.params.batch_size + 1
        text = np.full(count, "")
        return FaceTable(
            name=text,
            pixels=generator.integers(0, 256, (count, SIDE, SIDE), np.uint8),
            expression=generator.integers(0, 7, count).astype(np.int8),
            split=np.asarray(["train"] * (count - 1) + ["validation"]),
            sha256=text,
            cleaning=np.full(count, "keep"),
            near_twin=np.zeros(count, bool),
        )


def work(size: int, norm: str, options: argparse.Namespace) -> None:
    """A worker: builds on the first line, then measures one round per line."""
    measured: list[Measured] = []

    def answer(kind: str) -> Any:
        if not measured:
            measured.append(Measured(size, norm, options))
        if kind == "memory":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)
        return measured[0].round(kind)

    report.serve(answer)


def compared(size: int, options: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    """The figures of one size by norm: images per second by kind and round, and peak memory."""
    results: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        workers = {
            norm: stack.enter_context(
                report.Worker(Path(__file__), *arguments, "--worker", f"{size},{norm}")
            )
            for norm in options.norms
        }
        for number in range(options.rounds + 1):
            for norm, worker in workers.items():
                for kind in KINDS:
                    speed = worker.ask(kind)
                    if number:
                        figures = results.setdefault(norm, {kind: [] for kind in KINDS})
                        figures[kind].append(round(speed, 1))
            print(f"{size} px, round {number} of {options.rounds}", file=sys.stderr, flush=True)
        for norm, worker in workers.items():
            results[norm]["peak_memory_mb"] = worker.ask("memory")
    return results


def row(name: str, figures: dict[str, Any]) -> list[str]:
    """A line of the table; the ratios are of rounds, in which the machine was the same."""
    both, network = figures["both"], figures["network"]
    share = [1 - one / other for one, other in zip(both, network, strict=True)]
    against = [one / other for one, other in zip(figures["data"], network, strict=True)]
    return [
        name,
        *(report.middle(figures[kind]) for kind in KINDS),
        report.middle(against, 1),
        report.middle([100 * one for one in share], 1),
        f"{figures['peak_memory_mb']:,}",
    ]


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[48, 64, 96])
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=list(NORMS))
    parser.add_argument("--steps", type=int, default=20, help="training steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, help="instead of train.batch_size")
    parser.add_argument("--precision", help="instead of train.precision")
    parser.add_argument(
        "--freed",
        choices=("kept", "returned"),
        default="kept",
        help="freed memory: kept, as `fer train` does, or returned, as glibc does by itself",
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print a table."""
    options = options_of(None)
    if options.worker:
        size, norm = options.worker.split(",")
        work(int(size), norm, options)
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    document: dict[str, Any] = {
        "machine": report.machine("keras", "tensorflow-cpu", "tensorflow", "jax"),
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "steps": options.steps,
        "sizes": {size: compared(size, options, sys.argv[1:]) for size in options.sizes},
    }
    rows = [
        row(f"{size} px, {norm}", figures)
        for size, norms in document["sizes"].items()
        for norm, figures in norms.items()
    ]
    columns = [
        "size, norm",
        *(f"{kind}, images/s" for kind in KINDS),
        "data / network",
        "input and augmentation, % of a step",
        "peak memory, MB",
    ]
    print(PAGE.format(options=options, **document))
    print(report.table(columns, rows))
    for size, norms in document["sizes"].items():
        if set(norms) == set(NORMS):
            fused, keras = (statistics.median(norms[norm]["network"]) for norm in NORMS)
            print(
                f"\n{size} px: a step takes {keras / fused:.0%} of its time with Keras's own norms."
            )
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
