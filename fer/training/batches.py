"""Batches of training faces in an order that only seed and epoch decide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fer.errors import TrainingError

Batch = tuple[NDArray[np.uint8], NDArray[np.int32]]


class EpochBatches:
    """Iterates over one epoch: uint8 (batch, 48, 48, 1) and int32 labels (batch,).

    The images stay in memory as bytes (FER2013: 64 MB) and a batch is one indexed copy, so
    nothing here ever makes the network wait. The last, short batch is left out, so that no
    second graph is compiled for it; which images it would hold differs from epoch to epoch.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int8],
        *,
        batch_size: int,
        seed: int,
        epoch: int,
    ) -> None:
        self.steps = len(pixels) // batch_size
        if self.steps == 0:
            raise TrainingError(
                f"{len(pixels)} training images do not fill one batch of {batch_size}. "
                "Lower train.batch_size or use more data."
            )
        self._pixels, self._labels, self._size = pixels, labels, batch_size
        self._order = np.random.default_rng((seed, epoch)).permutation(len(pixels))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.steps):
            chosen = self._order[step * self._size : (step + 1) * self._size]
            yield self._pixels[chosen][..., None], self._labels[chosen].astype(np.int32)
