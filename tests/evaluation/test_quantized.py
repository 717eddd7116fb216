"""A package in integers is evaluated and described anew; its quantiser is a stand-in here."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fer import Recognizer
from fer.dataset.table import FaceTable
from fer.errors import PackageError, TrainingError
from fer.evaluation.ferplus import no_votes
from fer.files import write_json
from fer.params import Params, load_params
from fer.quantized import quantize_package
from fer.reference import reference_package
from fer.registry.package import ModelPackage

JUDGED = {"accuracy": 0.7, "accuracy_before": 0.7, "images": 140, "same_answers": 0.95}


@pytest.fixture
def params(checkout: Path) -> Params:
    params = load_params(checkout / "params.yaml")
    quick = {"bootstrap": 100, "latency_runs": 2, "robustness_images": 30}
    return params.model_copy(update={"evaluate": params.evaluate.model_copy(update=quick)})


@pytest.fixture
def place(
    tmp_path: Path, faces: FaceTable, litert_model: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Folders as the data stages leave them, and a quantiser that takes no minutes."""

    def stand_in(package: Path, table: Path, out: Path) -> None:
        assert table == tmp_path / "prepared" / "faces.parquet"
        shutil.copy(litert_model, out / "model.tflite")
        write_json(out / "quantization.json", {"bits": 8, "validation": JUDGED})

    monkeypatch.setattr("fer.training.start.quantize", stand_in)
    faces.write(tmp_path / "prepared" / "faces.parquet")
    split = {"images": 140, "kept": 140, "near_twins": 0}
    write_json(tmp_path / "prepared" / "manifest.json", {"splits": {"train": split, "test": split}})
    write_json(tmp_path / "source" / "source.json", {"kind": "synthetic"})
    pq.write_table(no_votes(), tmp_path / "source" / "ferplus.parquet")
    return tmp_path


def build(place: Path, params: Params) -> ModelPackage:
    return quantize_package(
        params,
        package=reference_package().folder,
        prepared=place / "prepared",
        source=place / "source",
        out=place / "quantized",
    )


def test_its_figures_are_its_own(place: Path, params: Params) -> None:
    made, full = build(place, params), reference_package()
    opened = ModelPackage.open(place / "quantized")
    assert opened.digest == made.digest
    assert opened.name == full.name
    assert opened.model.name == "model.tflite"
    assert opened.manifest.input.layout == "1,48,48,1"
    metrics: dict[str, Any] = opened.manifest.metrics
    assert metrics["test"]["n"] == 140
    assert metrics["test_set"] != full.manifest.metrics["test_set"]
    assert metrics["model_bytes"] == opened.model.stat().st_size
    assert json.loads(opened.file("reference.json").read_bytes())["images"] == 140

    lineage: dict[str, Any] = opened.manifest.lineage
    assert lineage["made_of"] == full.digest
    assert lineage["git_commit"] == full.manifest.lineage["git_commit"]
    assert lineage["quantization"]["validation"] == JUDGED
    assert {"keras", "ai-edge-litert", "litert-quantizer"} <= set(lineage["versions"])
    card = opened.file("card.md").read_text(encoding="utf-8")
    assert "quantization.validation.same" in card


def test_it_predicts(place: Path, params: Params, faces: FaceTable) -> None:
    build(place, params)
    recognizer = Recognizer.load(place / "quantized")
    (one,) = recognizer.predict(faces.pixels[0])
    assert one.expression == "angry"  # the darkest of the drawn levels
    bare = Recognizer.load(place / "quantized" / "model.tflite")
    assert bare.predict(faces.pixels[0]) == [one]


def test_without_prepared_data_it_says_what_to_run(place: Path, params: Params) -> None:
    (place / "prepared" / "manifest.json").unlink()
    with pytest.raises(PackageError, match="dvc repro"):
        build(place, params)
    assert not (place / "quantized").exists()


def test_without_the_quantiser_it_says_what_to_install(
    place: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("fer.quantized.version", absent)
    with pytest.raises(TrainingError, match=r"ai-edge-litert is not installed\. Install the extra"):
        build(place, params)
