"""Facial expressions: FER2013, training, a model registry, and recognition of faces.

    from fer import Recognizer

    recognizer = Recognizer.load("fer2013-efficientnetb2@champion", registry="s3://models/fer")
    for face in recognizer.analyze("photo.jpg"):
        print(face.prediction.expression, face.prediction.confidence)

Importing this package imports nothing heavy: each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer.errors import FerError
    from fer.expressions import EXPRESSIONS, Expression
    from fer.inference.recognizer import Recognizer
    from fer.params import FacesParams, Params, load_params
    from fer.registry.package import ModelPackage
    from fer.registry.registry import Registry

__all__ = [
    "EXPRESSIONS",
    "Expression",
    "FacesParams",
    "FerError",
    "ModelPackage",
    "Params",
    "Recognizer",
    "Registry",
    "load_params",
]

_HOME = {
    "EXPRESSIONS": "fer.expressions",
    "Expression": "fer.expressions",
    "FacesParams": "fer.params",
    "FerError": "fer.errors",
    "ModelPackage": "fer.registry.package",
    "Params": "fer.params",
    "Recognizer": "fer.inference.recognizer",
    "Registry": "fer.registry.registry",
    "load_params": "fer.params",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fer' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
