"""How fast a model predicts here. Not a metric: the figures differ from run to run."""

from __future__ import annotations

import os
import platform
import time
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_BATCH = 32
_WARM_UP = 10


class LogitsModel(Protocol):
    """What is measured and evaluated: `fer.inference.classifier.Classifier`, or the like."""

    def logits(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (n, 7) of grey crops (n, height, width)."""


def measure(
    classifier: LogitsModel,
    runs: int,
    *,
    threads: int | None = None,
    model_bytes: int | None = None,
) -> dict[str, Any]:
    """Time `runs` predictions of one 48x48 face, and as many images in batches of 32.

    Args:
        classifier: the model, loaded.
        runs: timed predictions, after ten that are not.
        threads: CPU threads the classifier was given, None for the engine's own choice.
        model_bytes: size of the model file.

    Returns:
        `batch_1_p50_ms`, `batch_1_p95_ms`, `batch_1_images_per_second` (from the median),
        `batch_32_images_per_second`, `runs`, and where they hold: `threads`, `model_bytes`,
        `machine`, `cpus`.
    """
    if runs < 1:
        raise ValueError(f"runs is {runs}; at least one prediction is timed")
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, size=(_BATCH, 48, 48), dtype=np.uint8)
    for _ in range(_WARM_UP):
        classifier.logits(crops[:1])
    single = np.empty(runs)
    for run in range(runs):
        crop = crops[run % _BATCH][None]
        start = time.perf_counter()
        classifier.logits(crop)
        single[run] = time.perf_counter() - start
    batches = max(3, runs // _BATCH)
    classifier.logits(crops)
    start = time.perf_counter()
    for _ in range(batches):
        classifier.logits(crops)
    batched = batches * _BATCH / max(time.perf_counter() - start, 1e-9)
    median = float(np.median(single))
    return {
        "runs": runs,
        "batch_1_p50_ms": round(median * 1000, 3),
        "batch_1_p95_ms": round(float(np.percentile(single, 95)) * 1000, 3),
        "batch_1_images_per_second": round(1 / max(median, 1e-9), 1),
        "batch_32_images_per_second": round(batched, 1),
        "threads": threads,
        "model_bytes": model_bytes,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
