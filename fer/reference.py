"""The model that ships with the library: used where no model is named and no registry is.

It is a model package made from the reference run, small enough for a wheel: its weights are
stored as float16 and cast back when the model is loaded, so it computes in float32 as the full
one does. `lineage` in its manifest says what it was trained from; docs/record.py makes it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from fer.errors import ModelReferenceError
from fer.registry.package import ModelPackage, write_package

FOLDER: Final = Path(__file__).with_name("reference_model")
_FILES: Final = ("network.json", "metrics.json", "per_class.csv", "reference.json", "card.md")


def reference_package() -> ModelPackage:
    """The shipped package, checked.

    Raises:
        ModelReferenceError: this copy of the library has none.
    """
    if not FOLDER.is_dir():
        raise ModelReferenceError(
            "This copy of the library ships no model. Name one: --model, or Recognizer.load(...)."
        )
    return ModelPackage.open(FOLDER)


def make_reference(package: Path, out: Path = FOLDER) -> ModelPackage:
    """Make the shipped package from a full one.

    Raises:
        PackageError: no package, or one that lacks what ships.
    """
    full = ModelPackage.open(package)
    with tempfile.TemporaryDirectory() as name:
        small = Path(name) / "model.onnx"
        small.write_bytes(_with_half_weights(full.file("model.onnx")))
        return write_package(
            out,
            name=full.manifest.name,
            description=full.manifest.description,
            files={"model.onnx": small} | {one: full.file(one) for one in _FILES},
            metrics=full.manifest.metrics,
            lineage=full.manifest.lineage
            | {"weights_stored_as": "float16", "made_of": full.digest},
        )


def _with_half_weights(model: Path) -> bytes:
    """The same model with its weights as float16, each with a cast to float32 in front."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    document: Any = onnx.load(model)
    graph = document.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < 8:
            continue  # shapes and scalars, the calibration's too, stay as they are
        name, half = tensor.name, f"{tensor.name}_half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [name], name=half, to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(document)
    data: bytes = document.SerializeToString(deterministic=True)
    return data
