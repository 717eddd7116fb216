"""From a model package to one whose model is in integers: smaller, faster, with its own figures.

It is another model, so nothing of the first one's figures is taken over: it is calibrated,
evaluated and described anew, and as a registered version the gate compares it like any other.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from fer.errors import TrainingError
from fer.evaluation.evaluate import evaluate
from fer.evaluation.report import read_per_class
from fer.evaluation.robustness import read_robustness
from fer.files import write_json, write_text
from fer.packaging import drift_reference, read_output
from fer.params import Params
from fer.registry.manifest import InputContract
from fer.registry.package import ModelPackage, write_package
from fer.reports.card import card_page, model_card
from fer.training import start

_EVALUATED: Final = (
    "metrics.json",
    "per_class.csv",
    "robustness.json",
    "robustness.png",
    "confusion.png",
    "reliability.png",
)
_VERSIONS: Final = ("ai-edge-litert", "litert-quantizer")


def quantize_package(
    params: Params,
    *,
    package: Path,
    prepared: Path,
    source: Path,
    out: Path,
) -> ModelPackage:
    """Make a package of the same name with model.tflite, in int8, in place of model.onnx.

    Args:
        params: all of params.yaml.
        package: the package, whose model is in floats.
        prepared: folder of the prepared table.
        source: folder of the source table.
        out: the new package; one that is there is replaced.

    Raises:
        PackageError: no package, or its model is not this project's EfficientNetB2, or what the
            data stages write is missing.
        TrainingError: quantising failed, or costs too much validation accuracy, or is not
            installed.
        TableError: no prepared table.
    """
    versions = _versions()
    full = ModelPackage.open(package)
    faces = prepared / "faces.parquet"
    data, origin = read_output(prepared / "manifest.json"), read_output(source / "source.json")
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        start.quantize(full.folder, faces, made)
        evaluate(
            faces=faces,
            model=made,
            ferplus=source / "ferplus.parquet",
            params=params.evaluate,
            seed=params.seed,
            out=made,
        )
        description = f"{full.manifest.description} In 8-bit integers.".strip()
        metrics = read_output(made / "metrics.json")
        lineage = _lineage(full, read_output(made / "quantization.json"), versions)
        card = model_card(
            name=full.name,
            description=description,
            metrics=metrics,
            lineage=lineage,
            data=data,
            source=origin,
            per_class=read_per_class(made / "per_class.csv"),
            latency=read_output(made / "latency.json"),
            robustness=read_robustness(made / "robustness.json"),
        )
        write_text(made / "card.md", card)
        write_text(made / "card.html", card_page(card))
        write_json(made / "reference.json", drift_reference(made / "predictions.parquet"))
        files = ("model.tflite", *_EVALUATED, "card.md", "card.html", "reference.json")
        return write_package(
            out,
            name=full.name,
            description=description,
            files={one: made / one for one in files} | {"network.json": full.file("network.json")},
            metrics=metrics,
            lineage=lineage,
            input_contract=InputContract(dtype="float32", layout="1,48,48,1"),
        )


def _versions() -> dict[str, str]:
    """Of what quantises, which is an extra."""
    try:
        return {one: version(one) for one in _VERSIONS}
    except PackageNotFoundError as error:
        raise TrainingError(
            f"{error.name} is not installed. Install the extra quantize: pip install -c "
            "constraints.txt '.[train,cpu,quantize]'"
        ) from None


def _lineage(
    full: ModelPackage, quantization: dict[str, Any], versions: dict[str, str]
) -> dict[str, Any]:
    """Where the weights came from, and what was done to them."""
    kept: dict[str, Any] = full.manifest.lineage
    return kept | {
        "quantization": quantization,
        "made_of": full.digest,
        "versions": kept.get("versions", {}) | versions,
    }
