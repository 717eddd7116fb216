"""What the network trains on: CPU, one GPU, or several by data parallelism."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Devices:
    """What the backend sees."""

    backend: str
    kind: str
    count: int

    @property
    def description(self) -> str:
        """For people and for the lineage of a model."""
        machine = f"{platform.machine()}, {os.cpu_count()} logical cores"
        return f"{self.count} x {self.kind} ({machine}), Keras on {self.backend}"


def configure(*, seed: int, precision: str, deterministic: bool) -> Devices:
    """Seed Python, NumPy and the backend; set precision and allocator; say what trains.

    Call it before anything is built.
    """
    from fer.training.allocator import keep_freed_memory

    keep_freed_memory()
    import keras

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if deterministic:
            tf.config.experimental.enable_op_determinism()
        gpus = tf.config.list_physical_devices("GPU")
        logical = tf.config.list_logical_devices("GPU" if gpus else "CPU")
        return Devices(backend, "GPU" if gpus else "CPU", len(logical))
    names = keras.distribution.list_devices()
    kind = "GPU" if any("gpu" in name or "cuda" in name for name in names) else "CPU"
    return Devices(backend, kind, max(len(names), 1))


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
        distribution = keras.distribution.DataParallel()
        with distribution.scope():
            yield distribution
