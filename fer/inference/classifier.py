"""The expression classifier: face crops in, logits and probabilities out, by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.errors import PackageError, UsageError
from fer.expressions import EXPRESSIONS

Crops = NDArray[np.uint8]
Scores = NDArray[np.float32]

_BATCH = 64  # measured: larger batches gain nothing on a CPU and cost memory
_HOW = "Name a model package, or a model.onnx that `fer export` or `dvc repro` wrote."


class Classifier:
    """A model.onnx of this project, ready to classify crops of any size.

    The graph does all preprocessing: it takes uint8 (n, h, w, 1) grey crops named `faces` and
    gives `logits` and `probabilities`, float32 (n, 7) in the order of `fer.expressions`. May
    be called from several threads.

    Args:
        path: the ONNX file.
        threads: CPU threads; None is FER_THREADS, or all cores.

    Raises:
        PackageError: the file is absent, damaged, or another model.
    """

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise PackageError(f"{self.path} is not a file. {_HOW}")
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only: its warnings speak to model authors
        options.intra_op_num_threads = threads or _threads()
        options.inter_op_num_threads = 1
        # Idle threads that spin would take the cores from detection.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = ort.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            reason = " ".join(str(error).split())[:200]
            raise PackageError(
                f"{self.path} cannot be loaded as an ONNX model: {reason}. {_HOW}"
            ) from None
        self._check()

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
                (values,) = self._session.run([output], {"faces": faces[part]})
                result[places[part]] = values
        return result

    def _check(self) -> None:
        inputs = {one.name: one for one in self._session.get_inputs()}
        outputs = {one.name: one for one in self._session.get_outputs()}
        problem = ""
        if set(inputs) != {"faces"} or inputs["faces"].type != "tensor(uint8)":
            problem = f"its inputs are {', '.join(inputs) or 'none'}, not uint8 `faces`"
        elif not {"logits", "probabilities"} <= set(outputs):
            problem = f"its outputs are {', '.join(outputs)}, not `logits` and `probabilities`"
        else:
            columns = outputs["probabilities"].shape[-1:]
            if columns and isinstance(columns[0], int) and columns[0] != len(EXPRESSIONS):
                problem = f"it has {columns[0]} classes, not {len(EXPRESSIONS)}"
        if problem:
            raise PackageError(f"{self.path} is no expression model: {problem}. {_HOW}")


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
