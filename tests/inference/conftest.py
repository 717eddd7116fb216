"""A stand-in model, photographs, and files that are none."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.expressions import EXPRESSIONS


def write_brightness_model(path: Path, shift: float = 0.0) -> Path:
    """A model.onnx by the project's contract whose answer is known: the mean grey level.

    Seven equal ranges of grey levels stand for the seven expressions, in order. `shift` makes
    another model of it, with other bytes.
    """
    import onnx
    from onnx import TensorProto, helper

    def scalar(name: str, *values: float) -> Any:
        return helper.make_tensor(name, TensorProto.FLOAT, [len(values)], values)

    nodes = [
        helper.make_node("Cast", ["faces"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("Div", ["column", "range"], ["position"]),
        helper.make_node("Sub", ["position", "centres"], ["distance"]),
        helper.make_node("Mul", ["distance", "distance"], ["square"]),
        helper.make_node("Neg", ["square"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities"], axis=-1),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        scalar("range", 256 / 7),
        scalar("centres", *(k + 0.5 + shift for k in range(7))),
        scalar("temperature", 1.0),
    ]
    shape = ["n", "height", "width", 1]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 7])
            for name in ("logits", "probabilities")
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brightness_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="session")
def expected() -> Callable[[np.ndarray], str]:
    """What the stand-in model says of a crop."""
    return lambda crop: EXPRESSIONS[int(crop.mean() / (256 / 7))]


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    return write_brightness_model


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A real photograph, uint8 (512, 512, 3): one face near (220, 125)."""
    from skimage.data import astronaut as picture

    return np.asarray(picture())


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """`encode(array, "JPEG", mode="CMYK", ...)`: a file's bytes."""

    def encode(array: np.ndarray, kind: str, *, mode: str | None = None, **more: Any) -> bytes:
        from PIL import Image

        image = Image.fromarray(array)
        if mode is not None:
            image = image.convert(mode)
        buffer = io.BytesIO()
        image.save(buffer, kind, **more)
        return buffer.getvalue()

    return encode


@pytest.fixture
def folder(tmp_path: Path, astronaut: np.ndarray, encode: Callable[..., bytes]) -> Path:
    """Six pictures to read (four with the face, two without), three bad ones, one other file."""
    root = tmp_path / "pictures"
    (root / "more deep").mkdir(parents=True)
    jpeg = encode(astronaut, "JPEG", quality=92)
    (root / "a.jpg").write_bytes(jpeg)
    (root / "b.png").write_bytes(encode(astronaut[:, ::-1], "PNG"))
    (root / "more deep" / "c é.JPG").write_bytes(encode(astronaut // 2, "JPEG"))
    (root / "more deep" / "d.webp").write_bytes(encode(astronaut, "WEBP", quality=90))
    (root / "e-wall.png").write_bytes(encode(np.full((90, 120, 3), 90, np.uint8), "PNG"))
    (root / "f-dot.png").write_bytes(encode(np.zeros((1, 1), np.uint8), "PNG"))
    (root / "g-cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "h-text.jpg").write_text("dear diary\n" * 20)
    (root / "i-empty.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.jpg").write_bytes(jpeg)
    return root
