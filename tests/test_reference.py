"""The model that ships with the library."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fer import Recognizer
from fer.errors import ModelReferenceError
from fer.expressions import EXPRESSIONS
from fer.reference import make_reference, reference_package


def test_it_is_whole_small_and_says_where_it_comes_from() -> None:
    package = reference_package()
    assert package.manifest.size < 16_000_000
    assert package.manifest.classes == EXPRESSIONS
    lineage = package.manifest.lineage
    assert lineage["weights_stored_as"] == "float16"
    assert {"git_commit", "dvc", "params", "training", "versions", "made_of"} <= set(lineage)


def test_it_answers_where_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FER_REGISTRY", raising=False)
    recognizer = Recognizer.load()
    assert recognizer.model.digest == reference_package().digest
    from skimage.data import astronaut

    (face,) = recognizer.analyze(astronaut())
    assert face.prediction.expression == "happy"


def test_a_copy_without_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fer.reference.FOLDER", tmp_path / "absent")
    monkeypatch.delenv("FER_REGISTRY", raising=False)
    with pytest.raises(ModelReferenceError, match="Name one: --model"):
        Recognizer.load()


def test_weights_as_float16_hardly_change_the_answers(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    from fer.dataset.synthetic import synthetic_dataset
    from fer.inference.classifier import Classifier
    from fer.registry.package import write_package

    # Back to float32, in place of the full model: each cast becomes the weights that it gives,
    # with digits that float16 has no room for.
    small = reference_package()
    document = onnx.load(small.file("model.onnx"))
    graph = document.graph
    rng = np.random.default_rng(0)
    tensors = {one.name: one for one in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in tensors:
            values = onnx.numpy_helper.to_array(tensors[node.input[0]]).astype(np.float32)
            values = (values * (1 + rng.uniform(-(2**-12.1), 2**-12.1, values.shape))).astype("f4")
            tensors[node.input[0]].CopyFrom(
                helper.make_tensor(
                    node.output[0], TensorProto.FLOAT, values.shape, values.tobytes(), raw=True
                )
            )
        else:
            kept.append(node)
    assert len(kept) < len(graph.node)
    del graph.node[:]
    graph.node.extend(kept)
    onnx.save(document, tmp_path / "model.onnx")
    names = ("network.json", "metrics.json", "per_class.csv", "reference.json", "card.md")
    full = write_package(
        tmp_path / "full",
        name="full",
        description="",
        files={"model.onnx": tmp_path / "model.onnx"} | {one: small.file(one) for one in names},
        metrics={},
        lineage={},
    )
    again = make_reference(full.folder, tmp_path / "again")
    assert again.file("model.onnx").read_bytes() == small.file("model.onnx").read_bytes()
    scalars = {one.name: one for one in onnx.load(again.file("model.onnx")).graph.initializer}
    metrics = json.loads(small.file("metrics.json").read_bytes())
    for name in ("temperature", "curvature"):
        assert onnx.numpy_helper.to_array(scalars[name]) == np.float32(metrics[name])
    faces = list(synthetic_dataset(50, 0.0, seed=1))
    crops = np.stack([face.pixels for face in faces])
    labels = np.array([EXPRESSIONS.index(face.label) for face in faces])
    expected, found = (
        Classifier(one.file("model.onnx")).probabilities(crops) for one in (full, again)
    )
    differences = np.abs(found - expected)
    assert 0 < differences.mean() < 1e-3
    assert differences.max() < 0.01  # as docs/reference-run.json has it of the test set
    ours, theirs = found.argmax(axis=1), expected.argmax(axis=1)
    assert (ours != theirs).mean() < 0.01
    assert abs((ours == labels).mean() - (theirs == labels).mean()) < 0.003
