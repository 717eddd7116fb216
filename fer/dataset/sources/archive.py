"""A zip or tar archive in the layout `<split>/<class>/<file>`, read without unpacking it."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from fer.dataset.sources.layout import MAX_FILE_BYTES, image_of, is_image
from fer.dataset.table import SourceImage
from fer.errors import SourceError

MAX_MEMBERS: Final = 500_000
MAX_BYTES: Final = 4 << 30
"""All members together, unpacked: FER2013 is 70 MB."""


def read_archive(path: Path, progress: Callable[[int, int], None]) -> Iterator[SourceImage]:
    """Every image of an archive, unreadable ones as rows that say why.

    Members are decoded in memory and nothing is unpacked to disk, so a path that climbs out of
    its folder can do no harm; it is refused all the same, as the mark of a hostile archive.

    Raises:
        SourceError: no archive, truncated, hostile, or larger than any FER2013.
    """
    try:
        if zipfile.is_zipfile(path):
            yield from _zip(path, progress)
        elif tarfile.is_tarfile(path):
            yield from _tar(path, progress)
        else:
            raise SourceError(
                f"{path} is neither a zip nor a tar archive, or its end is missing. "
                "Fetch it again, and compare its size and sha256 with the publisher's."
            )
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError) as e:
        raise SourceError(f"{path} is damaged ({e}). Fetch it again.") from None


def _zip(path: Path, progress: Callable[[int, int], None]) -> Iterator[SourceImage]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check([(one.filename, one.file_size) for one in members], path)
        images = [one for one in members if not one.is_dir() and is_image(one.filename)]
        if not images:
            raise SourceError(f"{path} holds no images of the layout train/<class>/<file>.")
        for done, member in enumerate(images, 1):
            if member.flag_bits & 0x1:
                raise SourceError(f"{path} is encrypted. Unpack it and name the folder instead.")
            with archive.open(member) as file:
                # The stated size may lie, so the read itself is bounded too.
                content = file.read(MAX_FILE_BYTES + 1)
            if len(content) > MAX_FILE_BYTES:
                raise SourceError(f"{path}: {member.filename} unpacks to more than it states.")
            yield image_of(member.filename, content)
            progress(done, len(images))


def _tar(path: Path, progress: Callable[[int, int], None]) -> Iterator[SourceImage]:
    with tarfile.open(path) as archive:
        seen: list[tuple[str, int]] = []
        done = 0
        for member in archive:
            seen.append((member.name, member.size))
            _check(seen[-1:], path)
            if len(seen) > MAX_MEMBERS or sum(size for _, size in seen[-1:]) > MAX_BYTES:
                raise SourceError(f"{path} holds too many members to be FER2013.")
            if not member.isfile() or not is_image(member.name):
                continue
            file = archive.extractfile(member)
            if file is None:
                continue
            done += 1
            yield image_of(member.name.removeprefix("./"), file.read(MAX_FILE_BYTES + 1))
            progress(done, 0)
        if not done:
            raise SourceError(f"{path} holds no images of the layout train/<class>/<file>.")


def _check(members: list[tuple[str, int]], path: Path) -> None:
    """Refuse names that climb out of their folder, and bombs, by what the archive states."""
    if len(members) > MAX_MEMBERS:
        raise SourceError(f"{path} holds {len(members)} members; FER2013 has 35,887.")
    for name, size in members:
        parts = PurePosixPath(name).parts
        if (
            PurePosixPath(name).is_absolute()
            or ".." in parts
            or "\\" in name
            or PureWindowsPath(name).drive
        ):
            raise SourceError(f"{path} is hostile: {name!r} leads out of its folder.")
        if size > MAX_FILE_BYTES and is_image(name):
            raise SourceError(f"{path}: {name!r} states {size} bytes, too much for one image.")
    if sum(size for _, size in members) > MAX_BYTES:
        raise SourceError(f"{path} would unpack to over {MAX_BYTES >> 30} GiB: not FER2013.")
