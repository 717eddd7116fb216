"""A real EfficientNetB2 in integers: what it answers, its calibration, and when it is refused."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.dataset.table import FaceTable
from fer.errors import PackageError, TableError, TrainingError
from fer.evaluation.calibration import AS_TRAINED, Calibration, softmax
from fer.inference.classifier import Classifier
from fer.reference import reference_package
from fer.registry.package import ModelPackage, write_package
from fer.training import litert, quantize, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    # Keras turns its TensorFlow variables into arrays in a way that NumPy 2 warns of.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def float_model(shipped_network: Any) -> Any:
    """The shipped network as a LiteRT model, converted once for each calibration."""
    return cache(lambda calibration=AS_TRAINED: litert.float_model(shipped_network, calibration))


@pytest.fixture(scope="module")
def floats(
    shipped_onnx: Path, shipped_training: Path, tmp_path_factory: pytest.TempPathFactory
) -> ModelPackage:
    """A package of that network in floats."""
    return write_package(
        tmp_path_factory.mktemp("floats") / "package",
        name="floats",
        description="",
        files={
            "model.onnx": shipped_onnx,
            "network.json": shipped_training / "network.json",
            "network.weights.h5": shipped_training / "network.weights.h5",
        },
        metrics={},
        lineage={},
    )


@pytest.fixture
def prepare(
    monkeypatch: pytest.MonkeyPatch, shipped_network: Any, floats: ModelPackage, float_model: Any
) -> Any:
    """Quantises that package by a handful of faces, in this process."""
    monkeypatch.setattr("fer.training.warm_start.network_of", lambda package: shipped_network)
    monkeypatch.setattr(quantize, "float_model", lambda network, one: float_model(one))

    def run(faces: Path, out: Path, may_cost: float) -> list[int]:
        monkeypatch.setattr(quantize, "MAX_LOSS", may_cost)
        steps: list[int] = []
        out.mkdir()
        quantize.quantize(floats.folder, faces, out, steps.append)
        return steps

    return run


def test_it_answers_much_as_floats_do(
    prepare: Any,
    prepared: Path,
    table: FaceTable,
    floats: ModelPackage,
    float_model: Any,
    tmp_path: Path,
) -> None:
    assert prepare(prepared, tmp_path / "out", may_cost=1.0)[-1] == quantize.STEPS
    record = json.loads((tmp_path / "out" / "quantization.json").read_text())
    validation = table.part("validation")
    assert record["validation"]["images"] == len(validation)
    assert record["floats"] == list(litert.FLOATS)

    path = tmp_path / "out" / "model.tflite"
    assert path.stat().st_size < 10_000_000
    model, full = Classifier(path), Classifier(floats.model)
    ours, theirs = model.logits(table.pixels), full.logits(table.pixels)
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() > 0.8
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9
    assert np.abs(ours - theirs).max() > 1e-3, "these are integers"

    before = full.logits(validation.pixels)
    assert record["validation"]["accuracy_before"] == pytest.approx(
        (before.argmax(axis=1) == validation.expression).mean(), abs=1e-6
    )
    # The probabilities are those of the calibration that was fitted to it, not of the floats'.
    from fer.evaluation.calibration import fit_calibration

    fitted = fit_calibration(model.logits(validation.pixels), validation.expression)
    expected = softmax(ours, Calibration(*(round(one, 6) for one in fitted)))
    assert np.abs(model.probabilities(table.pixels) - expected).max() < 1e-4

    # The float model that it was made of says what Keras says.
    path.with_name("float.tflite").write_bytes(float_model())
    plain = Classifier(path.with_name("float.tflite")).logits(table.pixels)
    assert np.abs(plain - theirs).max() < 1e-2


def test_one_that_costs_too_much_is_not_written(
    prepare: Any, prepared: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"more is lost than the -200\.0% that are allowed"):
        prepare(prepared, tmp_path / "out", may_cost=-2.0)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_second_conversion_that_differs_is_noticed(
    prepare: Any, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count: list[int] = []

    def ranges(model: bytes, crops: Any) -> Any:
        count.append(len(crops))
        return litert.ranges(model, crops if len(count) == 1 else 255 - crops)

    monkeypatch.setattr(quantize, "ranges", ranges)
    with pytest.raises(TrainingError, match="another model of the same network"):
        prepare(prepared, tmp_path / "out", may_cost=1.0)


def test_it_wants_faces_of_both_splits(table: FaceTable, prepare: Any, tmp_path: Path) -> None:
    table.part("train").write(tmp_path / "faces.parquet")
    with pytest.raises(TableError, match="lacks training or validation faces"):
        prepare(tmp_path / "faces.parquet", tmp_path / "out", may_cost=1.0)


def test_what_is_in_integers_already_is_refused(prepared: Path, tmp_path: Path) -> None:
    shipped = reference_package()
    with pytest.raises(PackageError, match=f"{shipped.manifest.lineage['made_of']}"):
        quantize.quantize(shipped.folder, prepared, tmp_path, [].append)


def test_a_failure_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"absent was not quantised: .*no model package"):
        start.quantize(tmp_path / "absent", tmp_path / "faces.parquet", tmp_path)
