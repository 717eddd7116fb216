"""The network: 48 px grey face crops in, seven logits out, EfficientNetB2 between.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
https://arxiv.org/abs/1905.11946.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer.dataset.table import SIDE
from fer.errors import PackageError
from fer.expressions import EXPRESSIONS
from fer.files import write_json

if TYPE_CHECKING:
    import keras

BACKBONE: Final = "EfficientNetB2"
_LARGEST: Final = 260
"""Input size that EfficientNetB2 was made for, in pixels."""


@dataclass(frozen=True)
class NetworkConfig:
    """All that is needed to build the network again; its weights are stored apart."""

    input_size: int
    dropout: float
    backbone: str = BACKBONE
    side: int = SIDE
    classes: tuple[str, ...] = EXPRESSIONS

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> NetworkConfig:
        """Read what `write` wrote.

        Raises:
            PackageError: absent, damaged, or for another network.
        """
        try:
            document: dict[str, Any] = json.loads(path.read_text())
            config = cls(**{**document, "classes": tuple(document["classes"])})
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise PackageError(f"{path} describes no network ({error}).") from None
        if config.backbone != BACKBONE or config.classes != EXPRESSIONS:
            raise PackageError(f"{path} is for {config.backbone} with {config.classes}.")
        sizes = (config.input_size, config.side)
        if not all(type(one) is int and one <= _LARGEST for one in sizes):
            raise PackageError(f"{path} states sizes of {sizes}; sizes go up to {_LARGEST} px.")
        if config.input_size < 32 or config.side != SIDE:
            raise PackageError(f"{path} states sizes of {sizes}; crops are of {SIDE} px.")
        if type(config.dropout) not in (int, float) or not 0 <= config.dropout < 1:
            raise PackageError(f"{path} states a dropout of {config.dropout!r}.")
        return config


def build_backbone() -> keras.Model:
    """EfficientNetB2 without its classifier, for any input size, with random weights.

    Input: float (n, h, w, 3), 0 to 255: rescaling and normalisation are its first layers.
    """
    import keras

    from fer.training.batch_norm import with_fused_batch_norm

    return with_fused_batch_norm(
        keras.applications.EfficientNetB2(
            include_top=False, weights=None, input_shape=(None, None, 3), name="backbone"
        )
    )


def build_network(config: NetworkConfig, backbone: keras.Model | None = None) -> keras.Model:
    """The whole network without augmentation.

    Input `faces`: (n, 48, 48, 1), grey levels 0 to 255. Output: float32 logits (n, 7).
    """
    import keras

    layers = [
        keras.layers.Concatenate(name="grey_to_rgb"),
        backbone or build_backbone(),
        keras.layers.GlobalAveragePooling2D(name="pool"),
        # Brings features of any backbone to one scale, without which the first phase diverges.
        keras.layers.BatchNormalization(name="feature_norm"),
        keras.layers.Dropout(config.dropout, name="dropout"),
        # Logits stay float32 under mixed precision: a half-precision softmax loses small classes.
        keras.layers.Dense(len(config.classes), dtype="float32", name="logits"),
    ]
    return _chained(layers, config.side, config.input_size)


def at_size(network: keras.Model, input_size: int) -> keras.Model:
    """The same layers, and so the same weights, with faces enlarged to another size."""
    side = network.input_shape[1]
    layers = [one for one in network.layers if one.name not in ("faces", "enlarge")]
    return _chained(layers, side, input_size)


def _chained(layers: list[Any], side: int, input_size: int) -> keras.Model:
    import keras

    faces = keras.Input((side, side, 1), name="faces")
    x = faces
    if input_size != side:
        x = keras.layers.Resizing(input_size, input_size, interpolation="bilinear", name="enlarge")(
            x
        )
    to_rgb, *others = layers
    x = to_rgb([x, x, x])
    for layer in others:
        x = layer(x)
    return keras.Model(faces, x, name="fer")
