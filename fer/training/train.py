"""Stage train: the two phases, epoch by epoch, resumable after each."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from fer.dataset.table import FaceTable
from fer.errors import TrainingError
from fer.files import sha256_of, write_json
from fer.params import Params, TrainParams
from fer.progress import Progress
from fer.training.augmentation import FaceAugmentation
from fer.training.averaging import AveragingAdamW, averaged
from fer.training.batches import EpochBatches
from fer.training.checkpoint import Checkpoint, EpochRecord, Phase, RunState, run_key
from fer.training.curves import DvcLiveCurves, write_history
from fer.training.devices import Devices, configure, data_parallel
from fer.training.guard import workflow_alive
from fer.training.network import NetworkConfig, at_size, build_backbone, build_network
from fer.training.weights import initial_weights, load_initial_weights

_VALIDATION_BATCH: Final = 256


class Trainer:
    """One run: what it trains, on what, and how far it is."""

    def __init__(
        self, table: FaceTable, params: TrainParams, *, seed: int, devices: Devices
    ) -> None:
        self.params = params
        self.seed = seed
        self.devices = devices
        self.train, self.validation = table.part("train"), table.part("validation")
        if not len(self.validation):
            raise TrainingError("There are no validation images. Run: dvc repro prepare.")
        if params.batch_size % devices.count:
            raise TrainingError(
                f"A batch of {params.batch_size} images cannot be shared equally by "
                f"{devices.count} devices. Make train.batch_size a multiple of {devices.count}."
            )
        self.steps = EpochBatches(
            self.train.pixels,
            self.train.expression,
            batch_size=params.batch_size,
            seed=seed,
            epoch=0,
        ).steps
        self.config = NetworkConfig(input_size=params.input_size, dropout=params.dropout)
        self.backbone = build_backbone()
        self.initial_weights = load_initial_weights(self.backbone, params.weights)
        self.network = build_network(self.config, self.backbone)
        self.augmentation = FaceAugmentation(params.augment, seed, name="augmentation")
        self.phase: Phase | None = None
        self.size: int | None = None
        self.model = self.network
        self.predictor = self.network

    def phase_of(self, epoch: int) -> Phase:
        """The phase of an epoch; epochs count from 1."""
        return "head" if epoch <= self.params.head.epochs else "finetune"

    def prepare(self, epoch: int) -> None:
        """Set what trains in an epoch, and at which size; a new phase has a fresh optimizer."""
        phase, size = self.phase_of(epoch), self.params.size_in(epoch)
        if (phase, size) == (self.phase, self.size):
            return
        optimizer = self.model.optimizer if phase == self.phase else self._optimizer(phase)
        self.backbone.trainable = phase == "finetune"
        if size != self.size:
            self.model = self._model(size)
        self.model.compile(
            optimizer=optimizer,
            loss=keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=self.params.label_smoothing
            ),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        )
        if phase != self.phase:
            optimizer.build(self.model.trainable_variables)
        self.phase, self.size = phase, size
        self.predictor = self.devices.whole(self.model)

    def _model(self, size: int) -> keras.Model:
        """Augmentation and network, with faces enlarged to a size."""
        side = self.config.side
        network = self.network if size == self.config.input_size else at_size(self.network, size)
        layers = [keras.Input((side, side, 1)), self.augmentation, network]
        return keras.Sequential(layers, name="training")

    def _optimizer(self, phase: Phase) -> keras.Optimizer:
        if phase == "head":
            return keras.optimizers.AdamW(self.params.head.learning_rate)
        tune = self.params.finetune
        warmup = max(1, round(tune.warmup_epochs * self.steps))
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            warmup_target=tune.learning_rate,
            warmup_steps=warmup,
            decay_steps=max(1, tune.epochs * self.steps - warmup),
        )
        optimizer = AveragingAdamW(
            schedule,
            weight_decay=tune.weight_decay,
            global_clipnorm=tune.clip_norm,
            use_ema=tune.average > 0,
            ema_momentum=tune.average,
        )
        # Biases and batch-norm scales hold no capacity to shrink (Loshchilov and Hutter).
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer

    def run(self, checkpoint: Checkpoint, each_epoch: Callable[[RunState], None]) -> RunState:
        """Train from where the checkpoint is to the end; the best weights end in the network."""
        state, weights = checkpoint.load()
        self.devices.agree(f"{len(state.history)} epochs done")
        if weights is not None:
            self.prepare(state.history[-1].epoch)
            self._load(weights)
            each_epoch(state)
        for epoch in range(len(state.history) + 1, self.params.epochs + 1):
            if state.stopped_epoch is not None:
                break
            self.prepare(epoch)
            batches = self._batches(epoch)
            logs, seconds = self._fit(epoch, batches)
            with averaged(self.model, batches):
                state.history.append(self._record(epoch, logs, seconds))
                best = self._judge(state)
                if best and self.model.optimizer.use_ema and self.devices.first:
                    checkpoint.keep(epoch, self._save)
            if self.devices.first:
                checkpoint.save(state, self._save, best=best)
            self.devices.agree(f"epoch {epoch}, loss {logs['loss'][0]}")
            if not self.devices.first:
                checkpoint.wait()
            each_epoch(state)
        if not self.devices.first:
            checkpoint.load()
        best_record = state.best
        if best_record is None or not checkpoint.best_weights.exists():
            raise TrainingError("No epoch ended with a finite validation loss; lower the rates.")
        self.prepare(best_record.epoch)
        self._load(checkpoint.best_weights)
        self.devices.agree("the end")
        return state

    def _save(self, path: Path) -> None:
        with self.devices.alone():
            self.model.save_weights(path)

    def _load(self, path: Path) -> None:
        with self.devices.alone():
            self.model.load_weights(path)

    def _reseed(self, epoch: int) -> None:
        """Give every random layer a state that only seed and epoch decide.

        Keras saves no such state with the weights; without this a resumed run would differ.
        """
        states = [one for one in self.model.variables if "seed_generator" in one.path]
        for number, state in enumerate(states):
            fresh = np.random.SeedSequence((self.seed, epoch, number)).generate_state(2)
            state.assign(fresh.astype(np.uint32))

    def _batches(self, epoch: int) -> EpochBatches:
        return EpochBatches(
            self.train.pixels,
            self.train.expression,
            batch_size=self.params.batch_size,
            seed=self.seed,
            epoch=epoch,
            mixup=self.params.mixup_in(epoch),
            cutmix=self.params.cutmix_in(epoch),
        )

    def _fit(self, epoch: int, batches: EpochBatches) -> tuple[dict[str, list[float]], float]:
        """Train on an epoch's batches: Keras's figures, and how many seconds it took."""
        self._reseed(epoch)
        started = time.perf_counter()
        with Progress(f"Epoch {epoch}/{self.params.epochs}, {self.phase}") as progress:
            logs = self.model.fit(
                _Sequence(batches, self.devices),
                verbose=0,
                shuffle=False,
                callbacks=[_EachBatch(lambda step: progress.update(step, batches.steps))],
            ).history
        return logs, time.perf_counter() - started

    def _record(self, epoch: int, logs: dict[str, list[float]], seconds: float) -> EpochRecord:
        assert self.phase is not None  # noqa: S101 - prepare() has set it
        val_loss, val_accuracy = self._validate()
        return EpochRecord(
            epoch=epoch,
            phase=self.phase,
            loss=float(logs["loss"][0]),
            accuracy=float(logs["accuracy"][0]),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=float(
                # Not the variable itself: with several devices it is one for each.
                keras.ops.convert_to_numpy(
                    keras.ops.convert_to_tensor(self.model.optimizer.learning_rate)
                )
            ),
            seconds=round(seconds, 1),
        )

    def _validate(self) -> tuple[float, float]:
        """Loss and accuracy on the validation images, at the size of the epoch.

        Predicted in whole batches, the last one filled up: one graph, and with several devices
        equal shares, which Keras needs.
        """
        pixels, labels = self.validation.pixels, self.validation.expression
        count = len(pixels)
        batch = max(1, _VALIDATION_BATCH // self.devices.count) * self.devices.count
        steps = -(-count // batch)
        filled = np.resize(pixels, (steps, batch, *pixels.shape[1:], 1))
        found = self.predictor.predict(_Sequence(filled, self.devices), verbose=0)
        logits = found[:count].astype(np.float64)
        logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        smoothing, classes = self.params.label_smoothing, logits.shape[1]
        own = logs[np.arange(count), labels].mean()
        loss = -((1 - smoothing) * own + smoothing / classes * logs.sum(axis=1).mean())
        return float(loss), float((logits.argmax(axis=1) == labels).mean())

    def _judge(self, state: RunState) -> bool:
        """Whether the last epoch is the best one; sets `stopped_epoch` when the rule strikes."""
        rule, last = self.params.early_stopping, state.history[-1]
        best, size = state.best, self.params.size_in(last.epoch)
        improved = (
            best is None
            # What is kept is used at the last size, so each size begins anew.
            or self.params.size_in(best.epoch) != size
            or last.val_accuracy > best.val_accuracy + rule.min_delta
        )
        if not math.isfinite(last.val_loss):
            raise TrainingError(
                f"The loss became {last.val_loss} in epoch {last.epoch}. Lower "
                "train.finetune.learning_rate, or set train.precision to float32."
            )
        if improved:
            state.best_epoch = last.epoch
        elif (
            last.phase == "finetune"
            and size == self.params.input_size
            and state.best_epoch is not None
            and last.epoch - state.best_epoch >= rule.patience
            and last.epoch < self.params.epochs
        ):
            state.stopped_epoch = last.epoch
        return improved


def train(
    *, faces: Path, params: Params, out: Path, curves: Path, checkpoints: Path
) -> dict[str, Any]:
    """Train, keep the epoch with the best validation accuracy, and write the trained model.

    `out` receives network.json, network.weights.h5, history.csv, curves.png and training.json.
    A run that was killed goes on from its last epoch, to the same weights as without the kill.
    Of several processes that train together (`fer.training.devices`) the first one writes; all of
    them see the folder of checkpoints.

    Args:
        faces: the prepared table.
        params: all of params.yaml.
        out: folder of the trained model.
        curves: folder that DVCLive writes to.
        checkpoints: folder of unfinished runs.

    Returns:
        The content of training.json.

    Raises:
        WeightsError, TrainingError, TableError.
    """
    table = FaceTable.read(faces)
    kind, path = initial_weights(params.train.weights)
    start = sha256_of(path) if path else kind
    key = run_key(sha256_of(faces), start, params.seed, params.train.model_dump())
    checkpoint = Checkpoint(checkpoints / key)
    devices = configure(
        seed=params.seed,
        precision=params.train.precision,
        deterministic=params.train.deterministic,
    )
    devices.agree(f"run {key}")
    # Of several processes the first one alone writes.
    with checkpoint.locked() if devices.first else nullcontext():
        _say(f"Training on {devices.description}")
        started = time.perf_counter()
        with data_parallel(devices):
            trainer = Trainer(table, params.train, seed=params.seed, devices=devices)
            live = DvcLiveCurves(curves) if devices.first else None
            state = trainer.run(checkpoint, lambda state: _report(state, live))
        best = state.best
        assert best is not None  # noqa: S101 - run() raises without one
        document = {
            "best_epoch": best.epoch,
            "epochs": len(state.history),
            "stopped_epoch": state.stopped_epoch,
            "validation_accuracy": best.val_accuracy,
            "validation_loss": best.val_loss,
            "training_images": len(trainer.train),
            "validation_images": len(trainer.validation),
            "initial_weights": trainer.initial_weights,
            "seed": params.seed,
            "params": params.train.model_dump(),
            "backend": devices.backend,
            "devices": devices.description,
            "keras": keras.__version__,
        }
        if live is None:
            return document
        live.close()
        _write(out, trainer, state, document)
        # Times differ from run to run, so they are not in the tracked folder.
        write_json(
            curves.parent / "training_time.json",
            {
                "seconds_this_process": round(time.perf_counter() - started, 1),
                "seconds_in_epochs": sum(one.seconds for one in state.history),
                "epochs": [asdict(one) for one in state.history],
                "peak_memory_mb": _peak_memory_mb(),
            },
        )
        checkpoint.delete()
    return document


def _write(out: Path, trainer: Trainer, state: RunState, document: dict[str, Any]) -> None:
    """Write the trained model and how it was trained."""
    from fer.reports.curves import plot_curves

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    trainer.config.write(out / "network.json")
    trainer.network.save_weights(out / "network.weights.h5")
    write_history(out / "history.csv", [_without_time(one) for one in state.history])
    plot_curves(
        out / "history.csv", out / "curves.png", document["best_epoch"], state.stopped_epoch
    )
    write_json(out / "training.json", document)


class _Sequence(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches as Keras takes them, in their order, which also several devices can share.

    Under TensorFlow two threads fetch them, for the sake of the end of an epoch: with fewer, Keras
    leaves them to a dataset that TensorFlow tunes in a thread which sleeps twice as long each time,
    up to a minute, and does not always hear that the epoch is over. Elsewhere none does: to build
    the metrics, the first `fit` takes one batch, and threads would go on behind it.
    """

    def __init__(self, batches: Any, devices: Devices) -> None:
        workers = 2 if keras.backend.backend() == "tensorflow" else 1  # one: no thread
        super().__init__(workers=workers, max_queue_size=4)
        self._batches = batches
        self._devices = devices

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> Any:
        return self._devices.share(self._batches[step])


class _EachBatch(keras.callbacks.Callback):  # type: ignore[misc]
    """Moves the bar, and ends the run when the workflow that started it is gone."""

    def __init__(self, moved: Callable[[int], None]) -> None:
        super().__init__()
        self._moved = moved

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._moved(batch + 1)
        if not workflow_alive():
            raise TrainingError("The dvc process that started this training is gone; stopping.")


def _report(state: RunState, live: DvcLiveCurves | None) -> None:
    last = state.history[-1]
    if live is not None:
        live.show(state.history)
    mark = " (best)" if last.epoch == state.best_epoch else ""
    _say(
        f"epoch {last.epoch} {last.phase}: loss {last.loss:.4f} accuracy {last.accuracy:.4f} "
        f"validation loss {last.val_loss:.4f} accuracy {last.val_accuracy:.4f}{mark} "
        f"{last.seconds:.0f} s"
    )
    if state.stopped_epoch:
        _say(f"stopped early: no better validation accuracy since epoch {state.best_epoch}")


def _without_time(record: EpochRecord) -> EpochRecord:
    return replace(record, seconds=0.0)


def _peak_memory_mb() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the stage's log
