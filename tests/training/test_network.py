"""The description that a network is built from, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer.errors import PackageError
from fer.expressions import EXPRESSIONS
from fer.training.network import NetworkConfig


@given(st.integers(32, 260), st.floats(0, 0.99))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_round_trip(tmp_path: Path, input_size: int, dropout: float) -> None:
    config = NetworkConfig(input_size=input_size, dropout=dropout)
    path = tmp_path / "network.json"
    config.write(path)
    first = path.read_bytes()
    assert NetworkConfig.read(path) == config
    config.write(path)
    assert path.read_bytes() == first


def test_the_file_names_the_classes(tmp_path: Path) -> None:
    NetworkConfig(input_size=64, dropout=0.3).write(tmp_path / "network.json")
    document = json.loads((tmp_path / "network.json").read_text())
    assert document == {
        "backbone": "EfficientNetB2",
        "classes": list(EXPRESSIONS),
        "dropout": 0.3,
        "input_size": 64,
        "side": 48,
    }


def written(folder: Path, **changed: Any) -> Path:
    path = folder / "network.json"
    NetworkConfig(input_size=64, dropout=0.3).write(path)
    document = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({key: value for key, value in document.items() if value != ...}))
    return path


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone": "ResNet50"},
        {"backbone": "../../efficientnet"},
        {"backbone": None},
        {"classes": ["angry", "happy"]},
        {"classes": list(reversed(EXPRESSIONS))},
        {"classes": [*EXPRESSIONS, "contempt"]},
        {"classes": "angry"},
        {"classes": None},
        {"classes": 7},
        {"layers": [{"class_name": "Lambda", "config": {"function": "os.system"}}]},
        {"__class__": "os.system"},
    ],
    ids=repr,
)
def test_another_network_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = written(tmp_path, **changed)
    with pytest.raises(PackageError, match=r"network\.json"):
        NetworkConfig.read(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"input_size": "64"},
        {"input_size": None},
        {"input_size": True},
        {"input_size": 64.5},
        {"input_size": -1},
        {"input_size": 10**9},  # enlarged in the graph: 12 exabytes
        {"dropout": "0.3"},
        {"dropout": 1.5},
        {"dropout": -0.1},
        {"dropout": float("nan")},
        {"side": 10**9},
        {"side": "48"},
    ],
    ids=repr,
)
def test_values_that_no_training_writes_are_refused(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    path = written(tmp_path, **changed)
    with pytest.raises(PackageError, match=r"network\.json"):
        NetworkConfig.read(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b'{"classes": []}',
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_description_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "network.json"
    path.write_bytes(content)
    with pytest.raises(PackageError, match=r"network\.json"):
        NetworkConfig.read(path)


def test_an_absent_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "network.json", tmp_path):
        with pytest.raises(PackageError, match="describes no network"):
            NetworkConfig.read(path)


@pytest.mark.slow
def test_the_network_that_is_built() -> None:
    """Any input size; grey 48 px in, seven float32 logits out, whatever the precision."""
    import keras
    import numpy as np

    from fer.training.network import build_network

    def small() -> Any:
        inputs = keras.Input((None, None, 3))
        return keras.Model(inputs, keras.layers.Conv2D(4, 3, strides=4)(inputs), name="backbone")

    faces = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 1)).astype("float32")
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            for size in (32, 48, 64):
                config = NetworkConfig(input_size=size, dropout=0.3)
                network = build_network(config, small())
                names = [layer.name for layer in network.layers]
                assert ("enlarge" in names) == (size != 48)
                logits = network(faces)
                assert tuple(logits.shape) == (2, len(EXPRESSIONS))
                assert keras.backend.standardize_dtype(logits.dtype) == "float32"
                other = network(faces[::-1])
                assert np.allclose(np.asarray(logits), np.asarray(other)[::-1], atol=1e-2)
        finally:
            keras.config.set_dtype_policy("float32")
