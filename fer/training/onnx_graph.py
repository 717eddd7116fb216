"""An exported graph made simpler, so that ONNX Runtime finds what it has fast kernels for.

Keras has channels last, ONNX first, and the converter leaves traces of that where it cannot tell
that they cancel out: means of transposed values, reshapes that change no shape, and, behind those,
paddings and batch norms that it would otherwise make part of their convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_TO_CHANNELS_LAST: Final = [0, 2, 3, 1]


def simplify(model: Any) -> None:
    """Compute the same in fewer nodes; changes `model`, which stays standard ONNX of its opset.

    Constants that no node takes any more stay where they are.
    """
    for rule in (_pool_means, _merge_reshapes, _drop_reshapes, _fold_norms, _fold_pads):
        graph = _Graph(model)
        rule(graph)
        graph.write()


class _Graph:
    """The nodes of a model, with constants and shapes by the name of the value."""

    def __init__(self, model: Any) -> None:
        import onnx
        from onnx import numpy_helper

        self._graph = model.graph
        self.nodes = list(self._graph.node)
        self.constants: dict[str, NDArray[Any]] = {
            one.name: numpy_helper.to_array(one) for one in self._graph.initializer
        }
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._shapes = {
            one.name: [size.dim_value for size in one.type.tensor_type.shape.dim]
            for one in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        self._ends = [one.name for one in self._graph.output]
        self._taken = [name for node in self.nodes for name in node.input] + self._ends

    def inner(self, kind: str) -> list[Any]:
        """The nodes of a kind whose values are not the model's own outputs."""
        return [
            node for node in self.nodes if node.op_type == kind and node.output[0] not in self._ends
        ]

    def pairs(self, kind: str, *before: str) -> Iterator[tuple[Any, Any]]:
        """Nodes of a kind, each behind the one, of a kind in `before`, that feeds nothing else."""
        source = {name: node for node in self.nodes for name in node.output}
        for node in self.inner(kind):
            first = source.get(node.input[0])
            if first and first.op_type in before and self._taken.count(first.output[0]) == 1:
                yield first, node

    def integers(self, name: str) -> list[int]:
        """A constant shape, list of axes or of paddings; empty where it is no constant."""
        return [int(one) for one in self.constants.get(name, [])]

    def shape(self, name: str) -> list[int]:
        """The sizes of a value, 0 where one is not fixed; empty where nothing is known."""
        return self._shapes.get(name, [])

    def add(self, name: str, values: Any, kind: type) -> str:
        """Add a constant, and say its name."""
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def remove(self, node: Any) -> None:
        """Take a node out: what took its value takes what it took."""
        self.nodes = [one for one in self.nodes if one is not node]
        for one in self.nodes:
            for place, name in enumerate(one.input):
                if name == node.output[0]:
                    one.input[place] = node.input[0]

    def write(self) -> None:
        """Make these nodes the model's."""
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(self.nodes)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _pool_means(graph: _Graph) -> None:
    """A mean over the images with channels last is the global pool of those with channels first."""
    from onnx import helper

    for first, node in graph.pairs("ReduceMean", "Transpose", "Reshape"):
        images, means = first.input[0], node.output[0]
        _, channels, *sides = graph.shape(images) or [0, 0]
        if first.op_type == "Transpose":
            turned = _attributes(first).get("perm") == _TO_CHANNELS_LAST
        else:  # so the converter turns images of one pixel
            turned = sides == [1, 1] and graph.integers(first.input[1]) == [-1, 1, 1, channels]
        axes = graph.integers(node.input[1]) if len(node.input) > 1 else []
        over = axes == [1, 2] and not _attributes(node).get("keepdims", 1)
        if not (turned and over and channels):
            continue
        pooled, shape = first.output[0], graph.add(f"{means}_shape", [-1, channels], np.int64)
        first.CopyFrom(helper.make_node("GlobalAveragePool", [images], [pooled]))
        node.CopyFrom(helper.make_node("Reshape", [pooled, shape], [means]))


def _merge_reshapes(graph: _Graph) -> None:
    """Of two reshapes the last decides, unless it copies sizes (0) from the one before."""
    for first, node in graph.pairs("Reshape", "Reshape"):
        target = graph.integers(node.input[1])
        if target and 0 not in target:
            graph.remove(first)


def _drop_reshapes(graph: _Graph) -> None:
    """A reshape to the shape that there is; the number of images is what is left over."""
    for node in graph.inner("Reshape"):
        first, *others = graph.integers(node.input[1]) or [0]
        known = bool(others) and all(others)
        if first == -1 and known and others == graph.shape(node.input[0])[1:]:
            graph.remove(node)


def _fold_norms(graph: _Graph) -> None:
    """A batch norm behind a convolution is a factor of its kernel and a part of its bias."""
    for convolution, norm in graph.pairs("BatchNormalization", "Conv"):
        names = [*convolution.input[1:], *norm.input[1:]]
        values = [graph.constants[name] for name in names if name in graph.constants]
        if len(values) < len(names):
            continue
        kernel, *bias, scale, shift, mean, variance = values
        factor = scale / np.sqrt(variance + _attributes(norm).get("epsilon", 1e-5))
        bias = shift + factor * ((bias[0] if bias else 0) - mean)
        kernel = kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
        names = [
            graph.add(f"{norm.output[0]}_{name}", one, np.float32)
            for name, one in (("kernel", kernel), ("bias", bias))
        ]
        convolution.input[:] = [convolution.input[0], *names]
        graph.remove(norm)


def _fold_pads(graph: _Graph) -> None:
    """Convolutions pad with zeros themselves."""
    from onnx import helper

    for pad, convolution in graph.pairs("Conv", "Pad"):
        more, options = graph.integers(pad.input[1]), _attributes(convolution)
        zero = all(not name or np.all(graph.constants.get(name) == 0) for name in pad.input[2:])
        sides = len(more) // 2 - 2
        images = [*more[:2], *more[sides + 2 : sides + 4]]
        plain = _attributes(pad).get("mode", b"constant") == b"constant" and not any(images)
        own = options.get("auto_pad", b"NOTSET") == b"NOTSET"
        if not (more and min(more) >= 0 and zero and plain and own):
            continue
        before = options.pop("pads", [0] * 2 * sides)
        more = [*more[2 : sides + 2], *more[sides + 4 :]]
        pads = [one + other for one, other in zip(before, more, strict=True)]
        for place in reversed(range(len(convolution.attribute))):
            if convolution.attribute[place].name == "pads":
                del convolution.attribute[place]
        convolution.attribute.append(helper.make_attribute("pads", pads))
        graph.remove(pad)
