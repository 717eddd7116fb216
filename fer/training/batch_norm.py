"""Batch normalisation by TensorFlow's fused kernel, which saves training time on a CPU.

Keras 3 composes batch normalisation of elementary operations, each of which reads and writes the
whole activation; EfficientNetB2 has 69 of them. `benchmarks/training.py` measures a step with both.
"""

from __future__ import annotations

from typing import Any

import keras


class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras has no types
    """Keras's layer, fused where TensorFlow computes it in float32 over the last axis of four.

    Elsewhere (JAX, half precision, other shapes) it is Keras's own. Variables, their names and the
    layer's name in a weights file are the same; the moving variance follows the unbiased estimate
    of a batch, which differs from Keras's by a factor of n / (n - 1) over its n positions.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not self._fits(inputs) or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        from tensorflow.compat.v1.nn import fused_batch_norm

        scale, offset = self.gamma.value, self.beta.value
        if not (training and self.trainable):
            mean, variance = self.moving_mean.value, self.moving_variance.value
            outputs, _, _ = fused_batch_norm(
                inputs, scale, offset, mean, variance, epsilon=self.epsilon, is_training=False
            )
            return outputs
        outputs, mean, variance = fused_batch_norm(
            inputs, scale, offset, epsilon=self.epsilon, is_training=True
        )
        for moving, seen in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + seen * (1 - self.momentum))
        return outputs

    def _fits(self, inputs: Any) -> bool:
        plain = keras.backend.standardize_dtype(inputs.dtype) == "float32"
        return plain and len(inputs.shape) == 4 and keras.backend.backend() == "tensorflow"


def with_fused_batch_norm(model: keras.Model) -> keras.Model:
    """A copy of a model, with new weights, whose batch normalisations are the fused ones."""

    def clone(layer: Any) -> Any:
        kind = BatchNormalization if type(layer) is keras.layers.BatchNormalization else type(layer)
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)
