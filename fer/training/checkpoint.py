"""What a training run needs to go on after it was killed: one folder, written epoch by epoch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fer.errors import TrainingError
from fer.files import write_json

Phase = Literal["head", "finetune"]


@dataclass
class EpochRecord:
    """One line of the learning curves. Accuracies are shares, losses are per image."""

    epoch: int
    phase: Phase
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass
class RunState:
    """How far a run is. `stopped_epoch` is where early stopping struck, if it did."""

    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int | None = None
    stopped_epoch: int | None = None

    @property
    def best(self) -> EpochRecord | None:
        """The epoch whose weights are kept."""
        return next((one for one in self.history if one.epoch == self.best_epoch), None)


def run_key(*parts: Any) -> str:
    """A name for a run, from all that defines it: another key means another checkpoint."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Checkpoint:
    """The folder of one run's checkpoint.

    The weights of an epoch are written under its own name before `progress.json` points to
    them, so a kill at any moment leaves the previous epoch whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best_weights = folder / "best.weights.h5"

    def load(self) -> tuple[RunState, Path | None]:
        """How far the run is, and the weights and optimizer to go on from (None: the start)."""
        progress = self.folder / "progress.json"
        try:
            document = json.loads(progress.read_text())
            history = [EpochRecord(**record) for record in document["history"]]
            weights = self.folder / document["weights"]
        except FileNotFoundError:
            return RunState(), None
        except (ValueError, KeyError, TypeError):
            raise TrainingError(
                f"{progress} is damaged. Delete {self.folder} to train from the start."
            ) from None
        return RunState(history, document["best_epoch"], document["stopped_epoch"]), weights

    def save(self, state: RunState, save_weights: Callable[[Path], None], *, best: bool) -> None:
        """Write the state after an epoch.

        Args:
            state: with the epoch's record as its last.
            save_weights: writes weights and optimizer to the path that it is given.
            best: whether this is the best epoch so far.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = self.folder / f"epoch-{state.history[-1].epoch:03d}.weights.h5"
        try:
            save_weights(weights)
            if best:
                # The name must end in .weights.h5 for Keras, so no hidden temporary name here.
                copy = self.folder / "next-best.weights.h5"
                shutil.copyfile(weights, copy)
                copy.replace(self.best_weights)
            document = asdict(state) | {"weights": weights.name}
            write_json(self.folder / "progress.json", document)
        except OSError as error:
            raise TrainingError(
                f"The checkpoint cannot be written to {self.folder} ({error}). Free some space "
                "(120 MB are enough) and run again: training goes on from the epoch before."
            ) from None
        for old in self.folder.glob("epoch-*.weights.h5"):
            if old != weights:
                old.unlink()

    def delete(self) -> None:
        """Remove the folder, once its content is exported."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def locked(self, wait: float = 60.0) -> Iterator[None]:
        """Keep every other process from training the same run at the same time.

        Raises:
            TrainingError: another process still trains it after `wait` seconds.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / f"{self.folder.name}.lock").open("w") as file:
            deadline = time.monotonic() + wait
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TrainingError(
                            "Another process is training the same run. Wait for it, or end it "
                            "and run again: training goes on from its last epoch."
                        ) from None
                    time.sleep(0.5)
            yield
