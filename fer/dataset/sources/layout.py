"""The folder layout `<split>/<class>/<file>` and the decoding of one image file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

import numpy as np

from fer.dataset.table import SourceImage
from fer.errors import SourceError

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".webp"})
# Only what the suffixes promise: Pillow would hand a renamed EPS to Ghostscript.
_FORMATS: Final = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
MAX_FILE_BYTES: Final = 4 << 20
"""A 48 x 48 image takes some 2 kB; a file a thousand times that is not one of FER2013."""
MAX_IMAGES: Final = 500_000
_MAX_PIXELS: Final = 1 << 20

_FOLDERS: Final = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "publictest": "validation",
    "test": "test",
    "privatetest": "test",
}
# File names tell more than folders: msambare/fer2013 keeps both test halves in one folder.
_PREFIXES: Final = {"training": "train", "publictest": "validation", "privatetest": "test"}
_LABELS: Final = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}


def is_image(name: str) -> bool:
    """Whether a path is an image of the dataset: by suffix, and not hidden or a Mac fork."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def split_of(folder: str) -> str:
    """train, validation or test for a folder or usage name; an unknown one as it is."""
    return _FOLDERS.get(folder.lower(), folder)


def label_of(folder: str) -> str:
    """The class name for a folder name; an unknown one as it is, for the gate to find."""
    return _LABELS.get(folder.lower(), folder.lower())


def no_images(place: str, names: Iterable[str]) -> SourceError:
    """The error for a source without images; `names` are the files it does hold."""
    tables = sorted(name for name in names if name.lower().endswith(".csv"))
    if tables:
        return SourceError(
            f"{place} holds no images but the table {tables[0]!r}. If that is the competition's "
            "CSV, unpack it and name the file itself in FER_DATA or data.source."
        )
    return SourceError(
        f"{place} holds no images. It should hold train/<class>/ and test/<class>/ folders of "
        f"{', '.join(sorted(IMAGE_SUFFIXES))} files."
    )


def image_of(name: str, content: bytes) -> SourceImage:
    """Decode one file of the layout; an unreadable one becomes a row that says why.

    Args:
        name: path inside the source, `/` between its parts.
        content: the file's bytes.
    """
    name = _encodable(name)
    split, label = _place(name)
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # A header that states a gigantic picture: the size check below says it better.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(content), formats=_FORMATS)
        with opened as image:
            if image.width * image.height > _MAX_PIXELS:
                size = f"{image.width}x{image.height}"
                return SourceImage(name, split, label, None, problem=f"too large: {size}")
            mode = image.mode
            pixels = np.asarray(image.convert("L"), dtype=np.uint8)
    except Exception as error:  # decoders of damaged files raise nearly anything
        return SourceImage(name, split, label, None, problem=f"unreadable: {_short(error)}")
    return SourceImage(name, split, label, pixels, mode=mode)


def unreadable(name: str, problem: str) -> SourceImage:
    """The row of a file of the layout that could not even be read."""
    name = _encodable(name)
    split, label = _place(name)
    return SourceImage(name, split, label, None, problem=problem)


def _place(name: str) -> tuple[str, str]:
    """Split and label that a path says."""
    parts = PurePosixPath(name).parts
    label = label_of(parts[-2]) if len(parts) >= 2 else "unknown"
    split = split_of(parts[-3]) if len(parts) >= 3 else "unknown"
    # A path may be empty: archives hold what they like.
    prefix = parts[-1].split("_")[0].lower() if parts else ""
    return _PREFIXES.get(prefix, split), label


def _encodable(name: str) -> str:
    """The name with bytes that are no UTF-8 spelt out: tables hold Unicode only."""
    return name.encode("utf-8", "backslashreplace").decode()


def _short(error: Exception) -> str:
    # Pillow names the in-memory file, which differs from run to run.
    text = str(error).split("<_io")[0].strip() or type(error).__name__
    return " ".join(text.split())[:200]
