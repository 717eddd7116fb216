"""Initial weights of the backbone: ImageNet's from Keras, a local file's, or none."""

from __future__ import annotations

import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fer.errors import WeightsError
from fer.files import sha256_of
from fer.settings import settings

if TYPE_CHECKING:
    import keras

_TIMEOUT_SECONDS = 20.0


def initial_weights(choice: str) -> tuple[str, Path | None]:
    """What `train.weights` and FER_WEIGHTS together mean: a kind and, for a file, its path.

    Raises:
        WeightsError: the file does not exist.
    """
    local = settings().weights
    if choice == "none":
        return "none", None
    if local is None and choice == "imagenet":
        return "imagenet", None
    path = local or Path(choice)
    if not path.is_file():
        origin = "FER_WEIGHTS" if local else "train.weights"
        raise WeightsError(f"{origin} names {path}, which is no file.")
    return "file", path


def load_initial_weights(backbone: keras.Model, choice: str) -> dict[str, str]:
    """Put the initial weights into the backbone, and say where they came from.

    Raises:
        WeightsError: not reachable, no weights file, or of another network.
    """
    kind, path = initial_weights(choice)
    if kind == "imagenet":
        _load_imagenet(backbone)
    elif path is not None:
        try:
            backbone.load_weights(path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            text = str(error).strip().splitlines()[0]
            raise WeightsError(
                f"{path} does not hold weights of EfficientNetB2 without its top ({text}). "
                "It should be what save_weights('NAME.weights.h5') writes."
            ) from None
        return {"kind": "file", "name": path.name, "sha256": sha256_of(path)}
    return {"kind": kind}


def _load_imagenet(backbone: keras.Model) -> None:
    """Keras's own ImageNet weights, folded into the graph that `weights=None` builds.

    With these weights Keras adds a rescaling layer that corrects a normalisation by the
    standard deviation's root. Folding it in keeps one graph for every kind of weights.
    """
    import keras
    import numpy as np

    try:
        with _network_timeout():
            source = keras.applications.EfficientNetB2(
                include_top=False, weights="imagenet", input_shape=(None, None, 3)
            )
    except Exception as error:  # Keras raises a bare Exception when the download fails
        raise WeightsError(
            f"The ImageNet weights cannot be downloaded ({error}). Set FER_WEIGHTS to a copy of "
            "them (.weights.h5), or train.weights to none in params.yaml to start from scratch."
        ) from None
    # By position, not by name: a second backbone of one process has other names. Keras's own has
    # one layer more, the rescaling, which holds no weights.
    ours = [layer for layer in backbone.layers if layer.weights]
    theirs = [layer for layer in source.layers if layer.weights]
    for layer, other in zip(ours, theirs, strict=True):
        if not isinstance(layer, keras.layers.Normalization):
            layer.set_weights(other.get_weights())
    (normalization,) = (one for one in ours if isinstance(one, keras.layers.Normalization))
    mean = np.asarray([0.485, 0.456, 0.406], np.float32)
    deviation = np.asarray([0.229, 0.224, 0.225], np.float32)
    normalization.adapt_mean.assign(mean)
    normalization.adapt_variance.assign(np.square(deviation))
    # `call` uses what this derives from the variables, not the variables themselves.
    normalization.finalize_state()


@contextmanager
def _network_timeout() -> Iterator[None]:
    """Give up on a server that does not answer; Keras's own download waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
