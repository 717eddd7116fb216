"""Stage package: what training and evaluation made becomes one model package."""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from fer.errors import PackageError
from fer.evaluation.calibration import Calibration
from fer.evaluation.report import read_per_class
from fer.evaluation.robustness import read_robustness
from fer.expressions import EXPRESSIONS
from fer.files import write_json, write_text
from fer.lineage import Lineage
from fer.params import Params
from fer.registry.package import ModelPackage, write_package
from fer.reports.card import card_page, model_card

_VERSIONS: Final = ("keras", "tensorflow", "tensorflow-cpu", "jax", "numpy", "onnxruntime", "dvc")
_QUANTILES: Final = tuple(step / 20 for step in range(21))


def package_model(
    params: Params,
    *,
    trained: Path,
    exported: Path,
    evaluation: Path,
    prepared: Path,
    source: Path,
    out: Path,
    project: Path = Path(),
) -> ModelPackage:
    """Assemble the package: calibrated model, weights, network, card, figures and lineage.

    Args:
        params: all of params.yaml.
        trained: folder of the training (network.json, network.weights.h5, training.json ...).
        exported: folder of model.onnx.
        evaluation: folder of the evaluation's reports.
        prepared: folder of the prepared table.
        source: folder of the source table.
        out: the package; one that is there is replaced.
        project: folder of dvc.lock and of the git checkout.

    Raises:
        PackageError: something that belongs into the package is missing.
        TableError: per_class.csv or robustness.json is missing or none of ours.
    """
    metrics = read_output(evaluation / "metrics.json")
    training = read_output(trained / "training.json")
    data = read_output(prepared / "manifest.json")
    origin = Lineage.of(project)
    lineage = {
        "git_commit": origin.commit,
        "git_changed": origin.changed,
        "dvc": {path: digest for path, digest in origin.outputs.items() if "data" in path},
        "params": params.train.model_dump(mode="json") | {"seed": params.seed},
        "training": {
            name: training[name]
            for name in (
                "backend",
                "best_epoch",
                "devices",
                "epochs",
                "initial_weights",
                "training_images",
            )
        },
        "versions": _versions(),
    }
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        calibration = Calibration(metrics["temperature"], metrics.get("curvature", 0.0))
        _calibrate(exported / "model.onnx", calibration, made / "model.onnx")
        write_json(made / "reference.json", drift_reference(evaluation / "predictions.parquet"))
        card = model_card(
            name=params.package.name,
            description=params.package.description,
            metrics=metrics,
            lineage=lineage,
            data=data,
            source=read_output(source / "source.json"),
            per_class=read_per_class(evaluation / "per_class.csv"),
            latency=read_output(evaluation / "latency.json"),
            robustness=read_robustness(evaluation / "robustness.json"),
        )
        write_text(made / "card.md", card)
        write_text(made / "card.html", card_page(card))
        files = {
            "model.onnx": made / "model.onnx",
            "network.json": trained / "network.json",
            "network.weights.h5": trained / "network.weights.h5",
            "metrics.json": evaluation / "metrics.json",
            "per_class.csv": evaluation / "per_class.csv",
            "robustness.json": evaluation / "robustness.json",
            "robustness.png": evaluation / "robustness.png",
            "confusion.png": evaluation / "confusion.png",
            "reliability.png": evaluation / "reliability.png",
            "history.csv": trained / "history.csv",
            "curves.png": trained / "curves.png",
            "reference.json": made / "reference.json",
            "card.md": made / "card.md",
            "card.html": made / "card.html",
        }
        return write_package(
            out,
            name=params.package.name,
            description=params.package.description,
            files=files,
            metrics=metrics,
            lineage=lineage,
        )


def _calibrate(model: Path, calibration: Calibration, out: Path) -> None:
    """Copy the model with its calibration in it: its probabilities are then calibrated."""
    import onnx
    from onnx import TensorProto, helper

    document = onnx.load(model)
    graph = document.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    if "temperature" not in tensors:
        raise PackageError(f"{model} has no scalar `temperature`. Export it again: fer export")
    scalar = helper.make_tensor("temperature", TensorProto.FLOAT, [], [calibration.temperature])
    tensors["temperature"].CopyFrom(scalar)
    if calibration.curvature:
        _bend(graph, calibration.curvature)
    onnx.checker.check_model(document)
    out.write_bytes(document.SerializeToString(deterministic=True))


def _bend(graph: Any, curvature: float) -> None:
    """Take `curvature` times the squared distance below the highest logit off, before softmax."""
    from onnx import TensorProto, helper

    (place,) = (at for at, node in enumerate(graph.node) if "probabilities" in node.output)
    softmax = graph.node[place]
    nodes = [
        helper.make_node("ReduceMax", ["logits", "fer_last"], ["fer_highest"], keepdims=1),
        helper.make_node("Sub", ["fer_highest", "logits"], ["fer_below"]),
        helper.make_node("Mul", ["fer_below", "fer_below"], ["fer_squared"]),
        helper.make_node("Mul", ["fer_squared", "curvature"], ["fer_bend"]),
        helper.make_node("Sub", [softmax.input[0], "fer_bend"], ["fer_bent"]),
    ]
    softmax.input[0] = "fer_bent"
    for node in nodes:
        node.name = node.output[0]
    nodes = [*graph.node[:place], *nodes, *graph.node[place:]]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        [
            helper.make_tensor("fer_last", TensorProto.INT64, [1], [-1]),
            helper.make_tensor("curvature", TensorProto.FLOAT, [], [curvature]),
        ]
    )


def drift_reference(predictions: Path) -> dict[str, Any]:
    """What the model said of the test set: what drift is measured against.

    Args:
        predictions: predictions.parquet of an evaluation.

    Returns:
        Shares of the predicted expressions, and quantiles of the confidence at 0, 5, ... 100 %.
    """
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(predictions)
    table = table.filter(np.asarray(table["split"].to_pylist()) == "test")
    probabilities = np.stack([table[f"p_{name}"].to_numpy() for name in EXPRESSIONS], axis=1)
    shares = np.bincount(probabilities.argmax(axis=1), minlength=len(EXPRESSIONS))
    confidence = np.quantile(probabilities.max(axis=1), _QUANTILES)
    return {
        "schema": "fer-reference/1",
        "images": len(probabilities),
        "expressions": {
            name: round(float(share), 6)
            for name, share in zip(EXPRESSIONS, shares / len(probabilities), strict=True)
        },
        "confidence_quantiles": [round(float(value), 6) for value in confidence],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_output(path: Path) -> Any:
    """A JSON file that a stage wrote.

    Raises:
        PackageError: absent or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(f"{path} does not exist. Run the stages before: dvc repro") from None
    except ValueError as error:
        raise PackageError(f"{path} is damaged ({error}). Run dvc repro.") from None
