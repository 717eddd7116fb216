"""What the network trains on: CPU, one GPU, or several by data parallelism, in one process or more.

Several processes, on one machine or many, train one network under JAX. Keras's own variables tell
them of each other: KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from fer.errors import TrainingError

_PROCESSES: Final = "KERAS_DISTRIBUTION_NUM_PROCESSES"


@dataclass(frozen=True)
class Devices:
    """What the backend sees.

    Attributes:
        backend: of Keras.
        kind: GPU or CPU.
        count: of all processes together.
        processes: that train together, each with as many devices.
        process: the number of this one; the first one, 0, writes files.
    """

    backend: str
    kind: str
    count: int
    processes: int = 1
    process: int = 0

    @property
    def description(self) -> str:
        """For people and for the lineage of a model."""
        machine = f"{platform.machine()}, {os.cpu_count()} logical cores"
        where = f" in {self.processes} processes" if self.processes > 1 else ""
        return f"{self.count} x {self.kind}{where} ({machine}), Keras on {self.backend}"

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.process == 0

    def share(self, batch: Any) -> Any:
        """What this process has of a batch: an array, or several."""
        if self.processes == 1:
            return batch
        import keras

        def own(array: Any) -> Any:
            size = len(array) // self.processes
            return array[self.process * size : (self.process + 1) * size]

        return keras.tree.map_structure(own, batch)

    def whole(self, model: Any) -> Any:
        """A model that predicts what `model` does, for every process all of it."""
        if self.processes == 1:
            return model
        import keras

        mesh = keras.distribution.distribution().device_mesh
        everywhere = keras.distribution.TensorLayout([None, None], mesh)
        gather = keras.layers.Lambda(
            lambda logits: keras.distribution.distribute_tensor(logits, everywhere)
        )
        return keras.Sequential([keras.Input(model.input_shape[1:]), model, gather])

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """For saving and loading: what Keras makes for itself meanwhile waits for no process.

        Else it would, to compare its value with theirs, and they may not be saving.
        """
        if self.processes == 1:
            yield
            return
        import keras

        together = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(together)

    def agree(self, on: str) -> None:
        """Check that all processes are about to do the same, and wait for each other.

        Raises:
            TrainingError: they are not.
        """
        if self.processes == 1:
            return
        import hashlib

        import numpy as np
        from jax.experimental.multihost_utils import process_allgather

        own = np.frombuffer(hashlib.sha256(on.encode()).digest(), np.uint8)
        if len(np.unique(process_allgather(own), axis=0)) > 1:
            raise TrainingError(
                f"The processes of this training differ; this one has: {on}. All want the same "
                "data, initial weights and params.yaml, and one folder of checkpoints."
            )


def configure(*, seed: int, precision: str, deterministic: bool) -> Devices:
    """Seed Python, NumPy and the backend; set precision and allocator; say what trains.

    Call it before anything is built. Where there are other processes, it waits for them.

    Raises:
        TrainingError: several processes are named, and the backend cannot do that, or they do not
            find each other.
    """
    from fer.training.allocator import keep_freed_memory

    keep_freed_memory()
    import keras

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    backend = keras.backend.backend()
    if _PROCESSES in os.environ or (backend == "tensorflow" and "TF_CONFIG" in os.environ):
        _join(backend)
    if backend == "tensorflow":
        import tensorflow as tf

        if deterministic:
            tf.config.experimental.enable_op_determinism()
        gpus = tf.config.list_physical_devices("GPU")
        logical = tf.config.list_logical_devices("GPU" if gpus else "CPU")
        return Devices(backend, "GPU" if gpus else "CPU", len(logical))
    names = keras.distribution.list_devices()
    kind = "GPU" if any("gpu" in name or "cuda" in name for name in names) else "CPU"
    if backend != "jax":
        return Devices(backend, kind, max(len(names), 1))
    import jax

    return Devices(backend, kind, len(names), jax.process_count(), jax.process_index())


def _join(backend: str) -> None:
    """Find the other processes."""
    import keras

    if backend != "jax":
        raise TrainingError(
            f"{_PROCESSES} or TF_CONFIG is set, and several processes train under JAX alone: "
            "KERAS_BACKEND=jax. Without these variables this process trains by itself."
        )
    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"The processes of this training did not find each other ({error}). Give each "
            "KERAS_DISTRIBUTION_JOB_ADDRESSES (host:port of the first), "
            f"{_PROCESSES}, and its own KERAS_DISTRIBUTION_PROCESS_ID, from 0."
        ) from None


@contextlib.contextmanager
def data_parallel(devices: Devices) -> Iterator[Any]:
    """Build and fit inside this: with several devices each takes its share of every batch."""
    import keras

    if devices.count < 2:
        yield None
    elif devices.backend == "tensorflow":
        import tensorflow as tf

        names = [one.name for one in tf.config.list_logical_devices(devices.kind)]
        strategy = tf.distribute.MirroredStrategy(names)
        with strategy.scope():
            yield strategy
    else:
        # Each process gives its own share of a batch.
        distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
        with distribution.scope():
            yield distribution
