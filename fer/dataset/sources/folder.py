"""A folder in the layout `<split>/<class>/<file>`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from fer.dataset.sources.layout import MAX_FILE_BYTES, image_of, is_image
from fer.dataset.table import SourceImage
from fer.errors import SourceError


def read_folder(root: Path, progress: Callable[[int, int], None]) -> Iterator[SourceImage]:
    """Every image below `root`, unreadable ones as rows that say why.

    Links that lead out of `root` are refused: a dataset has no reason to hold any.

    Args:
        root: the folder.
        progress: called with (files done, files in all).
    """
    top = root.resolve()
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    paths = [path for path in paths if is_image(path.relative_to(root).as_posix())]
    if not paths:
        raise SourceError(
            f"{root} holds no images. It should hold train/<class>/ and test/<class>/ folders."
        )
    for done, path in enumerate(paths, 1):
        name = path.relative_to(root).as_posix()
        if not path.resolve().is_relative_to(top):
            raise SourceError(f"{name} in {root} is a link that leads out of it. Remove it.")
        if path.stat().st_size > MAX_FILE_BYTES:
            problem = f"too large: {path.stat().st_size} bytes"
            image = image_of(name, b"")
            yield SourceImage(name, image.split, image.label, None, problem=problem)
        else:
            yield image_of(name, path.read_bytes())
        progress(done, len(paths))
