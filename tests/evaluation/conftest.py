"""A real model and a prepared table whose figures are known in advance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer.dataset.table import SIDE, FaceTable
from fer.expressions import EXPRESSIONS

# Grey level that stands for each expression in the drawn table.
LEVELS = np.array([10, 50, 90, 130, 170, 210, 250])


def grey_faces(per_class: int = 20, wrong: float = 0.25, seed: int = 0) -> FaceTable:
    """Flat images whose grey level names the expression; a share carries a neighbour's label.

    A fifth of the held-out images are marked as near twins.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for split in ("train", "validation", "test"):
        for index in range(len(EXPRESSIONS)):
            for number in range(per_class):
                mislabelled = rng.random() < wrong
                # One level up or down, so that a temperature can describe the doubt.
                beside = [one for one in (index - 1, index + 1) if 0 <= one < len(EXPRESSIONS)]
                label = rng.choice(beside) if mislabelled else index
                pixels = np.full((SIDE, SIDE), LEVELS[index], np.uint8)
                pixels[0] = rng.integers(0, 256, SIDE)
                name = f"{split}/{EXPRESSIONS[index]}/{number:03d}.png"
                rows.append((name, pixels, label, split, split != "train" and number % 5 == 0))
    pixels = np.stack([row[1] for row in rows])
    return FaceTable(
        name=np.array([row[0] for row in rows]),
        pixels=pixels,
        expression=np.array([row[2] for row in rows], dtype=np.int8),
        split=np.array([row[3] for row in rows]),
        sha256=np.array([hashlib.sha256(one.tobytes()).hexdigest() for one in pixels]),
        cleaning=np.full(len(rows), "keep"),
        near_twin=np.array([row[4] for row in rows]),
        manifest={"clean_subset_rule": "images that are nobody's twin"},
    )


def write_grey_model(path: Path, sharpness: float = 1.0) -> Path:
    """A model.onnx of the project's contract that reads an image's mean grey level.

    Its logit of a class is minus the squared distance from the class's level, less what all
    classes have in common, times `sharpness` / 400.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    scale = sharpness / 400
    weights = (2 * LEVELS[None] * scale).astype(np.float32)
    bias = (-(LEVELS.astype(np.float64) ** 2) * scale).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["faces"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["grey", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "grey",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", "h", "w", 1])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 7])
            for name in ("logits", "probabilities")
        ],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.array(1.0, np.float32), "temperature"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def faces() -> FaceTable:
    return grey_faces()


@pytest.fixture(scope="session")
def grey_model() -> Callable[..., Path]:
    """Writes the model: `grey_model(path, sharpness=1.0)`."""
    return write_grey_model
