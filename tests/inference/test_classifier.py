"""The classifier by a model whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fer.errors import PackageError, UsageError
from fer.inference.classifier import Classifier


@pytest.fixture(scope="module", params=["ONNX Runtime", "LiteRT"])
def model(request: pytest.FixtureRequest) -> Path:
    """The same model for each engine: what holds for one holds for the other."""
    name = {"ONNX Runtime": "onnx_model", "LiteRT": "litert_model"}[request.param]
    path: Path = request.getfixturevalue(name)
    return path


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    return make_model(tmp_path_factory.mktemp("onnx") / "model.onnx")


def grey(*levels: int, size: tuple[int, int] = (48, 48)) -> np.ndarray:
    return np.stack([np.full(size, level, np.uint8) for level in levels])


def test_probabilities_are_the_softmax_of_logits(model: Path) -> None:
    classifier = Classifier(model, threads=1)
    crops = grey(0, 40, 128, 255)
    logits, probabilities = classifier.logits(crops), classifier.probabilities(crops)
    assert probabilities.shape == logits.shape == (4, 7)
    assert probabilities.dtype == np.float32
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert np.allclose(probabilities, exponents / exponents.sum(axis=1, keepdims=True), atol=1e-6)
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 3, 6]


def test_crops_of_any_sizes_keep_their_order(model: Path) -> None:
    classifier = Classifier(model, threads=1)
    levels = [(k * 37) % 256 for k in range(200)]
    crops = [np.full((20 + k % 3, 30 + k % 5), level, np.uint8) for k, level in enumerate(levels)]
    together = classifier.probabilities(crops)
    assert together.argmax(axis=1).tolist() == [int(level / (256 / 7)) for level in levels]
    one_by_one = np.concatenate([classifier.probabilities(crop[None]) for crop in crops])
    assert np.allclose(together, one_by_one, atol=1e-6)
    assert np.allclose(together, Classifier(model).probabilities(grey(*levels)), atol=1e-6)


def test_no_crops_are_no_rows(model: Path) -> None:
    classifier = Classifier(model)
    assert classifier.probabilities([]).shape == (0, 7)
    assert classifier.logits(np.zeros((0, 48, 48), np.uint8)).shape == (0, 7)


def test_several_threads_may_ask(model: Path) -> None:
    classifier = Classifier(model, threads=1)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda k: classifier.probabilities(grey(k)), range(0, 256, 5)))
    assert [int(one.argmax()) for one in answers] == [int(k / (256 / 7)) for k in range(0, 256, 5)]


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((2, 48, 48), np.float32),
        np.zeros((48, 48), np.uint8),
        np.zeros((2, 48, 48, 3), np.uint8),
        np.zeros((2, 0, 48), np.uint8),
        [np.zeros((48, 48), np.float64)],
        [np.zeros((48, 0), np.uint8)],
        [np.zeros((4, 4, 3), np.uint8)],
    ],
)
def test_refuses_what_are_no_crops(model: Path, crops: np.ndarray) -> None:
    with pytest.raises(UsageError):
        Classifier(model).probabilities(crops)


def test_refuses_what_is_no_model(tmp_path: Path, model: Path) -> None:
    with pytest.raises(PackageError, match="not a file"):
        Classifier(tmp_path / "none.onnx")
    bad = tmp_path / f"bad{model.suffix}"
    whole = model.read_bytes()
    for content in (whole[: len(whole) // 2], b"none of them" * 100, b""):
        bad.write_bytes(content)
        with pytest.raises(PackageError, match="cannot be loaded"):
            Classifier(bad)


def test_refuses_another_model(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    import onnx

    path = make_model(tmp_path / "model.onnx")
    for old, new, message in [
        ("faces", "pixels", "inputs are pixels"),
        ("probabilities", "scores", "outputs are"),
    ]:
        graph = onnx.load(path)
        for node in graph.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for value in [*graph.graph.input, *graph.graph.output]:
            value.name = new if value.name == old else value.name
        other = tmp_path / "other.onnx"
        onnx.save(graph, other)
        with pytest.raises(PackageError, match=message):
            Classifier(other)
