"""From a model package back to a network that can be trained on.

A package that holds `network.weights.h5` gives its network as it was trained. One that holds only
`model.onnx` has its batch norms folded into the convolutions; they are taken apart again, so that
the network computes the same function and can be trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.errors import PackageError
from fer.expressions import Expression
from fer.files import atomic_path
from fer.registry.package import ModelPackage
from fer.training.network import NetworkConfig, build_backbone, build_network

if TYPE_CHECKING:
    import keras

    Values = NDArray[np.float32]

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
    has_weights = _WEIGHTS in package.manifest.files
    if not has_weights and package.model.suffix != ".onnx":
        raise PackageError(
            f"{package.model} is in integers, which cannot be trained on. Name the package that it "
            f"was made of: digest {package.manifest.lineage.get('made_of', 'unknown')}."
        )
    config = NetworkConfig.read(package.file("network.json"))
    network = build_network(config, build_backbone())
    if has_weights:
        network.load_weights(package.file(_WEIGHTS))
    else:
        try:
            _unfold(_Folded.read(package.model), network)
        except (ValueError, KeyError, IndexError, StopIteration) as error:
            raise PackageError(
                f"{package.model} is no EfficientNetB2 of this project: its layers differ "
                f"({error})."
            ) from None
    return network


@dataclass(frozen=True)
class _Folded:
    """What an exported model computes: the weights that its batch norms were folded into.

    Attributes:
        mean, deviation: of the input normalisation, per channel.
        convolutions: kernel (out, in / groups, h, w) and bias of each, in the graph's order.
        scale, shift: of the pooled features.
        kernel, bias: of the classifier.
    """

    mean: Values
    deviation: Values
    convolutions: list[tuple[Values, Values]]
    scale: Values
    shift: Values
    kernel: Values
    bias: Values

    @classmethod
    def read(cls, model: Path) -> _Folded:
        """Read model.onnx, whether its weights are stored as float32 or float16."""
        import onnx
        from onnx import TensorProto, numpy_helper

        graph = onnx.load(model).graph
        values = {
            one.name: numpy_helper.to_array(one).astype(np.float32)
            for one in graph.initializer
            if one.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
        }
        for node in graph.node:
            if node.op_type == "Cast" and node.input[0] in values:
                values[node.output[0]] = values[node.input[0]]
        steps = [
            (node.op_type, [values[name] for name in node.input if name in values])
            for node in graph.node
            if node.op_type != "Cast"
        ]
        first = next(place for place, (kind, _) in enumerate(steps) if kind == "Conv")
        last = next(place for place, (kind, _) in enumerate(steps) if kind == "MatMul")
        before = dict(steps[:first])
        convolutions = []
        for place, (kind, constants) in enumerate(steps):
            if kind != "Conv":
                continue
            kernel, *bias = constants
            shift = bias[0] if bias else np.zeros(len(kernel), np.float32)
            # So the converter leaves a batch norm that it does not fold.
            following = steps[place + 1 : place + 3]
            if [kind for kind, _ in following] == ["Mul", "Add"] and following[0][1]:
                factor, term = (constants[0].reshape(-1) for _, constants in following)
                kernel, shift = kernel * factor[:, None, None, None], shift * factor + term
            convolutions.append((kernel, shift))
        # The converter subtracts the mean, or adds its opposite.
        mean = before["Sub"][0] if "Sub" in before else -before["Add"][0]
        return cls(
            mean=mean.reshape(-1),
            deviation=1 / before["Mul"][0].reshape(-1),
            convolutions=convolutions,
            scale=steps[last - 2][1][0],
            shift=steps[last - 1][1][0],
            kernel=steps[last][1][0],
            bias=steps[last + 1][1][0],
        )


def _unfold(folded: _Folded, network: keras.Model) -> None:
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
