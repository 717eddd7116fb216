"""Initial weights: which ones are meant, what is refused, and ImageNet's laid into our graph."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer.errors import WeightsError
from fer.files import sha256_of
from fer.training.weights import initial_weights, load_initial_weights

# Keras turns its TensorFlow variables into arrays in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local.weights.h5"
    path.write_bytes(b"weights")
    return path


def test_none_is_none_even_where_a_file_is_at_hand(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert initial_weights("none") == ("none", None)
    monkeypatch.setenv("FER_WEIGHTS", str(local))
    assert initial_weights("none") == ("none", None)


def test_the_environment_wins_over_imagenet_and_a_path(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.weights.h5"
    other.write_bytes(b"")
    assert initial_weights("imagenet") == ("imagenet", None)
    assert initial_weights(str(other)) == ("file", other)
    monkeypatch.setenv("FER_WEIGHTS", str(local))
    assert initial_weights("imagenet") == ("file", local)
    assert initial_weights(str(other)) == ("file", local)


def test_an_absent_file_is_named_with_who_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "absent.weights.h5"
    for choice in (str(absent), str(tmp_path), "imagnet"):
        with pytest.raises(WeightsError, match=r"train\.weights names") as error:
            initial_weights(choice)
        assert choice in str(error.value)
    monkeypatch.setenv("FER_WEIGHTS", str(absent))
    with pytest.raises(WeightsError, match=r"FER_WEIGHTS names .*absent\.weights\.h5"):
        initial_weights("imagenet")


@pytest.fixture(scope="module")
def backbone() -> Any:
    """The real one, with random values in every weight."""
    import keras

    from fer.training.network import build_backbone

    keras.backend.clear_session()
    model = build_backbone()
    randomise(model)
    return model


def randomise(model: Any) -> None:
    """Statistics and scales that show where a weight went astray."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        value = np.asarray(variable)
        if value.dtype.kind != "f":
            continue
        if variable.name == "moving_variance":
            value = rng.uniform(0.5, 1.5, value.shape)
        elif variable.name in {"gamma", "beta", "moving_mean", "bias"}:
            value = value + rng.normal(0, 0.1, value.shape)
        variable.assign(value.astype("float32"))


_NAMES = [
    "bad.weights.h5",
    "bad.h5",
    "bad.bin",
    "bad",
    "bad.keras",
]


@pytest.mark.slow
class TestFiles:
    def test_a_file_is_loaded_and_named_by_its_digest(
        self, backbone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "start.weights.h5"
        backbone.save_weights(path)
        kernel = backbone.get_layer("stem_conv").kernel
        before = np.asarray(kernel)
        kernel.assign(before + 1)
        monkeypatch.setenv("FER_WEIGHTS", str(path))
        found = load_initial_weights(backbone, "imagenet")
        assert found == {"kind": "file", "name": path.name, "sha256": sha256_of(path)}
        assert (np.asarray(kernel) == before).all()

    def test_none_changes_nothing(self, backbone: Any) -> None:
        before = [np.asarray(one) for one in backbone.weights]
        assert load_initial_weights(backbone, "none") == {"kind": "none"}
        assert all(
            (np.asarray(one) == value).all()
            for one, value in zip(backbone.weights, before, strict=True)
        )

    @pytest.mark.parametrize("name", _NAMES)
    @pytest.mark.parametrize("content", [b"", b"no weights at all" * 100, b"\x89HDF\r\n\x1a\n"])
    def test_garbage_is_refused(
        self, backbone: Any, tmp_path: Path, name: str, content: bytes
    ) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="does not hold weights of EfficientNetB2") as error:
            load_initial_weights(backbone, str(path))
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_truncated_file_is_refused(self, backbone: Any, tmp_path: Path) -> None:
        path = tmp_path / "cut.weights.h5"
        backbone.save_weights(path)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        with pytest.raises(WeightsError, match="does not hold weights"):
            load_initial_weights(backbone, str(path))

    @pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
    def test_weights_of_another_network_are_refused(self, backbone: Any, tmp_path: Path) -> None:
        import keras

        other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        path = tmp_path / "other.weights.h5"
        other.save_weights(path)
        with pytest.raises(WeightsError, match="does not hold weights"):
            load_initial_weights(backbone, str(path))


def stem(model: Any, faces: np.ndarray) -> np.ndarray:
    """What comes out of the first convolution."""
    import keras

    part = keras.Model(model.input, model.get_layer("stem_conv").output)
    return np.asarray(part(faces, training=False))


