"""From a model reference to expressions: load once, then predict crops or analyse pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer.errors import ModelReferenceError, PackageError, UnavailableError, UsageError
from fer.expressions import EXPRESSIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fer.faces.detector import Detection, Detector
    from fer.faces.finder import FoundFace
    from fer.faces.landmarks import Landmarks
    from fer.faces.quality import Quality
    from fer.inference.classifier import Classifier
    from fer.inference.images import Picture
    from fer.params import FacesParams

_HOW = (
    "Name one: a registered model (name@champion, with FER_REGISTRY or --registry saying where), "
    "a package folder (models/package after `dvc repro package`), or a model.onnx or model.tflite."
)


@dataclass(frozen=True)
class ModelInfo:
    """Which model answers.

    Attributes:
        name: its name; of a bare file, the file's name without suffix.
        version: its number in the registry; None where it does not come from one.
        digest: sha256 of the package's manifest, or of the bare file.
    """

    name: str
    version: int | None
    digest: str

    def __str__(self) -> str:
        return (
            f"{self.name}:{self.version}" if self.version else f"{self.name} ({self.digest[:12]})"
        )


@dataclass(frozen=True)
class Prediction:
    """The most probable expression, its probability, and all seven by name."""

    expression: str
    confidence: float
    probabilities: dict[str, float]

    @classmethod
    def of(cls, probabilities: NDArray[np.float32]) -> Prediction:
        """From one row, float32 (7,), in the order of `fer.expressions`."""
        best = int(probabilities.argmax())
        named = {name: float(value) for name, value in zip(EXPRESSIONS, probabilities, strict=True)}
        return cls(EXPRESSIONS[best], named[EXPRESSIONS[best]], named)


@dataclass(frozen=True)
class Face:
    """One face of a picture: where it is, what the crop is worth, what it shows."""

    detection: Detection
    quality: Quality
    prediction: Prediction


class Recognizer:
    """A model and a face detector, ready for use. Make one with `Recognizer.load`.

    Example:
        >>> from skimage.data import astronaut
        >>> recognizer = Recognizer.load("models/package")  # doctest: +SKIP
        >>> for face in recognizer.analyze(astronaut()):  # doctest: +SKIP
        ...     print(face.prediction.expression, round(face.prediction.confidence, 2))
    """

    def __init__(
        self, classifier: Classifier, model: ModelInfo, faces: FacesParams | None = None
    ) -> None:
        from fer.params import FacesParams

        self.classifier = classifier
        self.model = model
        self.faces = faces or FacesParams()
        self._detector: Detector | None = None
        self._landmarks: Landmarks | None = None
        self._has_looked = False

    @classmethod
    def load(
        cls,
        reference: str | Path | None = None,
        *,
        registry: str | None = None,
        faces: FacesParams | None = None,
        threads: int | None = None,
    ) -> Recognizer:
        """Load a model; a registered one is pulled into the cache first, and verified.

        Args:
            reference: `name@alias`, `name:7` or `name` of a registered model; a package folder;
                a model.onnx or model.tflite. None takes the registry's champion where it holds
                one model only, and the model that ships with the library where no registry is
                named.
            registry: a folder or s3://bucket/prefix; None is FER_REGISTRY.
            faces: detector and crop; None is their defaults.
            threads: CPU threads; None is FER_THREADS, or all cores.

        Raises:
            ModelReferenceError: no model is named and none follows from the registry.
            PackageError: what is named is no expression model, or was altered.
            RegistryError: the registry has no such model or cannot be reached.
        """
        path, model = _locate(reference, registry)
        from fer.inference.classifier import Classifier

        return cls(Classifier(path, threads), model, faces)

    @property
    def detector(self) -> Detector:
        """The face detector, made at first use.

        Raises:
            DetectorError: its library or model file is missing.
        """
        if self._detector is None:
            from fer.faces.detector import make_detector

            self._detector = make_detector(self.faces)
        return self._detector

    @property
    def landmarks(self) -> Landmarks | None:
        """What turns crops upright and tells poses, made at first use; None without its file.

        Raises:
            DetectorError: its library or model file is missing.
        """
        if not self._has_looked:
            from fer.faces.landmarks import make_landmarks

            self._landmarks = make_landmarks(self.faces)
            self._has_looked = True
        return self._landmarks

    def predict(self, crops: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Expressions of faces that are already cut out.

        Args:
            crops: uint8: one crop (h, w) or (h, w, 3) RGB; a batch (n, h, w), (n, h, w, 1) or
                (n, h, w, 3); or a sequence of crops of any sizes.

        Returns:
            One prediction per crop, in their order.

        Raises:
            UsageError: another type or shape.
        """
        scores = self.classifier.probabilities(_grey_crops(crops))
        return [Prediction.of(row) for row in scores]

    def analyze(self, image: str | Path | bytes | NDArray[np.uint8]) -> list[Face]:
        """Find the faces of one picture and say what each expresses.

        Args:
            image: a path, a file's bytes, or pixels: uint8 (h, w) grey, (h, w, 3) RGB (reverse
                the last axis of OpenCV's BGR) or (h, w, 4) RGBA.

        Returns:
            One `Face` per face, best detection first; [] where there is none. Boxes are in
            pixels of the upright picture at its full size.

        Raises:
            ImageError: the picture cannot be decoded or is too large.
            DetectorError: the detector's library or model file is missing.
        """
        return self.analyze_picture(self.read(image))

    def analyze_picture(self, picture: Picture) -> list[Face]:
        """`analyze` for a picture that `read` has decoded."""
        found = self.find(picture)
        scores = self.classifier.probabilities([face.crop for face in found])
        return [
            Face(face.detection, face.quality, Prediction.of(row))
            for face, row in zip(found, scores, strict=True)
        ]

    def read(self, image: str | Path | bytes | NDArray[np.uint8]) -> Picture:
        """Decode a picture within the limits of `faces`; see `analyze`."""
        import numpy as np

        from fer.inference.images import KEEP_SIDE, from_array, read_image

        colour = self.detector.colour
        if isinstance(image, np.ndarray):
            return from_array(image, colour=colour)
        return read_image(
            image,
            max_megapixels=self.faces.max_megapixels,
            keep_side=max(KEEP_SIDE, self.faces.max_side),
            colour=colour,
            name="The picture" if isinstance(image, bytes) else str(image),
        )

    def find(self, picture: Picture) -> list[FoundFace]:
        """Faces and crops of a decoded picture, unclassified; thread-safe."""
        from fer.faces.finder import find_faces

        return find_faces(
            picture.grey,
            self.detector,
            margin=self.faces.margin,
            rgb=picture.rgb,
            reduction=picture.reduction,
            landmarks=self.landmarks,
            align=self.faces.align,
        )


