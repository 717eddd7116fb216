"""The weights of an exported model, read back from its file.

Converters fold batch norms into the convolutions before them; `fer.training.warm_start` takes them
apart again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Folded:
    """The weights of an exported model.

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


def read_folded(model: Path) -> Folded:
    """Read a model.onnx, or a model.tflite in floats or in integers.

    Integers are read as the numbers that they stand for: weights to 8 bits.

    Raises:
        ValueError, KeyError, IndexError, StopIteration: another model than this project's.
    """
    return _of_litert(model) if model.suffix == ".tflite" else _of_onnx(model)


def _of_onnx(model: Path) -> Folded:
    import onnx
    from onnx import TensorProto, numpy_helper

    graph = onnx.load(model).graph
    values = {
        one.name: numpy_helper.to_array(one)
        for one in graph.initializer
        if one.data_type == TensorProto.FLOAT
    }
    steps = [
        (node.op_type, [values[name] for name in node.input if name in values])
        for node in graph.node
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
    return Folded(
        mean=mean.reshape(-1),
        deviation=1 / before["Mul"][0].reshape(-1),
        convolutions=convolutions,
        scale=steps[last - 2][1][0],
        shift=steps[last - 1][1][0],
        kernel=steps[last][1][0],
        bias=steps[last + 1][1][0],
    )


def _of_litert(model: Path) -> Folded:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Delegates would put many layers into one.
    interpreter = Interpreter(
        str(model), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    tensors = {one["index"]: one for one in interpreter.get_tensor_details()}
    layers = interpreter._get_ops_details()
    computed = {index for layer in layers for index in layer["outputs"]}
    steps = [
        (
            str(layer["op_name"]),
            [
                _numbers(interpreter.get_tensor(index), tensors[index])
                for index in layer["inputs"]
                if index in tensors and index not in computed and not _is_entry(tensors[index])
            ],
        )
        for layer in layers
    ]
    first = next(place for place, (kind, _) in enumerate(steps) if kind == "CONV_2D")
    before = dict(steps[:first])
    convolutions = []
    for kind, constants in steps:
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        kernel, bias = constants
        # Here (out, h, w, in), depthwise (1, h, w, out).
        order = (3, 0, 1, 2) if kind == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
        convolutions.append((kernel.transpose(order), bias))
    kernel, bias = next(constants for kind, constants in steps if kind == "FULLY_CONNECTED")
    features = kernel.shape[1]
    return Folded(
        mean=before["SUB"][0].reshape(-1),
        deviation=(1 / before["MUL"][0].reshape(-1)).astype(np.float32),
        convolutions=convolutions,
        # The norm of the features is folded into the classifier.
        scale=np.ones(features, np.float32),
        shift=np.zeros(features, np.float32),
        kernel=kernel.T,
        bias=bias,
    )


def _is_entry(tensor: Mapping[str, Any]) -> bool:
    """Whether it is the model's input, which is no constant."""
    return "serving_default" in str(tensor["name"])


def _numbers(values: NDArray[Any], tensor: Mapping[str, Any]) -> Values:
    """What integers stand for; floats as they are."""
    of = tensor["quantization_parameters"]
    if not len(of["scales"]):
        return values.astype(np.float32)
    shape = [1] * values.ndim
    if values.ndim:
        shape[of["quantized_dimension"]] = -1
    scales, zeros = (of[name].reshape(shape) for name in ("scales", "zero_points"))
    return np.asarray((values.astype(np.float64) - zeros) * scales, np.float32)
