"""Random changes of training faces, inside the graph and off when predicting.

Flip, shift, scale and rotation are one affine map, so a face is resampled once and stays as
sharp as it can; distance, light, noise and erasing follow. All randomness comes from one seeded
generator whose state is saved with the weights, so a resumed run goes on where it stopped.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from fer.params import AugmentParams


class FaceAugmentation(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Augments a batch of grey faces, each image on its own.

    Input and output: float (n, side, side, 1), grey levels 0 to 255.
    """

    def __init__(self, params: AugmentParams, seed: int, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.params = params
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        images = ops.cast(images, "float32")
        if not training:
            return images
        return self._erase(self._noise(self._light(self._distance(self._move(images)))))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def _uniform(self, count: Any, low: float, high: float) -> Any:
        return keras.random.uniform((count,), low, high, seed=self.seed_generator)

    def _move(self, images: Any) -> Any:
        """Flip, rotate, scale and shift about the centre."""
        params = self.params
        count, side = ops.shape(images)[0], images.shape[1]
        angle = self._uniform(count, -1, 1) * math.radians(params.rotation)
        inverse_scale = 1 / (1 + self._uniform(count, -1, 1) * params.scale)
        mirror = ops.sign(self._uniform(count, -1, 1)) if params.flip else ops.ones((count,))
        shift_x = self._uniform(count, -1, 1) * params.shift * side
        shift_y = self._uniform(count, -1, 1) * params.shift * side
        # The map goes from output to input coordinates, about the centre of the image.
        centre = (side - 1) / 2
        cos, sin = inverse_scale * ops.cos(angle), inverse_scale * ops.sin(angle)
        a, b, c, d = cos * mirror, -sin, sin * mirror, cos
        zero = ops.zeros_like(a)
        transform = ops.stack(
            [
                a,
                b,
                centre - a * centre - b * centre + shift_x,
                c,
                d,
                centre - c * centre - d * centre + shift_y,
                zero,
                zero,
            ],
            axis=1,
        )
        return ops.image.affine_transform(
            images, transform, interpolation="bilinear", fill_mode="reflect"
        )

    def _distance(self, images: Any) -> Any:
        """Blur some as if they had been taken from up to twice as far, and enlarged."""
        if not self.params.far:
            return images
        count, side = ops.shape(images)[0], images.shape[1]
        chosen = ops.cast(self._uniform(count, 0, 1) < self.params.far, "float32")
        share = _each(chosen * self._uniform(count, 0, 1))
        reduced = ops.average_pool(images, 2, strides=2, padding="same")
        far = ops.image.resize(reduced, (side, side), interpolation="bilinear")
        return images + share * (far - images)

    def _light(self, images: Any) -> Any:
        """Change contrast about each image's mean, and brightness."""
        count = ops.shape(images)[0]
        contrast = 1 + self._uniform(count, -1, 1) * self.params.contrast
        brightness = self._uniform(count, -1, 1) * self.params.brightness * 255
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        changed = (images - mean) * _each(contrast) + mean + _each(brightness)
        return ops.clip(changed, 0, 255)

    def _noise(self, images: Any) -> Any:
        """Add the noise of a sensor, of another strength in each image."""
        if not self.params.noise:
            return images
        strength = self._uniform(ops.shape(images)[0], 0, self.params.noise) * 255
        noise = keras.random.normal(ops.shape(images), seed=self.seed_generator)
        return ops.clip(images + _each(strength) * noise, 0, 255)

    def _erase(self, images: Any) -> Any:
        """Cover one rectangle with one grey level (Zhong et al., Random Erasing, 2017)."""
        params = self.params
        if not params.erase:
            return images
        count, side = ops.shape(images)[0], images.shape[1]
        chosen = self._uniform(count, 0, 1) < params.erase
        area = self._uniform(count, *params.erase_area) * side * side
        # Aspect ratio between 1:2 and 2:1, evenly on a logarithmic scale.
        ratio = ops.exp(self._uniform(count, -math.log(2), math.log(2)))
        half_height, half_width = ops.sqrt(area * ratio) / 2, ops.sqrt(area / ratio) / 2
        middle_y, middle_x = self._uniform(count, 0, side), self._uniform(count, 0, side)
        position = ops.arange(side, dtype="float32")
        inside_y = ops.abs(position[None] - middle_y[:, None]) < half_height[:, None]
        inside_x = ops.abs(position[None] - middle_x[:, None]) < half_width[:, None]
        inside = inside_y[:, :, None] & inside_x[:, None, :] & chosen[:, None, None]
        level = _each(self._uniform(count, 0, 255))
        return ops.where(inside[..., None], level, images)


def _each(values: Any) -> Any:
    """(n,) -> (n, 1, 1, 1), to multiply with a batch of images."""
    return ops.reshape(values, (-1, 1, 1, 1))
