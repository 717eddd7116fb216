"""Batches of training faces in an order that only seed and epoch decide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fer.errors import TrainingError
from fer.expressions import EXPRESSIONS

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


class EpochBatches:
    """The batches of one epoch: uint8 images (batch, 48, 48, 1), shares of labels (batch, 7).

    The images stay in memory as bytes (FER2013: 64 MB) and a batch is one indexed copy, so
    nothing here ever makes the network wait. The last, short batch is left out, so that no
    second graph is compiled for it; which images it would hold differs from epoch to epoch.

    With `mixup` above 0 each image is blended with the next one of its batch, and its label in the
    same proportion, which is drawn from Beta(mixup, mixup) and at least a half, so that the larger
    share is its own (Zhang et al., mixup, https://arxiv.org/abs/1710.09412).
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int8],
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        mixup: float = 0.0,
    ) -> None:
        self.steps = len(pixels) // batch_size
        if self.steps == 0:
            raise TrainingError(
                f"{len(pixels)} training images do not fill one batch of {batch_size}. "
                "Lower train.batch_size or use more data."
            )
        self._pixels, self._labels, self._size = pixels, labels, batch_size
        self._seeds, self._mixup = (seed, epoch), mixup
        self._order = np.random.default_rng(self._seeds).permutation(len(pixels))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.steps):
            yield self[step]

    def __getitem__(self, step: int) -> Batch:
        """A batch by its number, the same however often it is asked for."""
        if not 0 <= step < self.steps:
            raise IndexError(f"There is no batch {step} of {self.steps}.")
        chosen = self._order[step * self._size : (step + 1) * self._size]
        pixels = self._pixels[chosen][..., None]
        labels = np.eye(len(EXPRESSIONS), dtype=np.float32)[self._labels[chosen]]
        if not self._mixup:
            return pixels, labels
        generator = np.random.default_rng((*self._seeds, step))
        share = generator.beta(self._mixup, self._mixup, len(chosen)).astype(np.float32)
        share = np.maximum(share, 1 - share)[:, None]
        labels = share * labels + (1 - share) * np.roll(labels, 1, axis=0)
        share = share[..., None, None]
        mixed = share * pixels + (1 - share) * np.roll(pixels, 1, axis=0)
        return np.rint(mixed).astype(np.uint8), labels
