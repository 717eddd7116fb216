"""Pictures with known faces, and a stand-in network for the detector whose file is not shipped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fer.errors import DetectorError
from fer.faces.model_files import LANDMARKS, MMOD, model_file


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A real photograph from scikit-image, uint8 (512, 512, 3): one face near (220, 125)."""
    from skimage.data import astronaut as picture

    return np.asarray(picture())


@pytest.fixture(scope="session")
def mmod_file() -> Path:
    """dlib's CNN detector, where it is installed or TEST_MMOD names it."""
    return _dlib_file(MMOD, "TEST_MMOD")


@pytest.fixture(scope="session")
def landmarks_file() -> Path:
    """dlib's 5-point landmarks, where they are installed or TEST_LANDMARKS names them."""
    return _dlib_file(LANDMARKS, "TEST_LANDMARKS")


def _dlib_file(name: str, variable: str) -> Path:
    named = os.environ.get(variable)
    try:
        return model_file(name, Path(named) if named else None, "this test", "nothing")
    except DetectorError:
        pytest.skip(f"dlib's {name} is not installed and {variable} does not name it")


@pytest.fixture(scope="session")
def blob_yunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with YuNet's twelve outputs that takes every white 32 px cell for a face.

    It runs through the real cv2.FaceDetectorYN: what is tested is our side of it.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes, outputs, constants = [], [], []

    def constant(name: str, values: list[float] | list[int], kind: int) -> str:
        constants.append(helper.make_tensor(name, kind, [len(values)], values))
        return name

    for stride in (8, 16, 32):
        # Mean of each stride x stride cell over space and colours: 0 black to 255 white.
        nodes.append(
            helper.make_node(
                "AveragePool",
                ["input"],
                [f"cells{stride}"],
                kernel_shape=[stride, stride],
                strides=[stride, stride],
            )
        )
        # Weights: the score is the mean over 255, for stride 32 alone; all else is 0.
        for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            scores = stride == 32 and channels == 1
            weights = helper.make_tensor(
                f"w_{name}{stride}",
                TensorProto.FLOAT,
                [channels, 3, 1, 1],
                [1 / 765 if scores else 0.0] * (channels * 3),
            )
            constants.append(weights)
            nodes.append(
                helper.make_node(
                    "Conv", [f"cells{stride}", f"w_{name}{stride}"], [f"c_{name}{stride}"]
                )
            )
            nodes.append(
                helper.make_node(
                    "Transpose", [f"c_{name}{stride}"], [f"t_{name}{stride}"], perm=[0, 2, 3, 1]
                )
            )
            shape = constant(f"s_{name}{stride}", [1, -1, channels], TensorProto.INT64)
            nodes.append(
                helper.make_node("Reshape", [f"t_{name}{stride}", shape], [f"{name}_{stride}"])
            )
    for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        outputs += [
            helper.make_tensor_value_info(
                f"{name}_{stride}", TensorProto.FLOAT, [1, None, channels]
            )
            for stride in (8, 16, 32)
        ]
    graph = helper.make_graph(
        nodes,
        "blob-yunet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 320, 320])],
        outputs,
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    path = tmp_path_factory.mktemp("yunet") / "blob.onnx"
    onnx.save(model, path)
    return path
