"""The expression classifier: face crops in, logits and probabilities out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fer.errors import PackageError, UsageError
from fer.expressions import EXPRESSIONS

Crops = NDArray[np.uint8]
Scores = NDArray[np.float32]

_BATCH = 64  # measured: larger batches gain nothing on a CPU and cost memory
_HOW = "Name a model package, or a model.onnx that `fer export` or `dvc repro` wrote."


class Engine(Protocol):
    """What computes a model file; may be called from several threads."""

    def run(self, output: str, faces: Crops) -> Scores:
        """`logits` or `probabilities`, float32 (n, 7), of crops (n, h, w, 1) of one size."""


class Classifier:
    """A model.onnx or model.tflite of this project, ready to classify crops of any size.

    A crop is reduced to 48 px as FER2013's were, then takes the way that training images took.
    Scores are in the order of `fer.expressions`. May be called from several threads.

    Args:
        path: the model file; its ending says which engine computes it.
        threads: CPU threads; None is FER_THREADS, or all cores.

    Raises:
        PackageError: the file is absent, damaged, or another model, or its engine is not installed.
    """

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise PackageError(f"{self.path} is not a file. {_HOW}")
        self._engine = _engine(self.path, threads or _threads())

    def probabilities(self, crops: Crops | Sequence[Crops]) -> Scores:
        """Probability of each expression.

        Args:
            crops: uint8 (n, h, w) or (n, h, w, 1), or a sequence of (h, w) of any sizes.

        Returns:
            float32 (n, 7); rows sum to 1; in the order of `crops`.

        Raises:
            UsageError: another type or shape.
        """
        return self._run(crops, "probabilities")

    def logits(self, crops: Crops | Sequence[Crops]) -> Scores:
        """What the network says, before calibration and softmax; see `probabilities`."""
        return self._run(crops, "logits")

    def _run(self, crops: Crops | Sequence[Crops], output: str) -> Scores:
        result = np.zeros((len(crops), len(EXPRESSIONS)), np.float32)
        for places, faces in _by_shape(crops):
            for start in range(0, len(places), _BATCH):
                part = slice(start, start + _BATCH)
                result[places[part]] = self._engine.run(output, faces[part])
        return result


def _engine(path: Path, threads: int) -> Engine:
    try:
        if path.suffix == ".tflite":
            from fer.inference.litert_engine import LiteRtEngine

            return LiteRtEngine(path, threads)
        from fer.inference.onnx_engine import OnnxEngine

        return OnnxEngine(path, threads)
    except PackageError as error:
        raise PackageError(f"{error} {_HOW}") from None


def _threads() -> int:
    from fer.settings import settings

    return settings().threads or os.cpu_count() or 1


def _by_shape(crops: Crops | Sequence[Crops]) -> list[tuple[NDArray[np.intp], Crops]]:
    """Crops of one shape together, as (n, h, w, 1), with their places in `crops`."""
    if isinstance(crops, np.ndarray) and crops.dtype != object:
        faces = crops[..., None] if crops.ndim == 3 else crops
        if faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[3] != 1:
            raise UsageError(
                f"The classifier wants uint8 grey crops (n, h, w), not {crops.dtype} "
                f"{crops.shape}. One crop is crop[None]; for colour use Recognizer.predict."
            )
        if 0 in faces.shape[1:]:
            raise UsageError(f"Crops of shape {crops.shape} have no pixels.")
        return [(np.arange(len(faces)), np.ascontiguousarray(faces))] if len(faces) else []
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, crop in enumerate(crops):
        if crop.dtype != np.uint8 or crop.ndim != 2 or crop.size == 0:
            raise UsageError(
                f"Crop {place} is {crop.dtype} {crop.shape}; the classifier wants uint8 (h, w)."
            )
        groups.setdefault(crop.shape, []).append(place)
    return [
        (np.array(places), np.stack([crops[place] for place in places])[..., None])
        for places in groups.values()
    ]
