"""Where a batch's results go: a folder or a prefix of an S3 bucket, one file at a time, whole."""

from __future__ import annotations

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fer.errors import ConflictError, StoreError, UsageError
from fer.files import write_bytes
from fer.inference.objects import S3, split_url

_KINDS = {
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
}


class Output(ABC):
    """Named files; each is seen whole or not at all."""

    uri: str

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Files directly in `folder`, sorted, as `folder/name`."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A file's bytes."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether a file of that name is there."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file, replacing one of that name.

        Raises:
            StoreError: the output refuses; the message says what to do.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; a missing one is no error."""

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Hold the output for this run, as far as the storage can.

        Raises:
            ConflictError: another run is writing there.
            StoreError: the output cannot be written.
        """
        # Listing first: some servers make a missing bucket when something is put into it.
        self.names("parts")
        probe = f".probe-{uuid.uuid4().hex}.json"
        self.write(probe, b"{}\n")
        self.remove(probe)
        yield


class FolderOutput(Output):
    """A local folder, created where it is missing."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))
        self.uri = self.root.as_uri()

    def names(self, folder: str) -> list[str]:
        with self._explained():
            if not (self.root / folder).is_dir():
                return []
            found = os.listdir(self.root / folder)
        return sorted(f"{folder}/{name}" for name in found if not name.startswith("."))

    def read(self, name: str) -> bytes:
        with self._explained():
            return (self.root / name).read_bytes()

    def exists(self, name: str) -> bool:
        with self._explained():
            return (self.root / name).is_file()

    def write(self, name: str, data: bytes) -> None:
        with self._explained():
            write_bytes(self.root / name, data)

    def remove(self, name: str) -> None:
        with self._explained():
            (self.root / name).unlink(missing_ok=True)

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        with super().only_writer():
            import fcntl

            descriptor = os.open(self.root, os.O_RDONLY)
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ConflictError(
                        f"Another batch is writing to {self.root}. Wait for it, or choose another "
                        "output."
                    ) from None
                yield
            finally:
                os.close(descriptor)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"The output {self.root} cannot be used: {error.strerror or error}. Correct that "
                "and run the same command again: what is recorded is kept."
            ) from error


class BucketOutput(Output):
    """A prefix of an S3 bucket. Nothing locks it: of several runs the one begun last goes on."""

    def __init__(self, url: str) -> None:
        self.uri = url.rstrip("/")
        self.bucket, self.prefix = split_url(url)

    def names(self, folder: str) -> list[str]:
        start = f"{self.prefix}{folder}/"
        keys = [key for key, _, _ in self.bucket.objects(start) if "/" not in key[len(start) :]]
        return sorted(key[len(self.prefix) :] for key in keys)

    def read(self, name: str) -> bytes:
        return self.bucket.fetch(self.prefix + name)

    def exists(self, name: str) -> bool:
        wanted = self.prefix + name
        return any(key == wanted for key, _, _ in self.bucket.objects(wanted))

    def write(self, name: str, data: bytes) -> None:
        kind = _KINDS.get(os.path.splitext(name)[1], "application/octet-stream")
        self.bucket.save(self.prefix + name, data, kind)

    def remove(self, name: str) -> None:
        self.bucket.remove(self.prefix + name)


def open_output(where: str | Path) -> Output:
    """The output that a path or an s3:// URL names; nothing is contacted or created yet.

    Raises:
        UsageError: another scheme, or a path that is a file.
        SettingsError: an s3:// URL without a bucket.
    """
    text = str(where)
    if text.startswith(S3):
        return BucketOutput(text)
    if "://" in text:
        raise UsageError(f"{text} cannot be written. Name a folder or s3://bucket/prefix.")
    if Path(where).is_file():
        raise UsageError(f"{where} is a file; the output is a folder. Choose another.")
    return FolderOutput(Path(where))
