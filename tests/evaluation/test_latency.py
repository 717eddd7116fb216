from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from fer.evaluation.latency import measure


class Sleeper:
    """A model that takes one millisecond an image."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def logits(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert crops.dtype == np.uint8
        assert crops.shape[1:] == (48, 48)
        self.batches.append(len(crops))
        time.sleep(0.001 * len(crops))
        return np.zeros((len(crops), 7), np.float32)


def test_it_measures_what_it_says() -> None:
    model = Sleeper()
    found = measure(model, 20, threads=2, model_bytes=123)
    assert 1 <= found["batch_1_p50_ms"] < 20
    assert found["batch_1_p50_ms"] <= found["batch_1_p95_ms"]
    assert 30 < found["batch_32_images_per_second"] <= 1000
    assert (found["runs"], found["threads"], found["model_bytes"]) == (20, 2, 123)
    assert model.batches.count(1) == 30  # ten to warm up
    assert model.batches.count(32) == 4  # one to warm up


def test_no_run_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="at least one"):
        measure(Sleeper(), 0)
