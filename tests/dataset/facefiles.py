"""Small sources in every form FER2013 comes in, for tests."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from fer.dataset.table import SourceImage
from fer.expressions import EXPRESSIONS

ROOT = Path(__file__).parents[2]
Files = dict[str, bytes]
Pixels = NDArray[np.uint8]


def noise(seed: int, side: int = 48) -> Pixels:
    """An image unlike any other, with FER2013's mean and spread."""
    return np.random.default_rng(seed).normal(128, 62, (side, side)).clip(0, 255).astype(np.uint8)


def photo(seed: int) -> Pixels:
    """A smooth image with the grey levels of a face crop: neighbours are alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8).astype(np.uint8))
    large = np.asarray(coarse.resize((72, 72), Image.Resampling.BICUBIC), np.int16)
    grain = rng.normal(0, 6, large.shape)
    return (large + grain).clip(0, 255).astype(np.uint8)


def crop(picture: Pixels, dy: int = 0, dx: int = 0) -> Pixels:
    """48 x 48 of a `photo`, from its middle moved by (dy, dx)."""
    return picture[12 + dy : 60 + dy, 12 + dx : 60 + dx]


def encoded(pixels: Pixels, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def tree(counts: Mapping[str, int] | None = None) -> Files:
    """Files of the layout: for each split, so many images of each class."""
    counts = {"train": 3, "validation": 1, "test": 1} if counts is None else counts
    files: Files = {}
    for split, count in counts.items():
        for label in EXPRESSIONS:
            for number in range(count):
                files[f"{split}/{label}/{number}.png"] = encoded(noise(len(files)))
    return files


def write_folder(root: Path, files: Files) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_zip(
    path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED, stamp: int = 1990
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, (stamp, 1, 1, 0, 0, 0))
            member.compress_type = method
            archive.writestr(member, content)
    return path


def write_tar(path: Path, files: Files, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def csv_row(emotion: object, pixels: Pixels, usage: str) -> str:
    return f"{emotion},{' '.join(map(str, pixels.ravel().tolist()))},{usage}"


def write_csv(path: Path, rows: Iterable[str], header: str = "emotion,pixels,Usage") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def sound_csv(path: Path, counts: Mapping[str, int] | None = None) -> Path:
    """A competition table with so many images of each class for each usage."""
    counts = {"Training": 3, "PublicTest": 1, "PrivateTest": 1} if counts is None else counts
    rows = [
        csv_row(index, noise(1000 * index + 10 * place + number), usage)
        for place, (usage, count) in enumerate(counts.items())
        for index in range(len(EXPRESSIONS))
        for number in range(count)
    ]
    return write_csv(path, rows)


def params_file(path: Path, **data: Any) -> Path:
    """The project's params with a gate for tiny sources and changes of section `data`."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["data"].update(data)
    document["validate"].update(
        min_rows={"train": 10, "test": 5}, class_share=[0.05, 0.5], max_blanks=0
    )
    path.write_text(yaml.safe_dump(document))
    return path


def silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


def summary(images: Iterable[SourceImage]) -> list[tuple[Any, ...]]:
    """What identifies images, for comparisons."""
    return sorted(
        (
            one.name,
            one.split,
            one.label,
            None if one.pixels is None else one.pixels.tobytes(),
            one.mode,
            one.problem,
        )
        for one in images
    )
