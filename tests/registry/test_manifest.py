"""Manifests and references: what is accepted, and that nothing hostile is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fer.errors import ModelReferenceError, PackageError
from fer.registry import ModelReference, PackageManifest
from fer.registry.manifest import canonical_json, file_name_problem, parse_json

SHA = "0" * 64
GOOD: dict[str, Any] = {
    "schema_version": 1,
    "name": "faces",
    "files": {"model.onnx": {"size": 3, "sha256": SHA}},
}


def test_bytes_are_canonical() -> None:
    first = PackageManifest.model_validate(GOOD | {"metrics": {"b": 1.5, "a": [1, None]}})
    second = PackageManifest.model_validate(GOOD | {"metrics": {"a": [1, None], "b": 1.5}})
    assert first.to_bytes() == second.to_bytes()
    assert PackageManifest.from_bytes(first.to_bytes()) == first


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(metrics=st.dictionaries(st.text(), json_values, max_size=5))
def test_any_metrics_survive(metrics: dict[str, Any]) -> None:
    manifest = PackageManifest.model_validate(GOOD | {"metrics": metrics})
    try:
        data = manifest.to_bytes()
    except PackageError:
        with pytest.raises(UnicodeEncodeError):  # lone surrogates
            json.dumps(metrics, ensure_ascii=False).encode()
        return
    assert PackageManifest.from_bytes(data).to_bytes() == data


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_politely(data: bytes) -> None:
    with pytest.raises(PackageError, match=r"cannot be trusted"):
        PackageManifest.from_bytes(data)


@given(json_values)
def test_canonical_json_is_a_fixed_point(value: Any) -> None:
    try:
        data = canonical_json({"v": value})
    except UnicodeEncodeError:
        return
    assert canonical_json(parse_json(data, 1 << 20)) == data


HOSTILE_NAMES = [
    "",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/./b",
    "a//b",
    "a/",
    "..",
    ".",
    ".hidden",
    "a/.git",
    "C:/x",
    "c:x",
    "a\\b",
    "a\nb",
    "a\x00b",
    "a\x1b[2J",
    "nul",
    "CON.txt",
    "a/aux.onnx",
    "x.",
    "x ",
    "\u202efdp.exe",
    "\uff4dodel.onnx",
    "manifest.json",
    "Manifest.JSON",
    "weights.pkl",
    "model.pt",
    "model.keras",
    "Model.H5",
    "weights.hdf5",
    "a/b/c/d/e",
    "a" * 101,
    "~root",
    "$HOME",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_file_names(name: str) -> None:
    assert file_name_problem(name)
    files = GOOD["files"] | {name: {"size": 1, "sha256": SHA}}
    with pytest.raises(PackageError, match=r"file name"):
        PackageManifest.from_bytes(json.dumps(GOOD | {"files": files}).encode())


@given(st.text(max_size=30))
def test_an_accepted_name_stays_inside(name: str) -> None:
    if file_name_problem(name) is None:
        root = Path("/package")
        path = (root / name).resolve()
        assert root in path.parents
        assert path.relative_to(root).as_posix() == name
        assert name.isascii()
        assert name.isprintable()


@pytest.mark.parametrize("name", ["model.onnx", "a/b/c/d.txt", "network.weights.h5", "a-b_c+d.1"])
def test_plain_names_are_accepted(name: str) -> None:
    assert file_name_problem(name) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "upgrade with `pip install --upgrade fer-workflow`"),
        ({"schema_version": None}, "schema_version"),
        ({"schema_version": "1"}, "schema_version"),
        ({"schema_version": True}, "schema_version"),
        ({"name": "Bad Name"}, "name"),
        ({"name": "a..b"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"extra": 1}, "extra"),
        ({"files": {}}, "files"),
        ({"files": {"other.bin": {"size": 1, "sha256": SHA}}}, r"no model\.onnx"),
        (
            {"files": {f"model.{kind}": {"size": 1, "sha256": SHA} for kind in ("onnx", "tflite")}},
            "both there",
        ),
        ({"files": {"model.onnx": {"size": -1, "sha256": SHA}}}, "size"),
        ({"files": {"model.onnx": {"size": "1", "sha256": SHA}}}, "size"),
        ({"files": {"model.onnx": {"size": 1, "sha256": "0" * 63 + "G"}}}, "sha256"),
        ({"files": {"model.onnx": {"size": 1, "sha256": SHA + "\n"}}}, "sha256"),
        ({"classes": ["a"]}, "classes"),
        ({"classes": ["a", "a"]}, "twice"),
    ],
)
def test_wrong_fields(change: dict[str, Any], words: str) -> None:
    with pytest.raises(PackageError, match=words):
        PackageManifest.from_bytes(json.dumps(GOOD | change).encode())


def _with_files(*names: str) -> bytes:
    files = {name: {"size": 1, "sha256": SHA} for name in ("model.onnx", *names)}
    return json.dumps(GOOD | {"files": files}).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b" " * (1 << 20) + b"{}", "more than 1,048,576 bytes"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"schema_version":1,"metrics":' + b"[" * 60 + b"]" * 60 + b"}", "nested too deeply"),
        (b'{"schema_version":1,"schema_version":1}', "occurs twice"),
        (b'{"schema_version":1,"metrics":{"a":NaN}}', "NaN"),
        (b'{"schema_version":1,"metrics":{"a":1e999}}', "too large"),
        (b'{"schema_version":1', "cut short"),
        (b"<html></html>", "HTML"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"[]", "no JSON object"),
        (_with_files("Model.ONNX"), "case"),
        (_with_files("a", "a/b"), "both a file and a folder"),
    ],
)
def test_damaged_or_hostile_bytes(data: bytes, words: str) -> None:
    with pytest.raises(PackageError, match=words):
        PackageManifest.from_bytes(data)


def test_metrics_that_json_cannot_hold() -> None:
    manifest = PackageManifest.model_validate(GOOD | {"metrics": {"a": float("nan")}})
    with pytest.raises(PackageError, match=r"metrics or lineage"):
        manifest.to_bytes()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("faces", ModelReference("faces", alias="champion")),
        ("faces@challenger", ModelReference("faces", alias="challenger")),
        ("fer2013-b2.v1:7", ModelReference("fer2013-b2.v1", number=7)),
        ("./faces", ModelReference(path=Path("faces"))),
        ("a/b@c", ModelReference(path=Path("a/b@c"))),
        (Path("faces"), ModelReference(path=Path("faces"))),
    ],
)
def test_references(text: str | Path, expected: ModelReference) -> None:
    assert ModelReference.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", "a:0", "a:07", "a:-1", "a:x", "a:", "a@", "@a", ":1", "a@b@c", "a:1:2", "a@1", "A",
     "a b", "a@B", "a\n", "s3://b/k", "a" * 101, "a@" + "b" * 101, "é", "a\x00"],
)  # fmt: skip
def test_bad_references(text: str) -> None:
    with pytest.raises(ModelReferenceError, match=r"name|model"):
        ModelReference.parse(text)


@given(st.text(max_size=20))
@example(text="~0")
@example(text="~nobody-has-this-name/model")
def test_a_reference_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = ModelReference.parse(text)
    except ModelReferenceError:
        return
    if parsed.path is None:
        assert ModelReference.parse(str(parsed)) == parsed


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_either_kind_of_model_will_do(name: str) -> None:
    files = {name: {"size": 1, "sha256": SHA}, "card.md": {"size": 1, "sha256": SHA}}
    manifest = PackageManifest.from_bytes(json.dumps(GOOD | {"files": files}).encode())
    assert manifest.model == name
