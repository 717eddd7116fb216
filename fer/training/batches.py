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

    With `cutmix` above 0 that share of the images is not blended: a rectangle of up to half of the
    image is the next one's, and the label follows the area that is left (Yun et al., CutMix,
    https://arxiv.org/abs/1905.04899).
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
        cutmix: float = 0.0,
    ) -> None:
        self.steps = len(pixels) // batch_size
        if self.steps == 0:
            raise TrainingError(
                f"{len(pixels)} training images do not fill one batch of {batch_size}. "
                "Lower train.batch_size or use more data."
            )
        self._pixels, self._labels, self._size = pixels, labels, batch_size
        self._seeds, self._mixup, self._cutmix = (seed, epoch), mixup, cutmix
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
        if not (self._mixup or self._cutmix):
            return pixels, labels
        generator = np.random.default_rng((*self._seeds, step))
        share = np.ones(len(chosen), np.float32)
        if self._mixup:
            share = generator.beta(self._mixup, self._mixup, len(chosen)).astype(np.float32)
            share = np.maximum(share, 1 - share)
        # Of each image, and of each of its pixels.
        own = share[:, None, None, None]
        if self._cutmix:
            cut = generator.random(len(chosen)) < self._cutmix
            outside = ~_rectangles(generator, len(chosen), pixels.shape[1])
            own = np.where(cut[:, None, None, None], outside[..., None], own).astype(np.float32)
            share = np.where(cut, outside.mean(axis=(1, 2)), share).astype(np.float32)
        labels = share[:, None] * labels + (1 - share[:, None]) * np.roll(labels, 1, axis=0)
        mixed = own * pixels + (1 - own) * np.roll(pixels, 1, axis=0)
        return np.rint(mixed).astype(np.uint8), labels


def _rectangles(generator: np.random.Generator, count: int, side: int) -> NDArray[np.bool_]:
    """(count, side, side): squares of up to half of the area, cut off where they leave it."""
    half = side * np.sqrt(generator.uniform(0, 0.5, count)) / 2
    middle_y, middle_x = generator.uniform(0, side, (2, count))
    position = np.arange(side) + 0.5
    inside_y = np.abs(position - middle_y[:, None]) < half[:, None]
    inside_x = np.abs(position - middle_x[:, None]) < half[:, None]
    inside: NDArray[np.bool_] = inside_y[:, :, None] & inside_x[:, None, :]
    return inside