def _locate(reference: str | Path | None, registry: str | None) -> tuple[Path, ModelInfo]:
    """The model file that a reference means, and what to call it."""
    from fer.registry.package import ModelPackage

    if reference is not None:
        path = Path(reference).expanduser()
        if path.is_file():
            from fer.files import sha256_of

            return path, ModelInfo(path.stem, None, sha256_of(path))
        if path.is_dir() and (isinstance(reference, Path) or _is_path(reference)):
            return _opened(ModelPackage.open(path), None)
        if path.suffix in (".onnx", ".tflite") or isinstance(reference, Path):
            raise ModelReferenceError(f"There is no {reference}. {_HOW}")
    return _registered(str(reference) if reference is not None else None, registry)


def _is_path(text: str) -> bool:
    """Whether a text that names an existing folder means it, rather than a registered model."""
    from fer.registry.manifest import MANIFEST
    from fer.registry.reference import ModelReference

    if (Path(text) / MANIFEST).is_file():
        return True
    return ModelReference.parse(text).path is not None


def _registered(reference: str | None, url: str | None) -> tuple[Path, ModelInfo]:
    from fer.registry.reference import ModelReference
    from fer.settings import settings

    if reference is not None and (path := ModelReference.parse(reference).path) is not None:
        raise ModelReferenceError(f"There is no {path}. {_HOW}")
    if url is None and settings().registry is None:
        if reference is None:
            from fer.reference import reference_package

            return _opened(reference_package(), None)
        raise ModelReferenceError(
            f"{reference} is a registered model, and no registry is named. {_HOW}"
        )
    from fer.registry.registry import Registry

    opened = Registry.open(url)
    if reference is None:
        names = [str(name) for name in opened.models()]
        if len(names) != 1:
            what = f"holds {len(names)} models ({', '.join(names)})" if names else "holds no model"
            raise ModelReferenceError(f"The registry {what}, so none is taken by itself. {_HOW}")
        reference = f"{names[0]}@champion"
    wanted = ModelReference.parse(reference)
    try:
        if settings().offline:
            raise UnavailableError("FER_OFFLINE is set")
        version = opened.resolve(wanted)
    except UnavailableError:
        # From the cache as it was pulled last, or the error that says why not.
        return _opened(opened.pull(wanted), wanted.number)
    # The number is pulled, not the alias: between two look-ups the alias might move.
    package = opened.pull(str(version))
    opened.cache.remember(opened.store.identity, str(wanted), version.number, version.digest)
    return _opened(package, version.number)


def _opened(package: Any, version: int | None) -> tuple[Path, ModelInfo]:
    manifest = package.manifest
    if tuple(manifest.classes) != EXPRESSIONS:
        raise PackageError(
            f"The package {manifest.name!r} has the classes {', '.join(manifest.classes)}; this "
            f"version reads {', '.join(EXPRESSIONS)}. Use a package of this project."
        )
    return package.model, ModelInfo(manifest.name, version, package.digest)


def _grey_crops(
    crops: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
) -> list[NDArray[np.uint8]]:
    """Crops as a list of (h, w)."""
    import numpy as np

    if isinstance(crops, np.ndarray):
        # (h, w, 3) is one colour crop; a batch of 3 px wide grey ones makes no sense.
        single = crops.ndim == 2 or (crops.ndim == 3 and crops.shape[2] in (1, 3))
        crops = [crops] if single else list(crops)
    return [_grey_crop(crop) for crop in crops]


def _grey_crop(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import numpy as np

    crop = np.asarray(crop)
    if crop.ndim == 3 and crop.shape[2] == 1:
        crop = crop[:, :, 0]
    if crop.ndim == 3 and crop.shape[2] == 3 and crop.dtype == np.uint8 and crop.size:
        from fer.inference.images import from_array

        return from_array(crop).grey
    if crop.dtype != np.uint8 or crop.ndim != 2 or not crop.size:
        raise UsageError(
            f"A crop is uint8 (h, w) or (h, w, 3), not {crop.dtype} {crop.shape}. "
            "Recognizer.analyze takes whole pictures."
        )
    return crop
