"""The exported model says what Keras says, for crops of any size, and holds its temperature."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fer.dataset.table import FaceTable
from fer.errors import TrainingError
from fer.inference.classifier import Classifier
from fer.training import start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    # Keras turns its TensorFlow variables into arrays in a way that NumPy 2 warns of.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def classifier(shipped_onnx: Path) -> Classifier:
    return Classifier(shipped_onnx)


def test_it_agrees_with_keras_on_faces(
    classifier: Classifier, shipped_network: Any, table: FaceTable
) -> None:
    crops = table.pixels[::10]
    expected = np.asarray(shipped_network(crops[..., None].astype(np.float32), training=False))
    assert np.ptp(expected, axis=0).min() > 0.1, "the network tells the faces apart"
    assert np.abs(classifier.logits(crops) - expected).max() < 1e-3
    assert np.abs(classifier.probabilities(crops) - softmax(expected)).max() < 1e-4


def test_probabilities_are_the_softmax_of_the_logits(
    classifier: Classifier, table: FaceTable
) -> None:
    crops = table.pixels[:9]
    probabilities = classifier.probabilities(crops)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (9, 7)
    assert np.abs(probabilities - softmax(classifier.logits(crops))).max() < 1e-6
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-6


def test_a_face_gets_the_same_answer_in_every_batch(
    classifier: Classifier, table: FaceTable
) -> None:
    crops = table.pixels[:5]
    together = classifier.logits(crops)
    alone = np.concatenate([classifier.logits(crop[None]) for crop in crops])
    assert np.abs(together - alone).max() < 1e-4
    assert classifier.logits(crops[:0]).shape == (0, 7)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (47, 49), (48, 48), (7, 5), (333, 210)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_crop_of_any_size_is_the_flat_crop(
    classifier: Classifier, shape: tuple[int, int], level: int
) -> None:
    flat = classifier.logits(np.full((1, 48, 48), level, np.uint8))
    found = classifier.logits(np.full((1, *shape), level, np.uint8))
    assert np.isfinite(found).all()
    assert np.abs(found - flat).max() < 1e-3


def test_a_larger_crop_is_reduced_as_pixels_are_averaged(
    classifier: Classifier, table: FaceTable
) -> None:
    """Without anti-aliasing a crop of 480 px would be sampled at every tenth pixel."""
    import cv2

    rng = np.random.default_rng(0)
    averaged, sampled = [], []
    for face in table.pixels[:24]:
        large = cv2.resize(face, (480, 480), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + rng.normal(0, 25, large.shape), 0, 255).astype(np.uint8)
        reduced = cv2.resize(noisy, (48, 48), interpolation=cv2.INTER_AREA)
        ours, wanted, every_tenth = classifier.probabilities([noisy, reduced, noisy[5::10, 5::10]])
        averaged.append(np.abs(ours - wanted).sum())
        sampled.append(np.abs(every_tenth - wanted).sum())
    assert np.mean(averaged) < np.mean(sampled) / 4


def test_crops_that_are_wide_or_high_are_stretched_to_the_square(
    classifier: Classifier, table: FaceTable
) -> None:
    face = table.pixels[0]
    wide = np.repeat(face, 3, axis=1)
    high = np.repeat(face, 3, axis=0)
    whole = np.repeat(wide, 3, axis=0)
    square, *others = classifier.probabilities([whole, wide, high])
    for one in others:
        assert np.abs(one - square).max() < 0.1


def test_the_temperature_is_an_initializer_that_divides_the_logits(
    shipped_onnx: Path, classifier: Classifier, table: FaceTable, tmp_path: Path
) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(shipped_onnx)
    (temperature,) = [one for one in model.graph.initializer if one.name == "temperature"]
    assert numpy_helper.to_array(temperature) == np.float32(1)
    assert numpy_helper.to_array(temperature).shape == ()
    temperature.CopyFrom(numpy_helper.from_array(np.array(2.5, np.float32), "temperature"))
    onnx.save(model, tmp_path / "model.onnx")
    calibrated = Classifier(tmp_path / "model.onnx")
    crops = table.pixels[:6]
    logits = classifier.logits(crops)
    assert (calibrated.logits(crops) == logits).all(), "logits stay as trained"
    assert np.abs(calibrated.probabilities(crops) - softmax(logits / 2.5)).max() < 1e-6
    assert np.abs(calibrated.probabilities(crops) - classifier.probabilities(crops)).max() > 1e-4


def test_the_contract_of_the_file(shipped_onnx: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(shipped_onnx, providers=["CPUExecutionProvider"])
    (faces,) = session.get_inputs()
    assert (faces.name, faces.type) == ("faces", "tensor(uint8)")
    assert [isinstance(size, str) for size in faces.shape] == [True, True, True, False]
    outputs = {one.name: (one.type, one.shape[-1]) for one in session.get_outputs()}
    assert outputs == {"logits": ("tensor(float)", 7), "probabilities": ("tensor(float)", 7)}


def test_the_graph_holds_only_what_onnx_runtime_is_fast_at(shipped_onnx: Path) -> None:
    """115 convolutions and 24 pools in a row; one reshape or transposition at each end."""
    import onnx

    model = onnx.load(shipped_onnx)
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["Conv"] == 115
    assert counts["GlobalAveragePool"] == 24
    assert counts["Reshape"] + counts["Transpose"] <= 2
    assert not {"ReduceMean", "BatchNormalization", "Pad"} & set(counts)
    shapes = {one.name: one.type.tensor_type.shape.dim for one in model.graph.value_info}
    added = [node.input for node in model.graph.node if node.op_type == "Add"]
    images = [{str(shapes[name][0]) for name in names if name in shapes} for names in added]
    assert images
    assert all(len(one) == 1 for one in images), "both sides hold equally many images"


def test_a_network_taken_back_from_it_is_the_one_that_was_exported(
    shipped_onnx: Path, shipped_training: Path, shipped_network: Any, table: FaceTable
) -> None:
    from fer.training.folded import read_folded
    from fer.training.network import NetworkConfig, build_network
    from fer.training.warm_start import _unfold

    network = build_network(NetworkConfig.read(shipped_training / "network.json"))
    _unfold(read_folded(shipped_onnx), network)
    crops = table.pixels[::10][..., None].astype(np.float32)
    found, expected = (np.asarray(one(crops, training=False)) for one in (network, shipped_network))
    assert np.abs(found - expected).max() < 1e-3


def test_nothing_else_is_left_beside_the_model(shipped_onnx: Path) -> None:
    assert [path.name for path in shipped_onnx.parent.iterdir()] == ["model.onnx"]


def test_a_model_that_disagrees_with_keras_is_not_written(
    shipped_network: Any, shipped_training: Path, shipped_onnx: Path, tmp_path: Path
) -> None:
    """The check itself, on an exported model one of whose weights was changed."""
    import onnx
    from onnx import numpy_helper

    from fer.training.export import _compare
    from fer.training.network import NetworkConfig

    config = NetworkConfig.read(shipped_training / "network.json")
    _compare(shipped_network, shipped_onnx, config)
    model = onnx.load(shipped_onnx)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.shape[-1:] == (7,):
            changed = value + np.float32([0, 0, 0, 0.1, 0, 0, 0])
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
            break
    else:
        pytest.fail("no weights of the classifier found")
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(TrainingError, match="differs from Keras"):
        _compare(shipped_network, tmp_path / "model.onnx", config)


@pytest.mark.parametrize("problem", ["absent", "no weights", "damaged weights"])
def test_an_export_that_fails_is_one_message_and_writes_nothing(
    shipped_training: Path, tmp_path: Path, problem: str
) -> None:
    folder = tmp_path / "trained"
    if problem != "absent":
        folder.mkdir()
        text = (shipped_training / "network.json").read_text()
        (folder / "network.json").write_text(text)
    if problem == "damaged weights":
        (folder / "network.weights.h5").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match=r"Export of .*trained failed: ") as error:
        start.export(folder, tmp_path / "exported")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "exported").exists()


def test_the_same_training_exports_to_the_same_bytes(
    shipped_training: Path, shipped_onnx: Path, tmp_path: Path
) -> None:
    first = shipped_onnx.read_bytes()
    start.export(shipped_training, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == first
