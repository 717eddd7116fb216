"""The model that ships with the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer import Recognizer
from fer.errors import ModelReferenceError, PackageError
from fer.expressions import EXPRESSIONS
from fer.reference import make_reference, reference_package
from fer.registry.package import write_package


def test_it_is_whole_small_and_says_where_it_comes_from() -> None:
    package = reference_package()
    assert package.manifest.size < 16_000_000
    assert package.manifest.classes == EXPRESSIONS
    lineage = package.manifest.lineage
    assert lineage["quantization"]["bits"] == 8
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


def test_what_ships_is_a_package_in_integers_without_its_pictures(tmp_path: Path) -> None:
    shipped = reference_package()
    (tmp_path / "confusion.png").write_bytes(b"a picture")
    full = write_package(
        tmp_path / "full",
        name=shipped.name,
        description=shipped.manifest.description,
        files={one: shipped.file(one) for one in shipped.manifest.files}
        | {"confusion.png": tmp_path / "confusion.png"},
        metrics=shipped.manifest.metrics,
        lineage=shipped.manifest.lineage,
        input_contract=shipped.manifest.input,
    )
    assert make_reference(full.folder, tmp_path / "again").digest == shipped.digest


def test_a_model_in_floats_does_not_ship(tmp_path: Path) -> None:
    shipped, model = reference_package(), tmp_path / "model.onnx"
    model.write_bytes(b"floats")
    files = {one: shipped.file(one) for one in shipped.manifest.files if one != "model.tflite"}
    floats = write_package(
        tmp_path / "floats",
        name="floats",
        description="",
        files=files | {"model.onnx": model},
        metrics={},
        lineage={},
    )
    with pytest.raises(PackageError, match=r"holds no 'model\.tflite'"):
        make_reference(floats.folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()
