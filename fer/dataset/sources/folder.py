"""A folder in the layout `<split>/<class>/<file>`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fer.dataset.sources.layout import (
    MAX_FILE_BYTES,
    MAX_IMAGES,
    image_of,
    is_image,
    no_images,
    unreadable,
)
from fer.dataset.table import SourceImage
from fer.errors import SourceError


def read_folder(root: Path, progress: Callable[[int, int], None]) -> Iterator[SourceImage]:
    """Every image below `root`, unreadable ones as rows that say why.

    Links that lead out of `root` are refused: a dataset has no reason to hold any.

    Args:
        root: the folder.
        progress: called with (files done, files in all).

    Raises:
        SourceError: no images, more than any FER2013, or a link that leads out.
    """
    files = sorted(_files(root))
    paths = [path for path in files if is_image(path.relative_to(root).as_posix())]
    if not paths:
        raise no_images(str(root), (path.name for path in files))
    if len(paths) > MAX_IMAGES:
        raise SourceError(f"{root} holds {len(paths):,} images; FER2013 has 35,887.")
    for done, path in enumerate(paths, 1):
        _check_link(path, root)
        yield _read(path, path.relative_to(root).as_posix())
        progress(done, len(paths))


def _files(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        # A folder left out in silence would be missing images.
        raise SourceError(
            f"{error.filename} cannot be read ({error.strerror}). Check its permissions."
        )

    for folder, folders, names in os.walk(root, onerror=refuse):
        for name in folders:
            _check_link(Path(folder, name), root)
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def _check_link(path: Path, root: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        name = path.relative_to(root).as_posix()
        raise SourceError(
            f"{name!r} in {root} is a link that leads out of it. Remove it, or put what it names "
            "in its place."
        )


def _read(path: Path, name: str) -> SourceImage:
    try:
        # One byte more than allowed tells a file that is too large, and no more is read of it.
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return unreadable(name, f"unreadable: {error.strerror}")
    if len(content) > MAX_FILE_BYTES:
        return unreadable(name, f"too large: over {MAX_FILE_BYTES} bytes")
    return image_of(name, content)
