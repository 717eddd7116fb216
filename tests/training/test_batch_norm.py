"""The fused batch normalisation is Keras's, but for the estimate of the variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # TensorFlow starts

IMAGES = np.random.default_rng(3).normal(2, 3, (8, 5, 5, 4)).astype("float32")


def pair(**options: Any) -> tuple[Any, Any]:
    """The fused layer and Keras's own, with the same weights."""
    import keras

    from fer.training.batch_norm import BatchNormalization

    layers = BatchNormalization(**options), keras.layers.BatchNormalization(**options)
    for layer in layers:
        layer.build((None, *IMAGES.shape[1:]))
    weights = [np.random.default_rng(1).uniform(0.5, 2, one.shape) for one in layers[0].weights]
    for layer in layers:
        layer.set_weights(weights)
    return layers


@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_kerass(training: bool) -> None:
    import tensorflow as tf

    found = []
    for layer in pair(epsilon=1e-3):
        images = tf.Variable(IMAGES)
        with tf.GradientTape() as tape:
            outputs = layer(images, training=training)
            loss = tf.reduce_sum(outputs * tf.sin(outputs))
        sources = [images, layer.gamma.value, layer.beta.value]
        found.append([outputs.numpy(), *(one.numpy() for one in tape.gradient(loss, sources))])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_moving_averages_follow_the_batch() -> None:
    ours, theirs = pair(momentum=0.9)
    before = ours.moving_variance.numpy()
    for layer in (ours, theirs):
        layer(IMAGES, training=True)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)
    count = np.prod(IMAGES.shape[:3])
    expected = 0.9 * before + 0.1 * IMAGES.var(axis=(0, 1, 2)) * count / (count - 1)
    np.testing.assert_allclose(ours.moving_variance, expected, rtol=1e-4)


def test_frozen_it_uses_and_keeps_the_averages() -> None:
    ours, _ = pair()
    ours.trainable = False
    before = [np.array(one) for one in ours.get_weights()]
    frozen = ours(IMAGES, training=True)
    np.testing.assert_allclose(frozen, ours(IMAGES, training=False))
    assert all((one == other).all() for one, other in zip(before, ours.get_weights(), strict=True))


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_kerass_own(dtype: str) -> None:
    ours, theirs = pair(dtype=dtype)
    for training in (True, False):
        found, expected = (np.asarray(one(IMAGES, training=training)) for one in (ours, theirs))
        assert (found == expected).all()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
def test_weights_files_are_exchanged(tmp_path: Any) -> None:
    import keras

    from fer.training.batch_norm import BatchNormalization, with_fused_batch_norm

    inputs = keras.Input((5, 5, 4))
    x = keras.layers.BatchNormalization(name="norm")(inputs)
    plain = keras.Model(inputs, keras.layers.Conv2D(2, 3, name="conv")(x))
    fused = with_fused_batch_norm(plain)
    assert type(fused.get_layer("norm")) is BatchNormalization
    plain.save_weights(tmp_path / "plain.weights.h5")
    fused.load_weights(tmp_path / "plain.weights.h5")
    found, expected = (model(IMAGES).numpy() for model in (fused, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
