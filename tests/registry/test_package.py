"""Packages on disk."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from fer.errors import PackageError
from fer.files import sha256_of
from fer.registry import ModelPackage, write_package


def test_write_then_open(make_package) -> None:
    package = make_package()
    opened = ModelPackage.open(package.folder)
    assert opened == package
    assert opened.manifest.metrics == {"accuracy": 0.5}
    assert opened.file("docs/card.md").read_text() == "# Card\n"
    assert opened.manifest.classes[3] == "happy"
    with pytest.raises(PackageError, match=r"holds no 'x'.*model\.onnx"):
        opened.file("x")


def test_same_content_same_digest(make_package) -> None:
    first = make_package()
    again = make_package()
    assert again.digest == first.digest
    assert make_package(1).digest != first.digest


def test_nothing_is_left_beside(make_package, tmp_path: Path) -> None:
    make_package()
    make_package()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_failed_write_keeps_the_old(make_package, tmp_path: Path) -> None:
    package = make_package()
    with pytest.raises(PackageError, match=r"metrics"):
        write_package(
            package.folder,
            name="faces",
            description="",
            files={"model.onnx": package.file("model.onnx")},
            metrics={"a": float("inf")},
            lineage={},
        )
    assert ModelPackage.open(package.folder).digest == package.digest
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["../x", "/x", "manifest.json", "x.pkl"])
def test_hostile_names_are_not_written(make_package, tmp_path: Path, name: str) -> None:
    model = make_package().file("model.onnx")
    with pytest.raises(PackageError, match=r"Choose another"):
        write_package(
            tmp_path / "new",
            name="faces",
            description="",
            files={"model.onnx": model, name: model},
            metrics={},
            lineage={},
        )
    assert not (tmp_path / "new").exists()


def test_other_peoples_folders_are_not_replaced(make_package, tmp_path: Path) -> None:
    model = make_package().file("model.onnx")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(PackageError, match=r"holds files but no package"):
        write_package(
            tmp_path / "mine",
            name="faces",
            description="",
            files={"model.onnx": model},
            metrics={},
            lineage={},
        )
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: _flip(p / "model.onnx"), "altered"),
        (lambda p: (p / "model.onnx").write_bytes(b"short"), "5 bytes"),
        (lambda p: (p / "model.onnx").unlink(), "lacks model"),
        (lambda p: (p / "manifest.json").unlink(), "no model package"),
        (lambda p: (p / "manifest.json").write_bytes(b'{"schema'), "cannot be trusted"),
    ],
)
def test_damage_is_found(make_package, damage, words: str) -> None:
    package = make_package()
    damage(package.folder)
    with pytest.raises(PackageError, match=words):
        ModelPackage.open(package.folder)


def test_links_and_pipes_are_refused(make_package, tmp_path: Path) -> None:
    package = make_package()
    model = package.folder / "model.onnx"
    real = tmp_path / "real.onnx"
    model.rename(real)
    model.symlink_to(real)
    with pytest.raises(PackageError, match=r"symbolic link"):
        ModelPackage.open(package.folder)
    model.unlink()
    os.mkfifo(model)
    with pytest.raises(PackageError, match=r"no plain file"):
        ModelPackage.open(package.folder)
    model.unlink()
    real.rename(model)
    (package.folder / "docs").rename(tmp_path / "docs")
    (package.folder / "docs").symlink_to(tmp_path / "docs")
    with pytest.raises(PackageError, match=r"symbolic link"):
        ModelPackage.open(package.folder)


def test_a_huge_manifest_is_not_read(make_package) -> None:
    package = make_package()
    with (package.folder / "manifest.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(PackageError, match=r"more than 1,048,576 bytes"):
        ModelPackage.open(package.folder)


def test_a_keras_model_with_code_is_refused(make_package, tmp_path: Path) -> None:
    layer = {"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}}
    config = {"class_name": "Sequential", "config": {"layers": [layer]}}
    path = tmp_path / "unsafe.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    package = make_package()
    files = {"model.onnx": package.file("model.onnx"), "unsafe.keras": path}
    with pytest.raises(
        PackageError, match=r"'unsafe\.keras' is a whole Keras model.*may hold code"
    ):
        write_package(
            tmp_path / "p", name="faces", description="", files=files, metrics={}, lineage={}
        )
    shutil.copyfile(path, package.folder / "unsafe.keras")
    manifest = json.loads((package.folder / "manifest.json").read_text())
    manifest["files"]["unsafe.keras"] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    (package.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackageError, match=r"may hold code.*Nothing of it was loaded"):
        ModelPackage.open(package.folder)


def test_a_newer_schema_says_what_to_upgrade(make_package) -> None:
    package = make_package()
    path = package.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 9}))
    with pytest.raises(PackageError, match=r"version 9.*pip install --upgrade fer-workflow"):
        ModelPackage.open(package.folder)


def test_the_wanted_digest_is_demanded(make_package) -> None:
    package = make_package()
    with pytest.raises(PackageError, match=r"expected 000"):
        ModelPackage.open(package.folder, digest="0" * 64)


def test_opening_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fer.registry import ModelPackage, Registry\n"
        "import fer.cli.models\n"
        "heavy = {'boto3', 'botocore', 'tensorflow', 'pickle5', 'cv2', 'onnxruntime', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
