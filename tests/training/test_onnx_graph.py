"""Each rule makes a graph smaller, computes the same, and leaves alone what only looks alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from fer.training.onnx_graph import simplify


def graph(text: str, **constants: Any) -> Any:
    """A model of a graph with one input x and one output y; the constants are its initializers."""
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]>\n{text}')
    for name, values in constants.items():
        kind = np.int64 if np.asarray(values).dtype.kind == "i" else np.float32
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
    onnx.checker.check_model(model, full_check=True)
    return model


def operations(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def result(model: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """What it makes of numbers around 0, by ONNX Runtime without any change of its own."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    (found,) = session.run(["y"], {"x": values})
    return np.asarray(found)


def check(model: Any, shape: tuple[int, ...], expected: list[str]) -> None:
    """It becomes the expected operations and gives the same values."""
    before = result(model, shape)
    simplify(model)
    onnx.checker.check_model(model, full_check=True)
    assert operations(model) == expected
    after = result(model, shape)
    assert after.shape == before.shape
    assert np.allclose(after, before, rtol=1e-5, atol=1e-6)


def numbers(*shape: int) -> NDArray[Any]:
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def test_squeeze_and_excitation_is_pool_convolutions_product() -> None:
    """As the converter writes it, with a fixed number of reshapes around one pixel."""
    model = graph(
        """squeeze (float[n, 4, 6, 6] x) => (float[n, 4, 6, 6] y) {
            turned = Transpose <perm = [0, 2, 3, 1]> (x)
            means = ReduceMean <keepdims = 0> (turned, axes)
            pixel = Reshape (means, four)
            small = Conv (pixel, reduce)
            active = Sigmoid (small)
            again = Reshape (active, two)
            large = Conv (again, expand)
            gate = Sigmoid (large)
            y = Mul (x, gate)
        }""",
        axes=[1, 2],
        four=[-1, 4, 1, 1],
        two=[-1, 2, 1, 1],
        reduce=numbers(2, 4, 1, 1),
        expand=numbers(4, 2, 1, 1),
    )
    expected = ["GlobalAveragePool", "Conv", "Sigmoid", "Conv", "Sigmoid", "Mul"]
    check(model, (3, 4, 6, 6), expected)


def test_a_mean_that_ends_flat_is_pool_and_reshape() -> None:
    model = graph(
        """mean (float[n, 3, 5, 7] x) => (float[n, 3] y) {
            turned = Transpose <perm = [0, 2, 3, 1]> (x)
            means = ReduceMean <keepdims = 0> (turned, axes)
            y = Mul (means, scale)
        }""",
        axes=[1, 2],
        scale=numbers(3),
    )
    check(model, (2, 3, 5, 7), ["GlobalAveragePool", "Reshape", "Mul"])


def test_images_of_one_pixel_that_were_turned_by_a_reshape() -> None:
    model = graph(
        """pixel (float[n, 3, 1, 1] x) => (float[n, 3, 1, 1] y) {
            turned = Reshape (x, last)
            means = ReduceMean <keepdims = 0> (turned, axes)
            pixel = Reshape (means, first)
            y = Sigmoid (pixel)
        }""",
        axes=[1, 2],
        last=[-1, 1, 1, 3],
        first=[-1, 3, 1, 1],
    )
    check(model, (2, 3, 1, 1), ["GlobalAveragePool", "Sigmoid"])


@pytest.mark.parametrize(
    ("perm", "axes", "shape"),
    [([0, 3, 2, 1], [1, 2], [2]), ([0, 2, 3, 1], [1, 3], [6])],
    ids=["another order", "other axes"],
)
def test_other_means_stay(perm: list[int], axes: list[int], shape: list[int]) -> None:
    model = graph(
        f"""mean (float[n, 2, 6, 6] x) => (float[n, {shape[0]}] y) {{
            turned = Transpose <perm = {perm}> (x)
            means = ReduceMean <keepdims = 0> (turned, axes)
            y = Sigmoid (means)
        }}""",
        axes=axes,
    )
    check(model, (3, 2, 6, 6), ["Transpose", "ReduceMean", "Sigmoid"])


def test_a_value_that_two_nodes_take_stays() -> None:
    model = graph(
        """twice (float[n, 2, 6, 6] x) => (float[n, 6, 6, 2] y) {
            turned = Transpose <perm = [0, 2, 3, 1]> (x)
            means = ReduceMean <keepdims = 0> (turned, axes)
            pixel = Reshape (means, shape)
            y = Sub (turned, pixel)
        }""",
        axes=[1, 2],
        shape=[-1, 1, 1, 2],
    )
    check(model, (3, 2, 6, 6), ["Transpose", "ReduceMean", "Reshape", "Sub"])


def test_a_reshape_that_changes_the_number_of_images_stays() -> None:
    model = graph(
        """mixed (float[n, 2, 4, 4] x) => (float[m, 2, 1, 1] y) {
            pixels = Reshape (x, shape)
            y = Sigmoid (pixels)
        }""",
        shape=[-1, 2, 1, 1],
    )
    check(model, (3, 2, 4, 4), ["Reshape", "Sigmoid"])


