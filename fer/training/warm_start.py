"""From a model package back to a network that can be trained on.

A package that holds `network.weights.h5` gives its network as it was trained. One that holds only
`model.onnx` or `model.tflite` has its batch norms folded into the convolutions; they are taken
apart again, so that the network computes the same function and can be trained on. Of a model in
integers it is the function in floats: what the rounding of activations changes is not in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fer.errors import PackageError
from fer.expressions import Expression
from fer.files import atomic_path
from fer.registry.package import ModelPackage
from fer.training.folded import Folded, Values, read_folded
from fer.training.network import NetworkConfig, build_backbone, build_network

if TYPE_CHECKING:
    import keras

_WEIGHTS: Final = "network.weights.h5"
_CROPS: Final = 8
"""Drawn faces per expression that stand for the data when batch norms are taken apart."""


def write_initial_weights(package: Path, out: Path) -> None:
    """Write the backbone of a package as `FER_WEIGHTS` and `train.weights` take it.

    Args:
        package: a package's folder.
        out: NAME.weights.h5, replaced where it is there.

    Raises:
        PackageError: no package, or its model is not this project's EfficientNetB2.
    """
    backbone = network_of(ModelPackage.open(package)).get_layer("backbone")
    with atomic_path(out) as temporary:
        # Keras decides on the format by the name, and the temporary file has another.
        named = temporary.with_name(f"{temporary.name}.weights.h5")
        try:
            backbone.save_weights(named)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)


def network_of(package: ModelPackage) -> keras.Model:
    """The network of a package, as `fer.training.network.build_network` builds it.

    Raises:
        PackageError: its model is not this project's EfficientNetB2.
    """
    config = NetworkConfig.read(package.file("network.json"))
    network = build_network(config, build_backbone())
    if _WEIGHTS in package.manifest.files:
        network.load_weights(package.file(_WEIGHTS))
    else:
        try:
            _unfold(read_folded(package.model), network)
        except (ValueError, KeyError, IndexError, StopIteration) as error:
            raise PackageError(
                f"{package.model} is no EfficientNetB2 of this project: its layers differ "
                f"({error})."
            ) from None
    return network


def _unfold(folded: Folded, network: keras.Model) -> None:
    """Set a network to compute what an exported model does."""
    import keras

    backbone = network.get_layer("backbone")
    layers = [
        layer
        for layer in backbone.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
    ]
    norm_behind = {
        layer.input._keras_history.operation.name: layer
        for layer in backbone.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    # Of each batch norm: the scale and shift that it has when predicting.
    norms = [(network.get_layer("feature_norm"), folded.scale, folded.shift)]
    for layer, (kernel, bias) in zip(layers, folded.convolutions, strict=True):
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        # Keras: (h, w, in, out), depthwise (h, w, in, 1).
        kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        norm = norm_behind.get(layer.name)
        layer.set_weights([kernel, bias] if norm is None else [kernel])
        if norm is not None:
            norms.append((norm, np.ones_like(bias), bias))
    network.get_layer("logits").set_weights([folded.kernel, folded.bias])
    (normalization,) = (
        layer for layer in backbone.layers if isinstance(layer, keras.layers.Normalization)
    )
    normalization.adapt_mean.assign(folded.mean)
    normalization.adapt_variance.assign(np.square(folded.deviation))
    normalization.finalize_state()
    _set_norms(network, norms)


def _set_norms(network: keras.Model, norms: list[tuple[Any, Values, Values]]) -> None:
    """Give each batch norm its scale and shift, and the statistics of faces.

    Any mean and variance give the same function when predicting. Those of real activations let
    training, which uses the batch's own, begin from that function too.
    """
    import keras

    for norm, scale, shift in norms:
        zero, one = np.zeros_like(shift), np.ones_like(shift)
        norm.set_weights([scale * np.sqrt(1 + norm.epsilon), shift, zero, one])
    crops = _faces(network.input_shape[1])
    backbone = network.get_layer("backbone")
    inner = [norm for norm, _, _ in norms if norm.name != "feature_norm"]
    probe = keras.Model(backbone.inputs, [norm.input for norm in inner])
    ends = [network.get_layer(name).output for name in ("grey_to_rgb", "pool")]
    images, pooled = keras.Model(network.inputs, ends).predict(crops, verbose=0)
    seen = dict(zip([norm.name for norm in inner], probe.predict(images, verbose=0), strict=True))
    seen["feature_norm"] = pooled
    for norm, scale, shift in norms:
        flat = np.asarray(seen[norm.name], np.float64).reshape(-1, len(shift))
        mean, variance = flat.mean(axis=0), flat.var(axis=0)
        gamma = scale * np.sqrt(variance + norm.epsilon)
        norm.set_weights([gamma, shift + scale * mean, mean, variance])


def _faces(side: int) -> Values:
    """Drawn faces, float32 (n, side, side, 1)."""
    from fer.dataset.synthetic import draw_face

    generator = np.random.default_rng(0)
    crops = [draw_face(one, generator, side) for one in Expression for _ in range(_CROPS)]
    return np.stack(crops)[..., None].astype(np.float32)
