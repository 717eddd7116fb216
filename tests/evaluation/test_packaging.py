"""Stage package: from the outputs of real stages to a package that opens and predicts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer.dataset.table import FaceTable
from fer.errors import PackageError
from fer.evaluation.calibration import Calibration, softmax
from fer.evaluation.evaluate import evaluate
from fer.files import write_json
from fer.inference.classifier import Classifier
from fer.packaging import package_model
from fer.params import load_params
from fer.registry.package import ModelPackage


@pytest.fixture(scope="module")
def stages(
    tmp_path_factory: pytest.TempPathFactory,
    faces: FaceTable,
    grey_model: Callable[..., Path],
    checkout: Path,
) -> Path:
    """Folders as the stages before leave them; the network itself is a stand-in."""
    root = tmp_path_factory.mktemp("stages")
    faces.write(root / "prepared" / "faces.parquet")
    split = {"images": 140, "kept": 140, "near_twins": 0}
    write_json(root / "prepared" / "manifest.json", {"splits": {"train": split, "test": split}})
    write_json(root / "source" / "source.json", {"kind": "synthetic"})
    grey_model(root / "exported" / "model.onnx", sharpness=4.0)
    trained = root / "trained"
    for name in ("network.json", "network.weights.h5", "history.csv", "curves.png"):
        trained.mkdir(exist_ok=True)
        (trained / name).write_bytes(name.encode())
    training = {
        "backend": "tensorflow",
        "best_epoch": 2,
        "devices": "1 x CPU",
        "epochs": 3,
        "initial_weights": {"kind": "none"},
        "training_images": 140,
    }
    write_json(trained / "training.json", training)
    params = load_params(checkout / "params.yaml")
    evaluate(
        faces=root / "prepared" / "faces.parquet",
        model=root / "exported",
        ferplus=None,
        params=params.evaluate.model_copy(
            update={"bootstrap": 100, "latency_runs": 2, "robustness_images": 30}
        ),
        seed=1,
        out=root / "evaluation",
    )
    return root


def build(stages: Path, out: Path, checkout: Path, evaluation: Path | None = None) -> ModelPackage:
    return package_model(
        load_params(checkout / "params.yaml"),
        trained=stages / "trained",
        exported=stages / "exported",
        evaluation=evaluation or stages / "evaluation",
        prepared=stages / "prepared",
        source=stages / "source",
        out=out,
        project=checkout,
    )


def test_a_package_is_complete_and_opens(stages: Path, tmp_path: Path, checkout: Path) -> None:
    made = build(stages, tmp_path / "package", checkout)
    opened = ModelPackage.open(tmp_path / "package")
    assert opened.digest == made.digest
    assert {
        "model.onnx",
        "network.weights.h5",
        "card.md",
        "metrics.json",
        "reference.json",
        "robustness.json",
    } <= set(opened.manifest.files)
    card = opened.file("card.md").read_text(encoding="utf-8")
    assert "30 test images, each changed in one way" in card
    assert "mean of 2 views" in card
    lineage = opened.manifest.lineage
    assert lineage["params"]["seed"] == 2013  # type: ignore[index,call-overload]
    assert lineage["training"]["initial_weights"] == {"kind": "none"}  # type: ignore[index,call-overload]
    assert opened.manifest.metrics["test"]["n"] == 140  # type: ignore[index,call-overload]
    for card in ("card.md", "card.html"):
        assert "AI Act" in opened.file(card).read_text(encoding="utf-8")


def test_the_packaged_model_is_calibrated(
    stages: Path, tmp_path: Path, checkout: Path, faces: FaceTable
) -> None:
    package = build(stages, tmp_path / "package", checkout)
    metrics = package.manifest.metrics
    calibration = Calibration(metrics["temperature"], metrics["curvature"])  # type: ignore[arg-type]
    assert calibration.temperature > 1.2  # the stand-in is four times too sure
    crops = faces.pixels[:8]
    before = Classifier(stages / "exported" / "model.onnx")
    after = Classifier(package.file("model.onnx"))
    expected = softmax(before.logits(crops), calibration)
    np.testing.assert_allclose(after.probabilities(crops), expected, atol=1e-5)
    np.testing.assert_allclose(after.logits(crops), before.logits(crops), atol=1e-5)


@pytest.mark.parametrize("curvature", [0.0, 0.01])
def test_a_curvature_goes_into_the_model(
    stages: Path, tmp_path: Path, checkout: Path, faces: FaceTable, curvature: float
) -> None:
    shutil.copytree(stages / "evaluation", tmp_path / "evaluation")
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    metrics |= {"temperature": 30.0, "curvature": curvature}
    write_json(tmp_path / "evaluation" / "metrics.json", metrics)
    package = build(stages, tmp_path / "package", checkout, tmp_path / "evaluation")
    crops = faces.pixels[:40]
    before = Classifier(stages / "exported" / "model.onnx")
    after = Classifier(package.file("model.onnx"))
    expected = softmax(before.logits(crops), Calibration(30.0, curvature))
    np.testing.assert_allclose(after.probabilities(crops), expected, atol=1e-5)
    np.testing.assert_allclose(after.logits(crops), before.logits(crops), atol=1e-5)


def test_the_same_inputs_give_the_same_package(
    stages: Path, tmp_path: Path, checkout: Path
) -> None:
    first = build(stages, tmp_path / "one", checkout)
    assert build(stages, tmp_path / "two", checkout).digest == first.digest


def test_the_reference_sums_up_the_predictions(
    stages: Path, tmp_path: Path, checkout: Path
) -> None:
    package = build(stages, tmp_path / "package", checkout)
    reference = json.loads(package.file("reference.json").read_text())
    assert sum(reference["expressions"].values()) == pytest.approx(1, abs=1e-4)
    quantiles = reference["confidence_quantiles"]
    assert quantiles == sorted(quantiles)
    assert len(quantiles) == 21


def test_a_missing_input_is_named(stages: Path, tmp_path: Path, checkout: Path) -> None:
    with pytest.raises(PackageError, match=r"training\.json does not exist.*dvc repro"):
        package_model(
            load_params(checkout / "params.yaml"),
            trained=tmp_path,
            exported=stages / "exported",
            evaluation=stages / "evaluation",
            prepared=stages / "prepared",
            source=stages / "source",
            out=tmp_path / "package",
        )
    assert not (tmp_path / "package").exists()
