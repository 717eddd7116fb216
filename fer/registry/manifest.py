"""manifest.json of a model package: what it declares, and the strict reader of it.

A package may come from anyone, so the reader trusts nothing: size, depth, duplicate keys,
numbers that JSON cannot hold, file names that leave the folder or mean a device on some
system, files that could run code when loaded. The bytes are canonical (sorted keys, no
spaces, UTF-8), so equal content has an equal digest.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from fer.errors import PackageError
from fer.expressions import EXPRESSIONS

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
MODELS: Final = ("model.onnx", "model.tflite")
"""A package holds one of these: its figures are those of that file."""
MAX_MANIFEST_BYTES: Final = 1 << 20
MAX_FILES: Final = 1000

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]*(?:\.[a-z0-9_-]+)*$"
MAX_NAME: Final = 100
DIGEST_PATTERN: Final = r"^[0-9a-f]{64}$"

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
# Formats whose usual loader unpickles, and so runs what the file says.
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".ckpt", ".mar")
# Whole Keras models, whose configuration may hold code (Lambda layers) or name any class.
_KERAS = (".keras", ".h5", ".hdf5")
_MAX_DEPTH = 32


def file_name_problem(name: str) -> str | None:
    """Why `name` cannot be a file of a package, or None where it can.

    Allowed are relative paths of at most four segments of letters, digits and `._+-` with no
    leading dot: they mean the same file on every system, and none outside the folder.
    """
    if not name or len(name) > 200:
        return "is empty or longer than 200 characters"
    if "\\" in name or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is absolute or uses backslashes"
    segments = name.split("/")
    if len(segments) > 4:
        return "lies more than four folders deep"
    for segment in segments:
        if segment in {"", ".", ".."}:
            return "leaves its folder or has an empty segment"
        if segment.startswith("."):
            return "starts with a dot"
        if not _SEGMENT.fullmatch(segment):
            return "has characters other than letters, digits and ._+-"
        if segment.endswith(".") or _RESERVED.fullmatch(segment):
            return "is a reserved name on some systems"
    if name.lower() == MANIFEST:
        return "is the manifest's own name"
    if name.lower().endswith(_PICKLES):
        return "is of a format that runs code when loaded"
    if name.lower().endswith(_KERAS) and not name.lower().endswith(".weights.h5"):
        return "is a whole Keras model, which may hold code; keep its weights (NAME.weights.h5)"
    return None


class InputContract(BaseModel):
    """What the model file takes and gives.

    A model.onnx takes any n, height and width, and all preprocessing is inside its graph. A
    model.tflite takes one face in floats, already resized. Output: float32 (n, classes), rows sum
    to 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensor: str = "faces"
    dtype: Literal["uint8", "float32"] = "uint8"
    layout: str = "n,height,width,1"
    colour: Literal["grey"] = "grey"
    output: str = "probabilities"


class PackageFile(BaseModel):
    """Size in bytes and sha256 (lower-case hex) of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    size: int = Field(ge=0)
    sha256: str = Field(pattern=DIGEST_PATTERN)


class PackageManifest(BaseModel):
    """The content of manifest.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN, max_length=MAX_NAME)
    description: str = Field("", max_length=10_000)
    classes: tuple[str, ...] = Field(EXPRESSIONS, min_length=2, max_length=100)
    input: InputContract = InputContract()
    files: dict[str, PackageFile] = Field(min_length=1, max_length=MAX_FILES)
    metrics: dict[str, JsonValue] = {}
    lineage: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _check_files(self) -> PackageManifest:
        seen: set[str] = set()
        for name in self.files:
            if problem := file_name_problem(name):
                raise ValueError(f"file name {name[:80]!r} {problem}")
            # Two names that a case-insensitive file system holds for one.
            if name.lower() in seen:
                raise ValueError(f"file name {name!r} occurs twice when case is ignored")
            seen.add(name.lower())
        for name in seen:
            if any(other.startswith(name + "/") for other in seen):
                raise ValueError(f"{name!r} is both a file and a folder")
        models = [name for name in MODELS if name in self.files]
        if not models:
            raise ValueError(f"no {' or '.join(MODELS)} among the files")
        if len(models) > 1:
            raise ValueError(f"{' and '.join(models)} are both there; a package is of one model")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        return self

    @property
    def model(self) -> str:
        """Which of `MODELS` is the package's."""
        return next(name for name in MODELS if name in self.files)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files.values())

    def to_bytes(self) -> bytes:
        """The canonical bytes: what manifest.json holds and the package digest is taken of.

        Raises:
            PackageError: metrics or lineage hold what JSON cannot (NaN), or over 1 MB.
        """
        try:
            data = canonical_json(self.model_dump(mode="json"))
        except ValueError as error:
            raise PackageError(
                f"The manifest of {self.name!r} cannot be written as JSON ({error}). "
                "Correct its metrics or lineage."
            ) from None
        if len(data) > MAX_MANIFEST_BYTES:
            raise PackageError(
                f"The manifest of {self.name!r} has {len(data):,} bytes; at most "
                f"{MAX_MANIFEST_BYTES:,} are allowed. Put large tables into files of the package."
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes, where: object = MANIFEST) -> PackageManifest:
        """Read manifest bytes; `where` names them in messages.

        Raises:
            PackageError: damaged, hostile, or of a newer schema.
        """
        try:
            document = parse_json(data, MAX_MANIFEST_BYTES)
            if not isinstance(document, dict):
                raise ValueError("it is no JSON object")
            check_schema_version(document.get("schema_version"), SCHEMA_VERSION)
            return cls.model_validate(document)
        except ValidationError as error:
            reason = describe(error)
        except ValueError as error:
            reason = str(error)
        raise PackageError(
            f"{where} cannot be trusted: {reason}. Nothing of it was loaded; get the package "
            "again from its registry, or build it anew with `dvc repro package`."
        )


def describe(error: ValidationError) -> str:
    """The first problem of a pydantic error in one line."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part)[:80] for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def check_schema_version(found: object, known: int) -> None:
    """Refuse a document of a newer schema.

    Raises:
        ValueError: newer than `known`, or no version at all.
    """
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ValueError("it states no schema_version")
    if found > known:
        raise ValueError(
            f"it has schema version {found}, this installation reads up to {known}: "
            "upgrade with `pip install --upgrade fer-workflow`"
        )


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys, no spaces, UTF-8: equal content, equal bytes.

    Raises:
        ValueError: a number or text that JSON or UTF-8 cannot hold.
    """
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def parse_json(data: bytes, limit: int) -> Any:
    """Parse JSON from an untrusted source.

    Raises:
        ValueError: longer than `limit`, not JSON, nested too deeply, a key twice, a number
            that is not finite.
    """
    if len(data) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    if data.lstrip()[:1] == b"<":
        raise ValueError("it is HTML or XML, not JSON")
    try:
        document = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON, or cut short ({error})") from None
    _check_depth(document, _MAX_DEPTH)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _check_depth(document: Any, left: int) -> None:
    if left == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(document, dict):
        for value in document.values():
            _check_depth(value, left - 1)
    elif isinstance(document, list):
        for value in document:
            _check_depth(value, left - 1)
