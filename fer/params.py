"""params.yaml as typed, validated objects. This module is its only reader."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from fer.errors import ParamsError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[float, float]


class Section(BaseModel):
    """A part of params.yaml: every key is required and no other is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic takes true for 1, and YAML takes `on` and `yes` for true.
        if isinstance(value, bool):
            field = cls.model_fields[str(info.field_name)]
            if field.annotation in (int, float):
                raise ValueError("a number is wanted")
        return value

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name, value in self:
            numbers = isinstance(value, tuple) and all(isinstance(one, float) for one in value)
            if numbers and len(value) == 2 and value[0] > value[1]:
                raise ValueError(f"{name}: {list(value)} has its bounds the wrong way round")
        return self


class SyntheticParams(Section):
    """Faces drawn by `fer.dataset.synthetic`."""

    images_per_class: int = Field(ge=10)
    duplicates: Share


class DataParams(Section):
    """Stage fetch: where the images come from."""

    source: str = Field(min_length=1)
    handle: str = Field(pattern=r"^[\w.-]+/[\w.-]+(/versions/[0-9]+)?$")
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    synthetic: SyntheticParams


class ValidateParams(Section):
    """Stage validate: bounds of the data gate."""

    min_rows: dict[Literal["train", "validation", "test"], Annotated[int, Field(ge=0)]]
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
    clip_norm: float = Field(gt=0)
    average: float = Field(ge=0, lt=1)


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
    far: Share
    noise: Share
    erase: Share
    erase_area: Range


class SizeParams(Section):
    """Epochs of progressive resizing at one size."""

    size: int = Field(ge=32, le=260)
    epochs: int = Field(ge=1)


class MixupParams(Section):
    """Blended and patched pairs of training images."""

    alpha: float = Field(ge=0)
    cutmix: Share
    off_epochs: int = Field(ge=0)


class TrainParams(Section):
    """Stage train."""

    input_size: int = Field(ge=32, le=260)
    smaller_first: tuple[SizeParams, ...]
    weights: str
    batch_size: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    label_smoothing: float = Field(ge=0, lt=1)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    deterministic: bool
    head: HeadParams
    finetune: FinetuneParams
    early_stopping: EarlyStoppingParams
    mixup: MixupParams
    augment: AugmentParams

    @property
    def epochs(self) -> int:
        """Epochs of both phases."""
        return self.head.epochs + self.finetune.epochs

    def size_in(self, epoch: int) -> int:
        """Input size in an epoch, in pixels; epochs count from 1."""
        for one in self.smaller_first:
            if epoch <= one.epochs:
                return one.size
            epoch -= one.epochs
        return self.input_size

    def mixup_in(self, epoch: int) -> float:
        """Mixup's alpha in an epoch; 0 in the last ones, which see faces as they are."""
        return self.mixup.alpha if epoch <= self.epochs - self.mixup.off_epochs else 0.0

    def cutmix_in(self, epoch: int) -> float:
        """Share of images with a patch of another in an epoch; 0 where mixup is off."""
        return self.mixup.cutmix if epoch <= self.epochs - self.mixup.off_epochs else 0.0

    @model_validator(mode="after")
    def _some_epochs(self) -> Self:
        if self.epochs == 0:
            raise ValueError("head.epochs and finetune.epochs are both 0: nothing would train")
        if self.smaller_first and self.epochs <= sum(one.epochs for one in self.smaller_first):
            raise ValueError("smaller_first leaves no epoch at input_size")
        return self


class EvaluateParams(Section):
    """Stage evaluate."""

    confidence: float = Field(gt=0.5, lt=1)
    bootstrap: int = Field(ge=100)
    calibration_bins: int = Field(ge=2)
    latency_runs: int = Field(ge=1)
    views: int
    robustness_images: int = Field(ge=1)

    @field_validator("views")
    @classmethod
    def _known_views(cls, value: int) -> int:
        if value not in (1, 2, 10):
            raise ValueError("1, 2 or 10 is wanted")
        return value


