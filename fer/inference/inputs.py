"""Where a batch's pictures come from: one file, a folder, or a prefix of an S3 bucket."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fer.errors import StoreError, UnavailableError, UsageError
from fer.inference.objects import S3, split_url, too_large

# What is taken for a picture by its name. HEIC cannot be decoded here: it is listed so that it
# ends in the quarantine with a reason, not in silence.
SUFFIXES = frozenset(
    f".{name}"
    for kinds in (
        ("jpg", "jpeg", "jpe", "jfif", "mpo", "jp2", "avif", "heic", "heif"),
        ("png", "webp", "tif", "tiff", "bmp", "gif", "ppm", "pgm", "pnm"),
    )
    for name in kinds
)
MAX_BYTES = 256 << 20
"""A larger file is refused unread."""
# Of a file server that does not answer just then.
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTDOWN}


@dataclass(frozen=True)
class PictureFile:
    """One picture, not yet read.

    Attributes:
        uri: file:// or s3://, unique.
        etag: changes when the content does. On S3 the object's ETag; of a file its size and
            modification time, since a digest would cost reading everything on every run.
        size: bytes.
        key: what the input reads it by.
    """

    uri: str
    etag: str
    size: int
    key: str


@dataclass
class Inputs(ABC):
    """Lists pictures in a fixed order and reads them.

    Attributes:
        uri: what was named, as a URI.
        ignored: files whose name is no picture's, counted while listing.
        unreadable: folders that could not be listed, with the reason.
    """

    uri: str
    ignored: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    @abstractmethod
    def pictures(self) -> Iterator[PictureFile]:
        """Every picture; resets the counts."""

    @abstractmethod
    def read(self, picture: PictureFile) -> bytes:
        """A picture's bytes. May be called from several threads.

        Raises:
            UnavailableError: storage did not answer; another look may help.
            StoreError: it cannot be read, or has gone or changed since it was listed.
            ImageError: it is too large a file.
        """

    def count(self) -> int | None:
        """How many pictures there are, where that is cheap to say."""
        return None


class FolderInputs(Inputs):
    """A folder and its sub-folders, or one file. Hidden entries and links to folders are left."""

    def __init__(self, root: Path) -> None:
        # Not resolved: links are part of the address that the user knows.
        self.root = Path(os.path.abspath(root.expanduser()))
        super().__init__(self.root.as_uri())
        if not self.root.exists():
            raise UsageError(
                f"There is no {root}. Name a folder, a picture, or s3://bucket/prefix."
            )

    def pictures(self) -> Iterator[PictureFile]:
        self.ignored = 0
        self.unreadable = []
        if self.root.is_file():
            if (picture := self._picture(self.root)) is not None:
                yield picture
            return
        for folder, folders, names in os.walk(self.root, onerror=self._note):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if name.startswith("."):
                    continue
                path = Path(folder, name)
                if path.suffix.lower() not in SUFFIXES:
                    self.ignored += 1
                elif (picture := self._picture(path)) is not None:
                    yield picture

    def read(self, picture: PictureFile) -> bytes:
        path = Path(picture.key)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > MAX_BYTES:
                    raise too_large(picture.uri, size, MAX_BYTES)
                data = file.read()
                changed = _etag(os.fstat(file.fileno())) != picture.etag
        except OSError as error:
            kind = UnavailableError if error.errno in _PASSING else StoreError
            raise kind(f"{path} cannot be read: {error.strerror}.") from None
        if changed:
            raise StoreError(f"{path} changed after it was listed; the next run takes it.")
        return data

    def count(self) -> int | None:
        return sum(1 for _ in self.pictures())

    def _picture(self, path: Path) -> PictureFile | None:
        try:
            stat = path.stat()
        except OSError as error:  # a broken link, or gone since it was listed
            self.unreadable.append((path.as_uri(), error.strerror or str(error)))
            return None
        return PictureFile(path.as_uri(), _etag(stat), stat.st_size, str(path))

    def _note(self, error: OSError) -> None:
        self.unreadable.append((Path(error.filename).as_uri(), error.strerror or str(error)))


class BucketInputs(Inputs):
    """The objects under a prefix of an S3 bucket, or one object."""

    def __init__(self, url: str) -> None:
        super().__init__(url.rstrip("/"))
        self.bucket, self.prefix = split_url(url)

    def pictures(self) -> Iterator[PictureFile]:
        self.ignored = 0
        found = False
        for key, size, etag in self.bucket.objects(self.prefix):
            found = True
            if (picture := self._picture(key, size, etag)) is not None:
                yield picture
        if not found and self.prefix:
            # The URL may name one object rather than a prefix.
            single = self.prefix.rstrip("/")
            for key, size, etag in self.bucket.objects(single):
                if key == single and (picture := self._picture(key, size, etag)) is not None:
                    yield picture

    def read(self, picture: PictureFile) -> bytes:
        return self.bucket.fetch(picture.key, etag=picture.etag, limit=MAX_BYTES)

    def _picture(self, key: str, size: int, etag: str) -> PictureFile | None:
        name = key.rsplit("/", 1)[-1]
        if name.startswith("."):
            return None
        if os.path.splitext(name)[1].lower() not in SUFFIXES:
            self.ignored += 1
            return None
        return PictureFile(f"{S3}{self.bucket.bucket}/{key}", etag, size, key)


def open_inputs(where: str | Path) -> Inputs:
    """The input that a path or an s3:// URL names.

    Raises:
        UsageError: another scheme, or a path that does not exist.
        SettingsError: an s3:// URL without a bucket.
    """
    text = str(where)
    if text.startswith(S3):
        return BucketInputs(text)
    if "://" in text:
        raise UsageError(f"{text} cannot be read. Name a folder, a picture, or s3://bucket/prefix.")
    return FolderInputs(Path(where))


def _etag(stat: os.stat_result) -> str:
    return f"{stat.st_size:x}-{stat.st_mtime_ns:x}"