def test_of_reshapes_in_a_row_the_last_one_is_left() -> None:
    model = graph(
        """row (float[n, 2, 4, 4] x) => (float[n, 16, 2] y) {
            one = Reshape (x, flat)
            two = Reshape (one, wide)
            three = Reshape (two, pairs)
            y = Sigmoid (three)
        }""",
        flat=[-1, 32],
        wide=[-1, 4, 8],
        pairs=[-1, 16, 2],
    )
    check(model, (3, 2, 4, 4), ["Reshape", "Sigmoid"])


@pytest.mark.parametrize("groups", [1, 4], ids=["full", "depthwise"])
@pytest.mark.parametrize("bias", ["", ", bias"], ids=["no bias", "bias"])
def test_padding_convolution_and_norm_are_one_convolution(groups: int, bias: str) -> None:
    model = graph(
        f"""block (float[n, 4, 7, 7] x) => (float[n, 4, h, w] y) {{
            padded = Pad (x, pads)
            images = Conv <group = {groups}, strides = [2, 2]> (padded, kernel{bias})
            normed = BatchNormalization <epsilon = 0.001> (images, scale, shift, mean, variance)
            y = Sigmoid (normed)
        }}""",
        pads=[0, 0, 1, 0, 0, 0, 2, 1],
        kernel=numbers(4, 4 // groups, 3, 3),
        **({"bias": numbers(4)} if bias else {}),
        scale=numbers(4),
        shift=numbers(4),
        mean=numbers(4),
        variance=np.square(numbers(4)),
    )
    check(model, (2, 4, 7, 7), ["Conv", "Sigmoid"])


@pytest.mark.parametrize(
    ("mode", "value", "pads", "axes"),
    [
        ("reflect", 0.0, [0, 0, 1, 1, 0, 0, 1, 1], None),
        ("constant", 1.0, [0, 0, 1, 1, 0, 0, 1, 1], None),
        ("constant", 0.0, [0, 1, 1, 1, 0, 1, 1, 1], None),
        ("constant", 0.0, [0, 0, -1, -1, 0, 0, 1, 1], None),
        ("constant", 0.0, [1, 1, 1, 1], [2, 3]),
    ],
    ids=["mirrored", "not zero", "channels", "cropped", "named axes"],
)
def test_other_paddings_stay(
    mode: str, value: float, pads: list[int], axes: list[int] | None
) -> None:
    channels = 2 if axes else 2 + pads[1] + pads[5]
    model = graph(
        f"""block (float[n, 2, 7, 7] x) => (float[n, 4, h, w] y) {{
            padded = Pad <mode = "{mode}"> (x, pads, value{", axes" if axes else ""})
            images = Conv (padded, kernel)
            y = Sigmoid (images)
        }}""",
        pads=pads,
        value=value,
        **({"axes": axes} if axes else {}),
        kernel=numbers(4, channels, 3, 3),
    )
    check(model, (2, 2, 7, 7), ["Pad", "Conv", "Sigmoid"])


def test_what_a_node_leaves_out_is_what_onnx_says() -> None:
    """A mean keeps its axes and is over all of them; a norm adds 1e-5 to the variance."""
    model = graph(
        """defaults (float[n, 4, 7, 7] x) => (float[n, 7, 1, 1] y) {
            images = Conv (x, kernel)
            normed = BatchNormalization (images, scale, shift, mean, variance)
            turned = Transpose <perm = [0, 2, 3, 1]> (normed)
            means = ReduceMean (turned, axes)
            reversed = Transpose (means)
            some = ReduceMean <keepdims = 0> (reversed)
            y = Add (padding, some)
        }""",
        kernel=numbers(4, 4, 1, 1),
        scale=numbers(4),
        shift=numbers(4),
        mean=numbers(4),
        variance=np.full(4, 1e-5),
        axes=[1, 2],
        padding=numbers(3, 7, 1, 1),
    )
    expected = ["Conv", "Transpose", "ReduceMean", "Transpose", "ReduceMean", "Add"]
    check(model, (3, 4, 7, 7), expected)


def test_a_reshape_to_one_dimension_stays() -> None:
    """Of a single number, whose shape is as empty as one that is not known."""
    model = graph(
        """flat (float[n, 2] x) => (float[1] y) {
            mean = ReduceMean <keepdims = 0> (x)
            row = Reshape (mean, shape)
            y = Sigmoid (row)
        }""",
        shape=[-1],
    )
    check(model, (3, 2), ["ReduceMean", "Reshape", "Sigmoid"])


def test_outputs_of_the_model_keep_their_names() -> None:
    model = graph(
        """ends (float[n, 2, 1, 1] x) => (float[n, 2, 1, 1] y) {
            y = Reshape (x, shape)
        }""",
        shape=[-1, 2, 1, 1],
    )
    check(model, (2, 2, 1, 1), ["Reshape"])