@pytest.mark.slow
def test_imagenets_normalisation_is_folded_in_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras's own ImageNet graph and ours, from one file in the layout that Keras downloads."""
    import h5py
    import keras
    from keras.src.legacy.saving import legacy_h5_format

    from fer.training.network import build_backbone

    keras.backend.clear_session()
    original = build_backbone()
    randomise(original)
    normalization = original.get_layer("normalization")
    # As the published file has them: its variance is the deviation (Keras's own remark).
    normalization.adapt_mean.assign(np.float32([0.485, 0.456, 0.406]))
    normalization.adapt_variance.assign(np.float32([0.229, 0.224, 0.225]))
    path = tmp_path / "efficientnetb2_notop.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, original)
    asked: list[str] = []

    def get_file(fname: str, origin: str, **options: Any) -> str:
        asked.append(origin)
        return str(path)

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    theirs = keras.applications.EfficientNetB2(
        include_top=False, weights="imagenet", input_shape=(None, None, 3)
    )
    keras.backend.clear_session()
    ours = build_backbone()
    assert load_initial_weights(ours, "imagenet") == {"kind": "imagenet"}
    assert len(asked) == 2
    assert asked[0].endswith("efficientnetb2_notop.h5")
    faces = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected, found = (np.asarray(model(faces, training=False)) for model in (theirs, ours))
    scale = np.abs(expected).max()
    assert expected.std() > 1e-3 * scale > 0, "the comparison says something"
    assert np.abs(found - expected).max() <= 1e-4 * max(scale, 1)
    # Random weights damp what comes in, so the first convolution is held against Keras's too.
    expected_stem = stem(theirs, faces)
    assert np.abs(stem(ours, faces) - expected_stem).max() <= 1e-4 * np.abs(expected_stem).max()
    # And the fold is what makes them agree.
    ours.get_layer("normalization").adapt_variance.assign(np.float32([0.229, 0.224, 0.225]))
    ours.get_layer("normalization").finalize_state()
    assert np.abs(stem(ours, faces) - expected_stem).max() > 0.1 * np.abs(expected_stem).max()
    # What is saved and loaded again, as every later stage does, is folded too.
    load_initial_weights(ours, "imagenet")
    ours.save_weights(tmp_path / "ours.weights.h5")
    again = build_backbone()
    again.load_weights(tmp_path / "ours.weights.h5")
    assert np.abs(np.asarray(again(faces, training=False)) - expected).max() <= 1e-4 * max(scale, 1)


@pytest.mark.slow
def test_a_second_backbone_of_one_process_takes_imagenet_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers have other names then: normalization_1 and so on."""
    import keras

    from fer.training.network import build_backbone

    build_backbone()
    second = build_backbone()
    own = keras.applications.EfficientNetB2

    def as_if_downloaded(weights: str, **options: Any) -> Any:
        return own(weights=None, **options)

    monkeypatch.setattr(keras.applications, "EfficientNetB2", as_if_downloaded)
    load_initial_weights(second, "imagenet")


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and never answers, as a firewall that drops packets seems to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()
        taken: list[socket.socket] = []

        def accept() -> None:
            while not ended.is_set():
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for one in taken:
            one.close()


_DOWNLOAD = """
import time
import keras
from fer.errors import WeightsError
from fer.training.weights import load_initial_weights
backbone = keras.Sequential()
started = time.monotonic()
try:
    load_initial_weights(backbone, "imagenet")
except WeightsError as error:
    print(round(time.monotonic() - started), error)
"""


@pytest.mark.slow
def test_without_a_network_training_fails_soon_and_says_what_to_do(
    tmp_path: Path, workplace: Callable[..., Any]
) -> None:
    """The command itself; a proxy that refuses stands in where there is a network."""
    place = workplace(tmp_path / "work", weights="imagenet")
    home = tmp_path / "keras"
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again, so that it refuses
    proxy = f"http://127.0.0.1:{port}"
    done = subprocess.run(
        [sys.executable, "-m", "fer", "train"],
        cwd=place.folder,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "KERAS_HOME": str(home),
            "https_proxy": proxy,
            "HTTPS_PROXY": proxy,
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1, done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("fer: The ImageNet weights cannot be downloaded (URL fetch failure")
    assert "Set FER_WEIGHTS" in message
    assert "train.weights to none" in message
    assert "Traceback" not in done.stderr
    assert not (place.folder / "models").exists()
    assert not list(home.rglob("*.h5")), "nothing half-downloaded is left"


@pytest.mark.slow
def test_a_network_that_never_answers_is_given_up_soon(
    tmp_path: Path, python: Script, silent: int
) -> None:
    home = tmp_path / "keras"
    home.mkdir()
    proxy = f"http://127.0.0.1:{silent}"
    try:
        done = python(
            _DOWNLOAD, KERAS_HOME=str(home), https_proxy=proxy, HTTPS_PROXY=proxy, timeout=240
        )
    except subprocess.TimeoutExpired:
        pytest.fail("still waiting after four minutes")
    assert "Set FER_WEIGHTS" in done.stdout, done.stderr
