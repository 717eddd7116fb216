"""params.yaml as typed, validated objects. This module is its only reader."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fer.errors import ParamsError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[float, float]


class Section(BaseModel):
    """A part of params.yaml: every key is required and no other is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name, value in self:
            if isinstance(value, tuple) and len(value) == 2 and value[0] > value[1]:
                raise ValueError(f"{name}: {list(value)} has its bounds the wrong way round")
        return self


class SyntheticParams(Section):
    """Faces drawn by `fer.dataset.synthetic`."""

    images_per_class: int = Field(ge=10)
    duplicates: Share


class DataParams(Section):
    """Stage fetch: where the images come from."""

    source: str
    handle: str
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    synthetic: SyntheticParams


class ValidateParams(Section):
    """Stage validate: bounds of the data gate."""

    min_rows: dict[Literal["train", "validation", "test"], int]
    class_share: Range
    max_blanks: int = Field(ge=0)
    max_duplicate_share: Share
    max_conflicting: int = Field(ge=0)
    mean_grey: Range
    grey_spread: Range


class PrepareParams(Section):
    """Stage prepare: cleaning and splits."""

    validation_share: float = Field(gt=0, lt=0.5)
    drop_blanks: bool
    blank_spread: float = Field(ge=0)
    drop_twins: bool
    near_twin_correlation: float = Field(gt=0.5, le=1)
    near_twin_shift: int = Field(ge=0, le=12)


class HeadParams(Section):
    """Phase 1: the backbone frozen."""

    epochs: int = Field(ge=0)
    learning_rate: Positive


class FinetuneParams(Section):
    """Phase 2: everything trains."""

    epochs: int = Field(ge=0)
    learning_rate: Positive
    warmup_epochs: float = Field(ge=0)
    weight_decay: float = Field(ge=0)


class EarlyStoppingParams(Section):
    """When phase 2 ends before its last epoch."""

    patience: int = Field(ge=1)
    min_delta: float = Field(ge=0)


class AugmentParams(Section):
    """Random changes of training images."""

    flip: bool
    shift: float = Field(ge=0, le=0.5)
    scale: float = Field(ge=0, le=0.5)
    rotation: float = Field(ge=0, le=45)
    brightness: float = Field(ge=0, le=1)
    contrast: float = Field(ge=0, lt=1)
    erase: Share
    erase_area: Range


class TrainParams(Section):
    """Stage train."""

    input_size: int = Field(ge=32, le=260)
    weights: str
    batch_size: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    label_smoothing: float = Field(ge=0, lt=1)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    deterministic: bool
    head: HeadParams
    finetune: FinetuneParams
    early_stopping: EarlyStoppingParams
    augment: AugmentParams

    @model_validator(mode="after")
    def _some_epochs(self) -> Self:
        if self.head.epochs + self.finetune.epochs == 0:
            raise ValueError("head.epochs and finetune.epochs are both 0: nothing would train")
        return self


class EvaluateParams(Section):
    """Stage evaluate."""

    confidence: float = Field(gt=0.5, lt=1)
    bootstrap: int = Field(ge=100)
    calibration_bins: int = Field(ge=2)
    latency_runs: int = Field(ge=1)


class PackageParams(Section):
    """Stage package."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    description: str


class GateParams(Section):
    """What a version must reach before it becomes champion."""

    min_accuracy: Share
    min_macro_f1: Share
    max_calibration_error: Share
    max_accuracy_drop: Share


DetectorName = Literal["dlib-hog", "opencv-yunet"]


class FacesParams(Section):
    """Detection and crop. Has defaults: pictures are analysed far from any params.yaml too."""

    detector: DetectorName = "dlib-hog"
    upsample: int = Field(default=1, ge=0, le=3)
    max_side: int = Field(default=1600, ge=64)
    min_score: float | None = None
    margin: float = Field(default=0.0, ge=-0.5, le=2)
    max_megapixels: float = Field(default=150, gt=0)


class Params(Section):
    """The whole file."""

    seed: int = Field(ge=0, lt=2**31)
    data: DataParams
    validate_: ValidateParams = Field(alias="validate")
    prepare: PrepareParams
    train: TrainParams
    evaluate: EvaluateParams
    package: PackageParams
    gate: GateParams
    faces: FacesParams


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params.yaml.

    Raises:
        ParamsError: the file is absent, is no YAML, or has a key that is misspelt, missing or
            out of range. The message names the key, and the nearest valid one.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path} does not exist. Run from the project's folder, or name one with --params."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(document, dict):
        raise ParamsError(f"{path} holds no mapping; start from the project's own params.yaml.")
    return parse_params(document, str(path))


def parse_params(document: dict[str, Any], origin: str = "params") -> Params:
    """Check an already parsed document; see `load_params`."""
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        # Unknown keys first: a misspelt key is also reported as a missing one.
        ranked = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        first = ranked[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            text = f"unknown key '{where}'{_suggestion(tuple(map(str, first['loc'])))}"
        elif first["type"] == "missing":
            text = f"'{where}' is missing"
        else:
            text = f"'{where}': {first['msg']} (it is {first['input']!r})"
        more = f" ({len(ranked) - 1} more)" if len(ranked) > 1 else ""
        raise ParamsError(f"{origin}: {text}{more}.") from None


def _suggestion(location: tuple[str, ...]) -> str:
    """'. Did you mean ...?' for an unknown key, or nothing."""
    section: type[BaseModel] = Params
    for part in location[:-1]:
        for name, field in section.model_fields.items():
            annotation = field.annotation
            if (field.alias or name) == part and isinstance(annotation, type):
                if issubclass(annotation, BaseModel):
                    section = annotation
                break
    names = [field.alias or name for name, field in section.model_fields.items()]
    nearest = difflib.get_close_matches(location[-1], names, n=1, cutoff=0.4)
    if nearest:
        return "; did you mean '" + ".".join([*location[:-1], nearest[0]]) + "'?"
    return f"; valid keys here are {', '.join(names)}"


DETECTORS: tuple[str, ...] = get_args(DetectorName)
