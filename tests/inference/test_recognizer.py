"""The Python API: load by every kind of reference, predict, analyse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer.errors import ImageError, ModelReferenceError, NotFoundError, PackageError, UsageError
from fer.expressions import EXPRESSIONS
from fer.files import sha256_of
from fer.inference.recognizer import Recognizer
from fer.params import FacesParams
from fer.registry.package import ModelPackage, write_package
from fer.registry.registry import Registry


def package(folder: Path, model: Path, name: str = "bright") -> ModelPackage:
    return write_package(
        folder,
        name=name,
        description="A stand-in.",
        files={"model.onnx": model},
        metrics={"accuracy": 0.5},
        lineage={"seed": 1},
    )


def test_importing_is_quick_and_light() -> None:
    script = (
        "import sys, time\nstart = time.perf_counter()\n"
        "from fer.inference.recognizer import Recognizer\n"
        "print(time.perf_counter() - start)\n"
        "heavy = {'cv2', 'dlib', 'onnxruntime', 'pyarrow', 'boto3', 'tensorflow', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    times = []
    for _ in range(3):  # the quickest of three: the machine may be busy
        result = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        seconds, heavy = result.stdout.splitlines()
        assert heavy == "[]"
        times.append(float(seconds))
    assert min(times) < 0.15


def test_a_bare_model_file(model: Path) -> None:
    for reference in (model, str(model)):
        recognizer = Recognizer.load(reference)
        assert recognizer.model.name == "model"
        assert recognizer.model.version is None
        assert recognizer.model.digest == sha256_of(model)


def test_a_package_folder(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = package(tmp_path / "package", model)
    monkeypatch.chdir(tmp_path)
    for reference in (tmp_path / "package", str(tmp_path / "package"), "package", "./package"):
        info = Recognizer.load(reference).model
        assert (info.name, info.version, info.digest) == ("bright", None, made.digest)


def test_an_altered_package_is_refused(tmp_path: Path, model: Path) -> None:
    package(tmp_path / "package", model)
    file = tmp_path / "package" / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(PackageError, match="altered"):
        Recognizer.load(tmp_path / "package")


def test_a_registered_model(
    tmp_path: Path, model: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "registry")
    registry = Registry.open(url)
    first = registry.register(package(tmp_path / "one", model).folder)
    other = make_model(tmp_path / "other.onnx", shift=0.1)
    second = registry.register(package(tmp_path / "two", other).folder)
    registry.promote("bright", first.number)
    for reference, version in [
        ("bright@champion", first),
        ("bright", first),
        ("bright:2", second),
        ("bright@latest", second),
        (None, first),
    ]:
        info = Recognizer.load(reference, registry=url).model
        assert (info.name, info.version, info.digest) == ("bright", version.number, version.digest)
    monkeypatch.setenv("FER_REGISTRY", url)
    assert Recognizer.load().model.version == 1
    with pytest.raises(NotFoundError):
        Recognizer.load("bright:3")

    # Two models: none is taken by itself.
    registry.register(package(tmp_path / "three", model, name="dim").folder)
    with pytest.raises(ModelReferenceError, match="2 models"):
        Recognizer.load()

    # Without the registry, what was pulled is still there under the name it was asked by.
    monkeypatch.setenv("FER_OFFLINE", "1")
    assert Recognizer.load("bright@champion").model.digest == first.digest
    assert Recognizer.load("bright:2").model.version == 2


def test_a_reference_to_nothing_says_how_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelReferenceError, match=r"is a registered model.*name@champion.*package"):
        Recognizer.load("bright")
    with pytest.raises(ModelReferenceError, match="no registry is"):
        Recognizer.load("bright@champion")
    for reference in (tmp_path / "none", "./none", "none.onnx", "models/none"):
        with pytest.raises(ModelReferenceError, match="There is no"):
            Recognizer.load(reference)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PackageError, match="no model package"):
        Recognizer.load(empty)


def test_a_package_of_other_classes_is_refused(tmp_path: Path, model: Path) -> None:
    write_package(
        tmp_path / "package",
        name="other",
        description="",
        files={"model.onnx": model},
        metrics={},
        lineage={},
        classes=("cat", "dog"),
    )
    with pytest.raises(PackageError, match="cat, dog"):
        Recognizer.load(tmp_path / "package")


def test_predicts_crops_of_every_shape(model: Path, expected: Callable[[np.ndarray], str]) -> None:
    recognizer = Recognizer.load(model)
    levels = [10, 100, 250]
    batch = np.stack([np.full((48, 48), level, np.uint8) for level in levels])
    names = [expected(crop) for crop in batch]
    assert names == ["angry", "fear", "neutral"]
    colour = np.repeat(batch[..., None], 3, axis=3)
    for crops in (
        batch,
        batch[..., None],
        colour,
        list(batch),
        [batch[0], colour[1, :9], batch[2]],
    ):
        assert [one.expression for one in recognizer.predict(crops)] == names
    for crop in (batch[1], batch[1][..., None], colour[1]):
        (prediction,) = recognizer.predict(crop)
        assert prediction.expression == "fear"
        assert list(prediction.probabilities) == list(EXPRESSIONS)
        assert prediction.confidence == max(prediction.probabilities.values())
        assert abs(sum(prediction.probabilities.values()) - 1) < 1e-5
    with pytest.raises(UsageError):
        recognizer.predict(batch.astype(np.float32))


def test_analyses_a_path_bytes_and_pixels_alike(
    model: Path,
    tmp_path: Path,
    astronaut: np.ndarray,
    encode: Callable[..., bytes],
    expected: Callable[[np.ndarray], str],
) -> None:
    recognizer = Recognizer.load(model)
    data = encode(astronaut, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    (face,) = recognizer.analyze(path)
    for image in (str(path), data, astronaut):
        assert recognizer.analyze(image) == [face]
    box = face.detection
    assert abs(box.left - 175) < 15
    assert abs(box.bottom - 166) < 15
    assert face.quality.marks == ()
    centre = astronaut[round(box.top) : round(box.bottom), round(box.left) : round(box.right)]
    assert face.prediction.expression == expected(centre @ [0.299, 0.587, 0.114])


def test_boxes_are_in_the_pixels_of_a_large_picture(
    model: Path, astronaut: np.ndarray, encode: Callable[..., bytes]
) -> None:
    large = np.kron(astronaut, np.ones((13, 13, 1), np.uint8))  # 44 megapixels
    (plain,) = Recognizer.load(model).analyze(astronaut)
    faces = Recognizer.load(model).analyze(encode(large, "JPEG"))
    box = faces[0].detection
    assert abs(box.left / 13 - plain.detection.left) < 15
    assert abs(box.right / 13 - plain.detection.right) < 15
    assert faces[0].quality.size > 900


def test_faces_params_are_followed(model: Path, astronaut: np.ndarray) -> None:
    strict = Recognizer.load(model, faces=FacesParams(min_score=5.0))
    assert strict.analyze(astronaut) == []
    small = Recognizer.load(model, faces=FacesParams(max_megapixels=0.0001))
    with pytest.raises(ImageError, match="limit"):
        small.analyze(b"P5 100 100 255\n" + bytes(10_000))


def test_a_bad_picture_is_named(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "diary.jpg"
    path.write_text("dear diary")
    with pytest.raises(ImageError, match=r"diary\.jpg is not an image but text"):
        Recognizer.load(model).analyze(path)


@pytest.mark.shared
def test_faces_of_real_photographs(model: Path, shared: Path) -> None:
    recognizer = Recognizer.load(model)
    counts = {path.name: len(recognizer.analyze(path)) for path in (shared / "media").glob("*.jpg")}
    assert counts == {
        "biden.jpg": 1,
        "obama-720p.jpg": 1,
        "obama-and-biden.jpg": 3,
        "obama-partial.jpg": 1,
        "obama-serious.jpg": 1,
        "two-people.jpg": 2,
    }
