"""A zip or tar archive in the layout `<split>/<class>/<file>`, read without unpacking it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, Final, cast

from fer.dataset.sources.layout import (
    MAX_FILE_BYTES,
    MAX_IMAGES,
    image_of,
    is_image,
    no_images,
)
from fer.dataset.table import SourceImage
from fer.errors import FerError, SourceError

MAX_BYTES: Final = 4 << 30
"""All members together, unpacked: FER2013 is 70 MB."""
_MAX_READ: Final = 32 << 20
"""No single read is larger: the list of FER2013's 35,887 members takes 4 MB."""

_Progress = Callable[[int, int], None]


def read_archive(path: Path, progress: _Progress) -> Iterator[SourceImage]:
    """Every image of an archive, unreadable ones as rows that say why.

    Members are decoded in memory and nothing is unpacked to disk, so a path that climbs out of
    its folder can do no harm; it is refused all the same, as the mark of a hostile archive.
    Whatever sizes an archive states, no more than 32 MB of it are held at a time.

    Args:
        path: a zip, or a tar, plain or compressed by gzip, bzip2 or xz.
        progress: called with (images done, images in all or 0 where not known).

    Raises:
        SourceError: no archive, truncated, hostile, or larger than any FER2013.
    """
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                yield from _zip(file, path, progress)
            elif (plain := _tar_stream(file)) is not None:
                with plain:
                    yield from _tar(plain, path, progress)
            else:
                raise SourceError(
                    f"{path} is neither a zip nor a tar archive, or its end is missing. "
                    "Fetch it again, and compare its size and sha256 with the publisher's."
                )
    except FerError:
        raise
    except Exception as error:  # the standard library's readers raise nearly anything
        text = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(
            f"{path} is damaged or cannot be read ({text}). Fetch it again."
        ) from None


def _zip(file: IO[bytes], path: Path, progress: _Progress) -> Iterator[SourceImage]:
    with zipfile.ZipFile(cast(IO[bytes], _Bounded(file, path))) as archive:
        members = archive.infolist()
        totals = _Totals(path)
        images = []
        for member in members:
            # Some old tools for Windows write its separator.
            name = member.filename.replace("\\", "/")
            totals.add(name, member.file_size)
            if not name.endswith("/") and is_image(name):
                images.append((name, member))
        if not images:
            raise no_images(str(path), (member.filename for member in members))
        for done, (name, member) in enumerate(images, 1):
            if member.flag_bits & 0x1:
                raise SourceError(f"{path} is encrypted. Unpack it and name the folder instead.")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # Of the other methods Python's reader does not bound what a read unpacks.
                raise SourceError(
                    f"{path}: {name!r} is compressed by method {member.compress_type}; only "
                    "stored and deflated members are read. Unpack it and name the folder instead."
                )
            with archive.open(member) as one:
                # Never more than the stated size, which is checked; a lie fails its checksum.
                content = one.read(MAX_FILE_BYTES + 1)
            yield image_of(name, content)
            progress(done, len(images))


def _tar(plain: IO[bytes], path: Path, progress: _Progress) -> Iterator[SourceImage]:
    tables = []
    done = 0
    bounded = _Bounded(plain, path)
    with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as archive:
        totals = _Totals(path)
        for member in archive:
            name = member.name.removeprefix("./")
            totals.add(name, member.size)
            # Members are kept for those who come back to them, which takes memory.
            cast(Any, archive).members.clear()
            if name.lower().endswith(".csv"):
                tables.append(name)
            if not member.isfile() or not is_image(name):
                continue
            one = archive.extractfile(member)
            content = one.read(MAX_FILE_BYTES + 1) if one is not None else b""
            if len(content) != member.size:
                raise EOFError(f"{name!r} is cut short")
            done += 1
            yield image_of(name, content)
            progress(done, 0)
    # A tar ends with blocks of zeros. Python's reader takes the end of the file, or a damaged
    # header, for its end as well.
    if bounded.last != bytes(512):
        raise EOFError("its end is missing or damaged")
    # The checksum of a compressed tar comes last.
    rest = 0
    while block := plain.read(1 << 20):
        rest += len(block)
        if rest > MAX_BYTES:
            raise SourceError(f"{path} goes on for gigabytes after its end: not FER2013.")
    if not done:
        raise no_images(str(path), tables)


def _tar_stream(file: IO[bytes]) -> IO[bytes] | None:
    """The plain tar inside a file, decompressed as it is read; None where there is none."""
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(file)
    return file if head[257:262] == b"ustar" or _is_old_tar(head) else None


def _is_old_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


class _Totals:
    """Refuses names that climb out of their folder, and bombs, by what the archive states."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members = 0
        self.size = 0

    def add(self, name: str, size: int) -> None:
        self.members += 1
        self.size += size
        if self.members > MAX_IMAGES:
            raise SourceError(f"{self.path} holds over {MAX_IMAGES:,} members; FER2013 has 35,887.")
        if (
            PurePosixPath(name).is_absolute()
            or ".." in PurePosixPath(name).parts
            or PureWindowsPath(name).drive
        ):
            raise SourceError(f"{self.path} is hostile: {name!r} leads out of its folder.")
        if size < 0 or (size > MAX_FILE_BYTES and is_image(name)):
            raise SourceError(f"{self.path}: {name!r} states {size:,} bytes, no image's size.")
        if self.size > MAX_BYTES:
            raise SourceError(
                f"{self.path} would unpack to over {MAX_BYTES >> 30} GiB: not FER2013."
            )


class _Bounded:
    """A file that refuses huge reads: a header may ask for any number of bytes at once.

    `last` is what was read last.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self.last = b""

    def read(self, size: int | None = -1) -> bytes:
        wanted = _MAX_READ + 1 if size is None or size < 0 else min(size, _MAX_READ + 1)
        data = self._file.read(wanted)
        if len(data) > _MAX_READ:
            raise SourceError(
                f"{self._path} holds a header of over {_MAX_READ >> 20} MB: not FER2013."
            )
        self.last = data
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