class PackageParams(Section):
    """Stage package."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    description: str


class RecallParams(Section):
    """The least recall of each expression; 0 asks nothing."""

    angry: Share
    disgust: Share
    fear: Share
    happy: Share
    sad: Share
    surprise: Share
    neutral: Share


class GateParams(Section):
    """What a version must reach before it becomes champion."""

    min_accuracy: Share
    min_macro_f1: Share
    max_calibration_error: Share
    max_accuracy_drop: Share
    significance: float = Field(ge=0, lt=1)
    min_recall: RecallParams
    max_latency_ms: Positive


DetectorName = Literal["dlib-hog", "dlib-mmod", "opencv-yunet"]


class FacesParams(Section):
    """Detection and crop. Has defaults: pictures are analysed far from any params.yaml too."""

    detector: DetectorName = "dlib-hog"
    upsample: int = Field(default=1, ge=0, le=3)
    max_side: int = Field(default=1600, ge=64)
    min_score: float | None = None
    margin: float = Field(default=0.0, ge=-0.5, le=2)
    align: bool = False
    max_megapixels: float = Field(default=150, gt=0)


class TimelineParams(Section):
    """From probabilities frame by frame to episodes. Changing it needs no second analysis."""

    smoothing: float = Field(default=0.15, ge=0)
    baseline: bool = False
    enter: float = Field(default=0.5, ge=0, le=1)
    leave: float = Field(default=0.35, ge=0, le=1)
    min_episode: float = Field(default=0.3, ge=0)
    max_gap: float = Field(default=0.5, gt=0)

    @model_validator(mode="after")
    def _leave_below_enter(self) -> Self:
        if self.leave > self.enter:
            raise ValueError("leave is above enter: an episode would end where it begins")
        return self


class VideoParams(Section):
    """Frames, tracks and episodes of a video. Has defaults, as `FacesParams` has."""

    sample_fps: float | None = Field(default=None, gt=0)
    detect_interval: float = Field(default=0.2, ge=0)
    small_interval: float = Field(default=0.6, ge=0)
    classify_interval: float = Field(default=0.1, ge=0, le=1)
    max_side: int = Field(default=960, ge=64)
    max_carried: float = Field(default=0.6, ge=0)
    max_missing: float = Field(default=1.5, ge=0)
    cut_correlation: float = Field(default=0.4, ge=-1, le=1)
    timeline: TimelineParams = TimelineParams()


class MonitoringParams(Section):
    """What counts as drift. Has defaults: results are watched far from any params.yaml too."""

    baseline_faces: int = Field(default=1000, ge=1)
    window_days: float = Field(default=7, gt=0)
    min_faces: int = Field(default=200, ge=20)
    significance: float = Field(default=0.01, gt=0, lt=1)
    max_psi: float = Field(default=0.2, gt=0)
    max_share_effect: float = Field(default=0.2, gt=0, le=3.15)
    max_ks: float = Field(default=0.15, gt=0, le=1)

    @model_validator(mode="after")
    def _baseline_is_enough(self) -> Self:
        if self.baseline_faces < self.min_faces:
            raise ValueError("baseline_faces is below min_faces: no baseline would ever do")
        return self


def _changes_of(section: type[Section]) -> Any:
    """The section with every key optional, and so with the sections in it."""
    fields: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            kind = _changes_of(kind)
        fields[name] = (kind | None, None)
    return create_model(f"{section.__name__}Changes", __base__=Section, **fields)


if TYPE_CHECKING:
    TrainChanges = TrainParams
else:
    TrainChanges = _changes_of(TrainParams)

ProfileName = Literal["cpu", "gpu"]


class ProfilesParams(Section):
    """What each profile changes in `train`. Values are checked where they have been put there."""

    cpu: TrainChanges
    gpu: TrainChanges


class Params(Section):
    """The whole file. `train` is what the chosen profile makes of the section of that name."""

    seed: int = Field(ge=0, lt=2**31)
    data: DataParams
    validate_: ValidateParams = Field(alias="validate")
    prepare: PrepareParams
    profile: ProfileName
    profiles: ProfilesParams
    train: TrainParams
    evaluate: EvaluateParams
    package: PackageParams
    gate: GateParams
    faces: FacesParams
    video: VideoParams = VideoParams()
    monitoring: MonitoringParams = MonitoringParams()

    @model_validator(mode="before")
    @classmethod
    def _profile_changes_train(cls, document: Any) -> Any:
        """Give `train` what the chosen profile says; what is of another type fails later."""
        if not isinstance(document, dict):
            return document
        train, profiles = document.get("train"), document.get("profiles")
        if not isinstance(profiles, dict) or not isinstance(train, dict):
            return document
        chosen = profiles.get(str(document.get("profile")))
        return document | {"train": merged(train, chosen)} if isinstance(chosen, dict) else document


def merged(section: Mapping[Any, Any], changes: Mapping[Any, Any]) -> dict[Any, Any]:
    """A section of params.yaml, or all of it, with some of its keys, at any depth, replaced."""
    both = dict(section)
    for key, value in changes.items():
        inner = both.get(key)
        both[key] = (
            merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
        )
    return both


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params.yaml.

    Raises:
        ParamsError: the file is absent, is no YAML, or has a key that is misspelt, missing or
            out of range. The message names the key, and the nearest valid one.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - safe
    except FileNotFoundError:
        raise ParamsError(
            f"{path} does not exist. Run from the project's folder, or name one with --params."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        # Dates and numbers that cannot be are ValueErrors.
        text = " ".join(str(error).split())
        raise ParamsError(f"{path} cannot be read as YAML: {text}") from None
    if not isinstance(document, dict):
        raise ParamsError(f"{path} holds no mapping; start from the project's own params.yaml.")
    return parse_params(document, str(path))


class _Loader(yaml.SafeLoader):
    """YAML in which a key may stand once: of two values, one would be dropped in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def parse_params(document: dict[Any, Any], origin: str = "params") -> Params:
    """Check an already parsed document; see `load_params`."""
    params = _validated(document, origin)
    for profile in get_args(ProfileName):
        if profile != params.profile:
            _validated(document | {"profile": profile}, f"{origin} with profile {profile}")
    return params


