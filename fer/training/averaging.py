"""Weights averaged over the steps of phase 2, with batch-norm statistics of their own.

The optimizer keeps the average (Keras's `use_ema`). It is judged and kept as the best in place of
the last weights, but training goes on from those. The statistics of batch normalisation follow the
last weights; under the average each layer sees other activations, so they are measured anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import keras

_BATCHES: Final = 32
"""So many batches give the statistics; the variance of 2,000 images is good to some 3 %."""


class AveragingAdamW(keras.optimizers.AdamW):  # type: ignore[misc]  # Keras has no types
    """AdamW whose averages take the weights' place in `averaged` alone.

    Keras's `fit` ends with putting them there. An epoch is one `fit` here, and the next one would
    go on from the average.
    """

    def finalize_variable_values(self, var_list: Any) -> None:
        """What `fit` ends with: nothing."""

    def overwrite(self, variables: list[keras.Variable]) -> None:
        """Give the weights their averages."""
        super().finalize_variable_values(variables)
        # Under JAX a weight would be its average's own array, which predicting and training use up.
        for one in variables:
            one.assign(keras.ops.convert_to_numpy(keras.ops.copy(one)))


class Batches(Protocol):
    """Batches by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int, /) -> Any: ...


@contextmanager
def averaged(model: keras.Model, batches: Batches) -> Iterator[None]:
    """Have a model its averaged weights for as long as the block lasts.

    Where its optimizer averages nothing, nothing happens.

    Args:
        model: compiled; its optimizer has done a step, and is an AveragingAdamW where it averages.
        batches: (images, ...) as the model is trained on them; the first ones are used.
    """
    optimizer = model.optimizer
    if not optimizer.use_ema:
        yield
        return
    # By way of tensors: with several devices a variable is one for each.
    tensors = [keras.ops.copy(one) for one in model.variables]
    own = [keras.ops.convert_to_numpy(one) for one in tensors]
    try:
        optimizer.overwrite(model.trainable_variables)
        _measure_statistics(model, batches)
        yield
    finally:
        for variable, value in zip(model.variables, own, strict=True):
            variable.assign(value)


def _measure_statistics(model: keras.Model, batches: Batches) -> None:
    """Set every moving mean and variance to the mean over some batches, in training mode."""
    norms = [one for one in _layers(model) if isinstance(one, keras.layers.BatchNormalization)]
    norms = [one for one in norms if one.trainable]
    momenta = [one.momentum for one in norms]
    try:
        for number in range(min(_BATCHES, len(batches))):
            for one in norms:
                one.momentum = number / (number + 1)  # the plain mean of all batches so far
            # Not compiled: the momentum is a constant of what is.
            model(batches[number][0], training=True)
    finally:
        for one, momentum in zip(norms, momenta, strict=True):
            one.momentum = momentum


def _layers(layer: Any) -> Iterator[Any]:
    for one in getattr(layer, "layers", ()):
        yield one
        yield from _layers(one)
