"""The model that ships with the library: used where no model is named and no registry is.

It is what `fer quantize` makes of the reference run, in 8-bit integers: small enough for a wheel,
and the fastest of the engines that keep the accuracy (docs/engines.md). Its figures are its own.
`lineage` in its manifest says what it was trained from; docs/record.py makes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fer.errors import ModelReferenceError
from fer.registry.package import ModelPackage, write_package

FOLDER: Final = Path(__file__).with_name("reference_model")
_FILES: Final = (
    "model.tflite",
    "network.json",
    "metrics.json",
    "per_class.csv",
    "reference.json",
    "card.md",
)


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
    """Make the shipped package from one in integers: the same without its pictures and pages.

    Raises:
        PackageError: no package, or one that lacks what ships.
    """
    full = ModelPackage.open(package)
    return write_package(
        out,
        name=full.manifest.name,
        description=full.manifest.description,
        files={name: full.file(name) for name in _FILES},
        metrics=full.manifest.metrics,
        lineage=full.manifest.lineage,
        input_contract=full.manifest.input,
    )
