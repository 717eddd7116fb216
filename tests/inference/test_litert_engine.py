"""What is LiteRT's own, beyond what every engine of a classifier must do (test_classifier.py)."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fer.errors import PackageError
from fer.inference.classifier import Classifier


def drawn(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 48, 48), dtype=np.uint8)


def python(script: str, model: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, str(model)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_a_faces_answer_does_not_depend_on_its_company(litert_model: Path) -> None:
    crops = drawn(40)
    together = Classifier(litert_model, threads=3).probabilities(crops)
    alone = [Classifier(litert_model, threads=1).probabilities(one[None]) for one in crops[:5]]
    assert np.array_equal(together[:5], np.concatenate(alone))


def test_no_more_interpreters_than_threads(litert_model: Path) -> None:
    before = {one.name for one in threading.enumerate()}
    classifier = Classifier(litert_model, threads=2)
    classifier.probabilities(drawn(50))
    ours = [one for one in threading.enumerate() if one.name not in before]
    assert 1 <= len([one for one in ours if one.name.startswith("fer-litert")]) <= 2


def test_its_notice_of_itself_is_kept_from_stderr_and_nothing_else(
    litert_model: Path,
) -> None:
    script = """
import os, sys, threading
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from fer.inference.classifier import Classifier

made = Interpreter.allocate_tensors
def allocate(interpreter):
    os.write(2, b"from elsewhere\\n")
    made(interpreter)
Interpreter.allocate_tensors = allocate
Classifier(sys.argv[1], threads=1).probabilities(np.zeros((3, 48, 48), np.uint8))
print("afterwards", file=sys.stderr)
"""
    done = python(script, litert_model)
    assert done.returncode == 0
    assert done.stderr == "from elsewhere\nafterwards\n"


def test_it_loads_where_stderr_is_closed(litert_model: Path) -> None:
    script = """
import os, sys
from fer.inference.classifier import Classifier
os.close(2)
Classifier(sys.argv[1], threads=1)
print("loaded")
"""
    assert python(script, litert_model).stdout == "loaded\n"


def test_without_the_runtime_it_says_what_to_install(
    litert_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(
        PackageError, match=r"pip install .*ai-edge-litert.*\. Name a model package"
    ):
        Classifier(litert_model)


def test_another_model_is_refused(tmp_path: Path) -> None:
    """With other names, or for faces of other shapes."""
    script = """
import sys, tempfile
import tensorflow as tf

def write(path, shape, entry, out, columns=7):
    module = tf.Module()
    def serve(x):
        one = tf.reduce_mean(x, axis=[1, 2]) + tf.zeros((1, columns))
        return {"logits": one, out: one * 2}
    module.serve = tf.function(serve, [tf.TensorSpec(shape, tf.float32, entry)])
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
        model = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    open(f"{sys.argv[1]}/{path}.tflite", "wb").write(model)

write("entry", (1, 48, 48, 1), "pixels", "probabilities")
write("out", (1, 48, 48, 1), "faces", "scores")
write("shape", (1, 48, 32, 1), "faces", "probabilities")
write("classes", (1, 48, 48, 1), "faces", "probabilities", columns=5)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True)
    for name, message in [
        ("entry", "not `faces`"),
        ("out", "not `logits` and `probabilities`"),
        ("shape", r"float32 \[1, 48, 32, 1\], not"),
        ("classes", r"shape \[5\], not 7"),
    ]:
        with pytest.raises(PackageError, match=message):
            Classifier(tmp_path / f"{name}.tflite")
