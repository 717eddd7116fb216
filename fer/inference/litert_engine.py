"""LiteRT, which was TensorFlow Lite, as the engine of a classifier."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.errors import PackageError
from fer.expressions import EXPRESSIONS
from fer.inference.resize import resized

_NOTICE: Final = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."
_loading = threading.Lock()


class LiteRtEngine:
    """A model.tflite, as `fer.training.litert` makes it; see `fer.inference.classifier.Engine`.

    The file takes one face, `faces`, float32 (1, side, side, 1) in grey levels, and gives `logits`
    and `probabilities`, float32 (1, 7). With a batch of one all of its graph runs in XNNPACK, and
    a face's answer is the same whatever faces it comes with.

    Args:
        path: the file.
        threads: faces classified at the same time, each by an interpreter of its own.

    Raises:
        PackageError: damaged, or another model, or ai-edge-litert is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._own = threading.local()  # an interpreter must not be shared by threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fer-litert")
        self._side = self._pool.submit(self._checked_side).result()

    def run(self, output: str, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `fer.inference.classifier.Engine`."""
        crops = resized(faces, self._side)
        return np.concatenate(list(self._pool.map(lambda one: self._one(output, one), crops)))

    def _one(self, output: str, crop: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of one crop (side, side, 1), in a thread of the pool: (1, 7)."""
        return np.asarray(self._runner()(faces=crop[None])[output], np.float32)

    def _runner(self) -> Any:
        if not hasattr(self._own, "runner"):
            self._own.interpreter = _loaded(self._path)
            self._own.runner = self._own.interpreter.get_signature_runner()
        return self._own.runner

    def _checked_side(self) -> int:
        """Height and width of the crops that the model takes."""
        try:
            runner = self._runner()
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
        except ValueError as error:
            raise PackageError(
                f"{self._path} is no expression model: it has no signature ({error})."
            ) from None
        problem = ""
        if set(inputs) != {"faces"}:
            problem = f"its inputs are {', '.join(inputs) or 'none'}, not `faces`"
        elif not {"logits", "probabilities"} <= set(outputs):
            problem = f"its outputs are {', '.join(outputs)}, not `logits` and `probabilities`"
        else:
            shape, kind = inputs["faces"]["shape"].tolist(), inputs["faces"]["dtype"]
            columns = outputs["probabilities"]["shape"].tolist()[-1:]
            if len(shape) != 4 or shape != [1, shape[1], shape[1], 1] or kind is not np.float32:
                problem = f"`faces` is {kind.__name__} {shape}, not float32 (1, side, side, 1)"
            elif columns != [len(EXPRESSIONS)]:
                problem = f"its probabilities have the shape {columns}, not {len(EXPRESSIONS)}"
        if problem:
            raise PackageError(f"{self._path} is no expression model: {problem}.")
        return int(inputs["faces"]["shape"][1])


def _loaded(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise PackageError(
            f"{path} is a LiteRT model, and {error.name} is not installed: pip install -c "
            "constraints.txt ai-edge-litert. Macs with Intel processors have none; a package that "
            "holds a model.onnx works there."
        ) from None
    try:
        with _without_notice():
            interpreter = Interpreter(str(path), num_threads=1)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PackageError(f"{path} cannot be loaded as a LiteRT model: {reason}.") from None
    return interpreter


@contextmanager
def _without_notice() -> Iterator[None]:
    """Keep a line from stderr that LiteRT writes for each interpreter, and has no setting for.

    Whatever else is written meanwhile comes afterwards.
    """
    with _loading, ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile())
            stderr = os.dup(2)
        except OSError:  # no room for it, or nobody there to see it
            yield
            return
        stack.callback(os.close, stderr)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            held.seek(0)
            with suppress(OSError):
                os.write(stderr, b"".join(line for line in held if line.strip() != _NOTICE))
