"""A network as a LiteRT model, in floats and in integers.

Weights and activations become int8, each tensor with a scale of its own. A few activations are many
times as large as the others, and 256 steps from there to zero would leave nothing to tell those
apart: the outermost are clipped. What has the widest ranges, and what is little work, stays in
floats. benchmarks/engines.py measures what that costs and gains.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer.evaluation.calibration import AS_TRAINED, Calibration

CLIPPED: Final = 0.2
"""Per cent of a tensor's values at either end that are clipped; chosen on validation."""
FLOATS: Final = ("stem", "block1", "block2", "block3")
"""Parts of the backbone that stay in floats; chosen likewise."""

_ENDS: Final = ("enlarge", "grey_to_rgb", "rescaling", "normalization", "pool", "feature_norm")
_OUTPUTS: Final = ("logits", "calibration", "StatefulPartitionedCall")
_PER_FACE: Final = 400
"""Values of a tensor that are kept of each face: percentiles need no more."""

Ranges = Mapping[str, Mapping[str, NDArray[Any]]]


def float_model(network: Any, calibration: Calibration = AS_TRAINED) -> bytes:
    """The network with its calibration, float32, as a LiteRT model.

    Its signature takes `faces`, float32 (1, side, side, 1) in grey levels, and gives `logits` and
    `probabilities`, float32 (1, 7). A batch that is not fixed would split the graph at every
    squeeze and excitation.
    """
    import keras
    import tensorflow as tf

    def serve(faces: Any) -> dict[str, Any]:
        logits = tf.identity(network(faces, training=False), name="logits")
        with tf.name_scope("calibration"):
            below = tf.reduce_max(logits, axis=-1, keepdims=True) - logits
            scaled = -below / calibration.temperature - calibration.curvature * below * below
            return {"logits": logits, "probabilities": tf.nn.softmax(scaled)}

    archive = keras.export.ExportArchive()
    archive.track(network)
    shape = (1, *network.input_shape[1:])
    archive.add_endpoint("serve", serve, [keras.InputSpec(shape=shape, dtype="float32")])
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        return bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def ranges(model: bytes, crops: NDArray[np.uint8]) -> Ranges:
    """Of each tensor that a float model computes: what int8 has to cover.

    Args:
        model: what `float_model` gives.
        crops: training faces, (n, side, side).
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Delegates compute many layers at once and leave what is between them nowhere to be seen.
    interpreter = Interpreter(
        model_content=model,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    computed = {entry}.union(*(one["outputs"] for one in interpreter._get_ops_details()))
    tensors = [
        one
        for one in interpreter.get_tensor_details()
        if one["index"] in computed and one["dtype"] is np.float32
    ]
    seen: dict[str, list[NDArray[np.float32]]] = {one["name"]: [] for one in tensors}
    for number, crop in enumerate(crops):
        interpreter.set_tensor(entry, crop[None, ..., None].astype(np.float32))
        interpreter.invoke()
        for one in tensors:
            values = interpreter.get_tensor(one["index"]).ravel()
            # Chosen alike whatever other tensors there are: a calibration adds some.
            chosen = np.random.default_rng(number).choice(values, _PER_FACE)
            seen[one["name"]].append(chosen)
    found = {}
    for name, parts in seen.items():
        low, high = np.percentile(np.concatenate(parts), [CLIPPED, 100 - CLIPPED])
        found[name] = {"min": np.array(low), "max": np.array(high)}
    return found


def in_integers(model: bytes, covered: Ranges) -> bytes:
    """A float model with most of its weights and activations in int8; floats in and out.

    Args:
        model: what `float_model` gives.
        covered: what `ranges` gives for it.
    """
    from litert_quantizer.quantizer import Quantizer

    quantizer = Quantizer(bytearray(model))
    quantizer.add_static_config(".*", "*", activation_num_bits=8, weight_num_bits=8)
    for kind in ("INPUT", "OUTPUT"):
        quantizer.update_quantization_recipe(".*", kind, algorithm_key="no_quantize")
    for part in (*FLOATS, *_ENDS, *_OUTPUTS):
        quantizer.update_quantization_recipe(part, "*", algorithm_key="no_quantize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the quantizer's own interpreter warns of its memory
        found = quantizer.quantize(dict(covered), enable_progress_report=False)
    return bytes(found.quantized_model)
