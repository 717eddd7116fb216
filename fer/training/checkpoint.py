"""What a training run needs to go on after it was killed: one folder, written epoch by epoch."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fer.errors import TrainingError
from fer.files import sha256_of, write_json

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
    them, so a kill at any moment leaves the previous epoch, and the best one, whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best_weights = folder / "none-yet.weights.h5"
        """Weights of the best epoch so far; known after `load` or `save`."""
        self._apart: Path | None = None

    def load(self) -> tuple[RunState, Path | None]:
        """How far the run is, and the weights and optimizer to go on from (None: the start).

        Raises:
            TrainingError: the checkpoint is damaged or incomplete.
        """
        progress = self.folder / "progress.json"
        try:
            document = json.loads(progress.read_text(encoding="utf-8"))
            state = RunState(
                [EpochRecord(**record) for record in document["history"]],
                document["best_epoch"],
                document["stopped_epoch"],
            )
            kept = {file: self.folder / name for file, name in document["files"].items()}
            last, best = kept["last"], kept["best"]
            intact = all(sha256_of(kept[file]) == document["sha256"][file] for file in kept)
        except FileNotFoundError:
            if not progress.exists():
                return RunState(), None
            intact = False
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            intact = False
        if not intact or not state.history:
            raise TrainingError(
                f"The checkpoint {self.folder} is damaged. Delete it to train from the start."
            )
        self.best_weights = best
        return state, last

    def keep(self, epoch: int, save_weights: Callable[[Path], None]) -> None:
        """Write the weights of the best epoch, where training goes on from others: then `save`.

        Raises:
            TrainingError: as `save`.
        """
        apart = self.folder / f"best-{epoch:03d}.weights.h5"
        with self._disk():
            save_weights(apart)
            _flush(apart)
        self._apart = apart

    def save(self, state: RunState, save_weights: Callable[[Path], None], *, best: bool) -> None:
        """Write the state after an epoch.

        Args:
            state: with the epoch's record as its last.
            save_weights: writes weights and optimizer to the path that it is given.
            best: whether this is the best epoch so far.

        Raises:
            TrainingError: it cannot be written; the previous epoch stays.
        """
        last = self.folder / f"epoch-{state.history[-1].epoch:03d}.weights.h5"
        best_weights = (self._apart or last) if best else self.best_weights
        files = {"last": last, "best": best_weights}
        with self._disk():
            save_weights(last)
            _flush(last)
            document = asdict(state) | {
                "files": {file: path.name for file, path in files.items()},
                "sha256": {file: sha256_of(path) for file, path in files.items()},
            }
            write_json(self.folder / "progress.json", document)
        self.best_weights, self._apart = best_weights, None
        for old in self.folder.glob("*.weights.h5"):
            if old not in files.values():
                old.unlink(missing_ok=True)

    def wait(self, seconds: float = 60.0) -> None:
        """Until the process that writes the checkpoint has: a network share takes its time.

        Raises:
            TrainingError: nothing is seen of it.
        """
        deadline = time.monotonic() + seconds
        while not (self.folder / "progress.json").exists():
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"The first process has written a checkpoint, and {self.folder} holds none. "
                    "All processes want one folder of checkpoints, on a network share."
                )
            time.sleep(0.5)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """The folder, to be written to; says what to do where it cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except (OSError, RuntimeError) as error:  # h5py raises either where a disk is full
            raise TrainingError(
                f"The checkpoint cannot be written to {self.folder} ({error}). Free some space "
                "(300 MB are enough) and run again: training goes on from the epoch before."
            ) from None

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


def _flush(path: Path) -> None:
    """Bring a file to the disk before anything points to it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
