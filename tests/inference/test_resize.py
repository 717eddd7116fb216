"""Resizing outside of a graph gives what the graph of a model.onnx does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.inference.resize import resized


@pytest.fixture(scope="module")
def graph() -> Any:
    """The first nodes of an exported model: uint8 crops to 48 px in floats."""
    import onnxruntime as ort
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["faces"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize", ["levels", "", "", "side"], ["out"], mode="linear", antialias=1, axes=[1, 2]
        ),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "resize",
            [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", "h", "w", 1])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
            [helper.make_tensor("side", TensorProto.INT64, [2], [48, 48])],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_as_onnx_does_it(graph: Any, height: int, width: int, seed: int) -> None:
    faces = np.random.default_rng(seed).integers(0, 256, (2, height, width, 1), dtype=np.uint8)
    (expected,) = graph.run(None, {"faces": faces})
    found = resized(faces, 48)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (2, 48, 48, 1)
    assert np.abs(found - expected).max() < 0.01, "of 255 grey levels"


def test_crops_of_the_right_size_stay_as_they_are() -> None:
    faces = np.arange(48 * 48, dtype=np.uint32).astype(np.uint8).reshape(1, 48, 48, 1)
    assert np.array_equal(resized(faces, 48), faces.astype(np.float32))
