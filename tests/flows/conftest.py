"""A tiny DVC project whose stages are shell lines, and one Prefect server for the session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

Stages = dict[str, dict[str, object]]


def run(*command: str, cwd: Path) -> str:
    """Output of a command that must succeed."""
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prefect's own files go to a temporary folder, and nothing is sent anywhere."""
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        patch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
        yield home


@pytest.fixture(scope="session")
def server(prefect_home: Path) -> Iterator[None]:
    """A real Prefect server with an empty database."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="session")
def empty_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository with nothing in it; copied for each test."""
    folder = tmp_path_factory.mktemp("project")
    run("git", "init", "-q", cwd=folder)
    run(sys.executable, "-m", "dvc", "init", "-q", cwd=folder)
    run("git", "add", "-A", cwd=folder)
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    run("git", *identity, "commit", "-qm", "start", cwd=folder)
    return folder


@pytest.fixture
def project(empty_project: Path, tmp_path: Path) -> Callable[[Stages], Path]:
    """Makes a project with these stages of dvc.yaml."""
    import shutil

    def make(stages: Stages) -> Path:
        folder = tmp_path / "project"
        shutil.copytree(empty_project, folder)
        text = yaml.safe_dump({"stages": stages}, sort_keys=False)
        (folder / "dvc.yaml").write_text(text, encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model.onnx by the project's contract: the lighter a face, the happier."""
    import onnx
    from onnx import TensorProto, helper

    weights = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5]
    nodes = [
        helper.make_node("Cast", ["faces"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("Mul", ["column", "weights"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities"], axis=-1),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("weights", TensorProto.FLOAT, [7], weights),
        helper.make_tensor("temperature", TensorProto.FLOAT, [1], [10.0]),
    ]
    shape = ["n", "height", "width", 1]
    graph = helper.make_graph(
        nodes,
        "light",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 7])
            for name in ("logits", "probabilities")
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def put_package(model_file: Path) -> Callable[..., None]:
    """`put_package(folder, accuracy)`: a package with these figures in models/package."""

    def put(project: Path, accuracy: float) -> None:
        from fer.registry.package import write_package

        test = {"accuracy": accuracy, "macro_f1": 0.6, "ece": 0.02}
        write_package(
            project / "models" / "package",
            name="fer2013-efficientnetb2",
            description="A stand-in.",
            files={"model.onnx": model_file},
            metrics={"test": test, "test_set": "t"},
            lineage={},
        )

    return put


@pytest.fixture(scope="session")
def put_faces() -> Callable[[Path], None]:
    """`put_faces(path)`: a prepared table of 14 bright test images, two of each expression."""
    import numpy as np

    from fer.dataset.table import FaceTable

    def put(path: Path) -> None:
        expression = np.repeat(np.arange(7, dtype=np.int8), 2)
        n = len(expression)
        FaceTable(
            name=np.array([f"{index}.png" for index in range(n)]),
            pixels=np.full((n, 48, 48), 250, np.uint8),
            expression=expression,
            split=np.array(["test"] * n),
            sha256=np.array([f"{index:064d}" for index in range(n)]),
            cleaning=np.array(["keep"] * n),
            near_twin=np.zeros(n, bool),
        ).write(path)

    return put


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """One photograph with a face, one text file named .jpg."""
    from PIL import Image
    from skimage.data import astronaut

    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(astronaut()).save(folder / "astronaut.jpg")
    (folder / "text.jpg").write_text("dear diary\n" * 9)
    return folder


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No FER_* or AWS_* of the person who runs the tests; a cache of the test's own."""
    for name in list(os.environ):
        if name.startswith(("FER_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))
    return monkeypatch
