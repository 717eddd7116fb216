"""A network taken back from an exported model computes what the model does, and trains on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.dataset.table import FaceTable
from fer.errors import PackageError, UsageError
from fer.inference.classifier import Classifier
from fer.reference import reference_package
from fer.registry.package import ModelPackage, write_package
from fer.training import start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    # Keras turns its TensorFlow variables into arrays in a way that NumPy 2 warns of.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model's backbone, as `fer weights` writes it."""
    path = tmp_path_factory.mktemp("weights") / "start.weights.h5"
    start.warm_start(None, path)
    return path


def test_it_computes_what_the_shipped_model_does_but_for_rounding(
    shipped_network: Any, table: FaceTable
) -> None:
    """That no weight is out of place; of floats, test_export.py says that it is exact."""
    crops = table.pixels
    expected = Classifier(reference_package().model).logits(crops)
    found = np.asarray(shipped_network(crops[..., None].astype(np.float32), training=False))
    assert np.ptp(expected, axis=0).min() > 0.1, "the network tells the faces apart"
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.8
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9


def test_batch_statistics_begin_where_the_moving_ones_are(shipped_network: Any) -> None:
    """Else the first steps of a training, which use the batch's own, would undo the model."""
    import keras

    from fer.training.warm_start import _faces

    backbone = shipped_network.get_layer("backbone")
    norm = backbone.get_layer("block4a_project_bn")
    crops = _faces(48)
    images = keras.Model(shipped_network.inputs, shipped_network.get_layer("grey_to_rgb").output)
    probe = keras.Model(backbone.inputs, norm.input)
    values = probe.predict(images.predict(crops, verbose=0), verbose=0)
    mean, variance = values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))
    assert np.abs(mean - np.asarray(norm.moving_mean)).max() < 1e-2 * np.sqrt(variance.max())
    assert np.allclose(variance, np.asarray(norm.moving_variance), rtol=0.02)


def test_the_weights_are_initial_weights(
    weights: Path, shipped_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fer.training.network import build_backbone
    from fer.training.weights import load_initial_weights

    monkeypatch.delenv("FER_WEIGHTS", raising=False)
    backbone = build_backbone()
    assert load_initial_weights(backbone, str(weights))["kind"] == "file"
    expected = shipped_network.get_layer("backbone").get_weights()
    for found, wanted in zip(backbone.get_weights(), expected, strict=True):
        assert np.array_equal(found, wanted)
    assert [path.name for path in weights.parent.iterdir()] == [weights.name]


def test_a_package_with_its_keras_weights_gives_exactly_those(
    shipped_network: Any, tmp_path: Path
) -> None:
    from fer.training.warm_start import network_of

    shipped_network.save_weights(tmp_path / "network.weights.h5")
    small = reference_package()
    files = {name: small.file(name) for name in ("model.tflite", "network.json")}
    full = write_package(
        tmp_path / "full",
        name="full",
        description="",
        files=files | {"network.weights.h5": tmp_path / "network.weights.h5"},
        metrics={},
        lineage={},
    )
    for found, wanted in zip(
        network_of(full).get_weights(), shipped_network.get_weights(), strict=True
    ):
        assert np.array_equal(found, wanted)


def _other_model(folder: Path) -> ModelPackage:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Identity", ["faces"], ["probabilities"])],
        "other",
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n"])],
    )
    onnx.save(helper.make_model(graph), folder / "other.onnx")
    return write_package(
        folder / "other",
        name="other",
        description="",
        files={
            "model.onnx": folder / "other.onnx",
            "network.json": reference_package().file("network.json"),
        },
        metrics={},
        lineage={},
    )


def test_another_network_is_refused(tmp_path: Path) -> None:
    other = _other_model(tmp_path)
    with pytest.raises(PackageError, match="is no EfficientNetB2 of this project"):
        start.warm_start(other.folder, tmp_path / "out.weights.h5")
    assert not (tmp_path / "out.weights.h5").exists()


@pytest.mark.parametrize("damaged", [False, True])
def test_another_litert_model_is_refused(litert_model: Path, tmp_path: Path, damaged: bool) -> None:
    data = litert_model.read_bytes()
    (tmp_path / "model.tflite").write_bytes(data[: len(data) // 2] if damaged else data)
    package = write_package(
        tmp_path / "package",
        name="small",
        description="",
        files={
            "model.tflite": tmp_path / "model.tflite",
            "network.json": reference_package().file("network.json"),
        },
        metrics={},
        lineage={},
    )
    with pytest.raises(PackageError, match="is no EfficientNetB2 of this project"):
        start.warm_start(package.folder, tmp_path / "out.weights.h5")


def test_no_package_and_a_wrong_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="is no model package"):
        start.warm_start(tmp_path / "absent", tmp_path / "out.weights.h5")
    with pytest.raises(UsageError, match=r"name it out\.weights\.h5"):
        start.warm_start(None, tmp_path / "out.keras")


def test_the_command_writes_the_file(
    tmp_path: Path, python: Callable[..., Any], weights: Path
) -> None:
    from fer.training.network import build_backbone

    shutil.copytree(reference_package().folder, tmp_path / "package")
    done = python(
        "from fer.cli import main; main()",
        "weights",
        str(tmp_path / "start.weights.h5"),
        "--package",
        str(tmp_path / "package"),
    )
    assert done.returncode == 0, done.stderr
    found, expected = build_backbone(), build_backbone()
    found.load_weights(tmp_path / "start.weights.h5")
    expected.load_weights(weights)
    for one, other in zip(found.get_weights(), expected.get_weights(), strict=True):
        assert np.allclose(one, other, rtol=1e-3, atol=1e-5)
