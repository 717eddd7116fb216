"""Export to ONNX with the preprocessing inside, and the check that it agrees with Keras.

The exported model takes `faces`, uint8 (n, h, w, 1) grey crops of any size, and gives `logits`
and `probabilities`, float32 (n, 7). A crop is first reduced to 48 px as FER2013's were, then
takes the way that training images took. The scalar `temperature` divides the logits before the
softmax; it is 1 until `fer.packaging` puts in what was fitted on validation images, which may be a
curvature too.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from fer.errors import TrainingError
from fer.expressions import Expression
from fer.files import atomic_path
from fer.training.network import NetworkConfig, build_network
from fer.training.onnx_graph import simplify

TOLERANCE: Final = 1e-3
"""Largest difference between a probability of the exported model and of Keras's."""

_OPSET: Final = 18


def export_onnx(trained: Path, out: Path) -> None:
    """Write the trained model of a folder as `out`/model.onnx.

    Raises:
        TrainingError: the two models disagree by more than `TOLERANCE`.
    """
    import onnx

    config = NetworkConfig.read(trained / "network.json")
    network = build_network(config)
    network.load_weights(trained / "network.weights.h5")
    model = _exported(network, config)
    onnx.checker.check_model(model)
    with atomic_path(out / "model.onnx") as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        _compare(network, temporary, config)


def _exported(network: Any, config: NetworkConfig) -> Any:
    """The model of a network as it ships."""
    import onnx

    model = _add_ends(_convert(network, config), config)
    simplify(model)
    # With shapes in the file ONNX Runtime knows that both inputs of an addition hold equally many
    # images, and adds inside the convolution before it.
    return onnx.shape_inference.infer_shapes(_renamed(model))


def _convert(network: Any, config: NetworkConfig) -> Any:
    """The bare network: float32 (n, 48, 48, 1) to logits."""
    import tensorflow as tf
    import tf2onnx

    # The converter keeps nodes in sets, whose order is that of memory addresses unless nodes are
    # hashed by name (and names by a fixed seed, see `fer.training.start`). Its optimizer then
    # takes other ways from run to run, and the models differ by a node here and there.
    tf2onnx.graph.Node.__hash__ = lambda node: hash(node.name)
    signature = [tf.TensorSpec((None, config.side, config.side, 1), tf.float32, name="crops")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx uses NumPy names that are to go
        model, _ = tf2onnx.convert.from_keras(network, input_signature=signature, opset=_OPSET)
    return model


def _add_ends(model: Any, config: NetworkConfig) -> Any:
    """Prepend cast and resize; append temperature and softmax."""
    from onnx import TensorProto, helper

    graph = model.graph
    entry, inner, side = graph.input[0].name, "fer_logits", config.side
    for node in graph.node:  # the bare network's output already has the name `logits`
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == graph.output[0].name:
                    names[place] = inner
    before = [
        helper.make_node("Cast", ["faces"], ["fer_float"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize",
            ["fer_float", "", "", "fer_side"],
            [entry],
            mode="linear",
            antialias=1,
            axes=[1, 2],
        ),
    ]
    after = [
        helper.make_node("Identity", [inner], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["fer_scaled"]),
        helper.make_node("Softmax", ["fer_scaled"], ["probabilities"], axis=-1),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        [
            helper.make_tensor("fer_side", TensorProto.INT64, [2], [side, side]),
            helper.make_tensor("temperature", TensorProto.FLOAT, [], [1.0]),
        ]
    )
    classes = len(config.classes)
    del graph.input[:], graph.output[:]
    graph.input.append(
        helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", "height", "width", 1])
    )
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", classes])
        for name in ("logits", "probabilities")
    )
    graph.name = "fer"
    return model


def _renamed(model: Any) -> Any:
    """Number nodes, values and weights in the order of the graph.

    The converter's own names differ from run to run; with these, one training always exports
    to the same bytes, so DVC and the registry know it as the same model.
    """
    graph = model.graph
    kept = {one.name for one in (*graph.input, *graph.output)} | {"", "temperature"}
    weights = {one.name: one for one in graph.initializer}
    names = {name: name for name in kept}
    used: list[str] = []
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"
        for index, name in enumerate(node.input):
            if name in weights and name not in used:
                used.append(name)
                names.setdefault(name, f"weight_{len(used)}")
            node.input[index] = names[name]
        for index, name in enumerate(node.output):
            node.output[index] = names.setdefault(name, f"value_{place}_{index}")
    ordered = []
    for name in used:
        weights[name].name = names[name]
        ordered.append(type(weights[name]).FromString(weights[name].SerializeToString()))
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(ordered)
    return model


def _compare(network: Any, path: Path, config: NetworkConfig) -> None:
    """Both models on the same drawn faces.

    Not on noise: what no batch norm has seen grows from layer to layer, and rounding with it.
    """
    from fer.dataset.synthetic import draw_face
    from fer.inference.classifier import Classifier

    generator = np.random.default_rng(0)
    crops = np.stack(
        [draw_face(one, generator, config.side) for one in Expression for _ in range(4)]
    )
    logits = network.predict(crops[..., None].astype(np.float32), verbose=0)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    difference = float(np.abs(Classifier(path).probabilities(crops) - expected).max())
    if not difference <= TOLERANCE:
        raise TrainingError(
            f"model.onnx differs from Keras by {difference:.2g}, over {TOLERANCE}; not written."
        )


if __name__ == "__main__":
    export_onnx(Path(sys.argv[1]), Path(sys.argv[2]))