def _validated(document: dict[Any, Any], origin: str) -> Params:
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        # Unknown keys first: a misspelt key is also reported as a missing one.
        unknown = [one for one in problems if one["type"] == "extra_forbidden"]
        missing = [one for one in problems if one["type"] == "missing"]
        others = [one for one in problems if one not in unknown and one not in missing]
        ranked = [*unknown, *others, *missing[len(unknown) :]]
        more = f" ({len(ranked) - 1} more)" if len(ranked) > 1 else ""
        text = f"{origin}: {_sentence(ranked[0])}{more}"
        raise ParamsError(text if text.endswith("?") else f"{text}.") from None


def _sentence(problem: ErrorDetails) -> str:
    """What is wrong with one key, in words."""
    location = tuple(str(part) for part in problem["loc"] if part != "[key]")
    where = ".".join(_printable(part) for part in location) or "the file"
    if problem["type"] == "extra_forbidden" or problem["loc"][-1:] == ("[key]",):
        return f"unknown key '{where}'{_suggestion(location)}"
    if problem["type"] == "missing":
        return f"'{where}' is missing"
    text = problem["msg"].removeprefix("Value error, ")
    given = repr(problem["input"])
    # A check of a whole section names the value itself.
    if isinstance(problem["input"], dict) and problem["type"] == "value_error":
        return f"'{where}': {text}"
    return f"'{where}': {text} (it is {given if len(given) <= 80 else given[:77] + '...'})"


def _printable(key: str) -> str:
    """A key as one line can show it: quoted YAML keys may hold line breaks."""
    return key if key.isprintable() else repr(key)[1:-1]


def _suggestion(location: tuple[str, ...]) -> str:
    """'. Did you mean ...?' for an unknown key, or nothing."""
    section: type[BaseModel] = Params
    for part in location[:-1]:
        for name, field in section.model_fields.items():
            if (field.alias or name) != part:
                continue
            kinds = (field.annotation, *get_args(field.annotation))
            inner = [one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)]
            if inner:
                section = inner[0]
            elif get_origin(field.annotation) is dict:
                names = [str(key) for key in get_args(get_args(field.annotation)[0])]
                return _nearest(location, names)
            break
    names = [field.alias or name for name, field in section.model_fields.items()]
    return _nearest(location, names)


def _nearest(location: tuple[str, ...], names: list[str]) -> str:
    nearest = difflib.get_close_matches(location[-1], names, n=1, cutoff=0.4)
    if nearest:
        return "; did you mean '" + ".".join([*location[:-1], nearest[0]]) + "'?"
    return f"; valid keys here are {', '.join(names)}"


DETECTORS: tuple[str, ...] = get_args(DetectorName)
