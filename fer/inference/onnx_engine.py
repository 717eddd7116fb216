"""ONNX Runtime as the engine of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.errors import PackageError
from fer.expressions import EXPRESSIONS


class OnnxEngine:
    """A model.onnx, whose graph does all preprocessing; see `fer.inference.classifier.Engine`.

    It takes `faces`, uint8 (n, h, w, 1), and gives `logits` and `probabilities`, float32 (n, 7).

    Args:
        path: the file.
        threads: CPU threads of a call.

    Raises:
        PackageError: damaged, or another model.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors only: its warnings speak to model authors
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads that spin would take the cores from detection.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            reason = " ".join(str(error).split())[:200]
            raise PackageError(f"{path} cannot be loaded as an ONNX model: {reason}.") from None
        if problem := self._problem():
            raise PackageError(f"{path} is no expression model: {problem}.")

    def run(self, output: str, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `fer.inference.classifier.Engine`."""
        (values,) = self._session.run([output], {"faces": faces})
        return np.asarray(values, np.float32)

    def _problem(self) -> str:
        inputs = {one.name: one for one in self._session.get_inputs()}
        outputs = {one.name: one for one in self._session.get_outputs()}
        if set(inputs) != {"faces"} or inputs["faces"].type != "tensor(uint8)":
            return f"its inputs are {', '.join(inputs) or 'none'}, not uint8 `faces`"
        if not {"logits", "probabilities"} <= set(outputs):
            return f"its outputs are {', '.join(outputs)}, not `logits` and `probabilities`"
        columns = outputs["probabilities"].shape[-1:]
        if columns and isinstance(columns[0], int) and columns[0] != len(EXPRESSIONS):
            return f"it has {columns[0]} classes, not {len(EXPRESSIONS)}"
        return ""
