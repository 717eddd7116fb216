"""A folder on a local disk as a store, for one machine and any number of processes.

Creating is a temporary file, fsync and a hard link (the link fails where the name exists);
swapping is a lock on the containing folder, a comparison by content, and a rename. A process
that is killed leaves at most a file whose name starts with a dot, which no reader sees.
Network file systems are not for this: several make the lock a no-op.
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fer.errors import ConflictError, FerError, StoreError, UnsafeStoreError
from fer.registry.store import (
    BLOCK,
    MAX_DOCUMENT,
    Progress,
    Stat,
    Store,
    Stored,
    check_key,
    check_prefix,
    missing,
    sha256_tag,
)

_TEMPORARY: Final = ".tmp-"


class FolderStore(Store):
    """Keys are files below `root`; the entity tag of a value is its sha256."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))
        self.url = str(self.root)
        self.identity = f"folder:{self.root}"

    def get(self, key: str, limit: int = MAX_DOCUMENT) -> Stored:
        data = b"".join(self._blocks(key, 0, limit))
        return Stored(data, sha256_tag(data))

    def put(self, key: str, data: bytes) -> str:
        with self._temporary(key, data) as temporary:
            os.replace(temporary, self._path(key))
        return sha256_tag(data)

    def create_if_absent(self, key: str, data: bytes) -> str:
        path = self._path(key)
        with self._temporary(key, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                # As on S3: our own bytes there count as our own write.
                if path.is_file() and path.read_bytes() == data:
                    return sha256_tag(data)
                raise ConflictError(f"{path} was created by somebody else first.") from None
            except OSError as error:
                if error.errno in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}:
                    raise UnsafeStoreError(
                        f"The file system of {self.root} has no hard links, so a version cannot "
                        "be published safely. Put the registry on a local disk (ext4, xfs, apfs)."
                    ) from None
                raise
        return sha256_tag(data)

    def swap(self, key: str, data: bytes, etag: str) -> str:
        path = self._path(key)
        with self._temporary(key, data) as temporary, self._lock(path.parent):
            try:
                present = path.read_bytes()
            except FileNotFoundError:
                raise ConflictError(f"{path} is gone.") from None
            if sha256_tag(present) != etag:
                if present == data:
                    return sha256_tag(data)
                raise ConflictError(f"{path} was changed by somebody else first.")
            os.replace(temporary, path)
        return sha256_tag(data)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._explained(key):
            if not path.parent.is_dir():
                return
            with self._lock(path.parent):
                path.unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Iterator[Stat]:
        self._must_exist()
        top = self.root / check_prefix(prefix)
        with self._explained(prefix):
            for folder, folders, files in os.walk(top):
                folders[:] = [name for name in folders if not name.startswith(".")]
                for name in files:
                    if name.startswith("."):
                        continue
                    path = Path(folder, name)
                    key = path.relative_to(self.root).as_posix()
                    if (stat := self.head(key)) is not None:
                        yield stat

    def folders(self, prefix: str) -> Iterator[str]:
        self._must_exist()
        top = self.root / check_prefix(prefix)
        with self._explained(prefix):
            if not top.is_dir():
                return
            for entry in sorted(os.scandir(top), key=lambda item: item.name):
                if entry.is_dir() and not entry.name.startswith(".") and _has_files(entry.path):
                    yield entry.name

    def head(self, key: str) -> Stat | None:
        path = self._path(key)
        with self._explained(key):
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                self._must_exist()
                return None
            return Stat(key, found.st_size, found.st_mtime)

    def read(self, key: str, offset: int = 0) -> Iterator[bytes]:
        return self._blocks(key, offset, None)

    def upload_from(
        self, key: str, path: Path, sha256: str, progress: Progress | None = None
    ) -> None:
        digest = hashlib.sha256()
        with self._temporary(key, b"") as temporary:
            with path.open("rb") as reader, temporary.open("wb") as writer:
                while block := reader.read(BLOCK):
                    digest.update(block)
                    writer.write(block)
                    if progress is not None:
                        progress(len(block))
                writer.flush()
                os.fsync(writer.fileno())
            if digest.hexdigest() != sha256:
                raise StoreError(f"{path} changed while it was being uploaded. Repeat the command.")
            os.replace(temporary, self._path(key))

    def leftovers(self, before: float, *, remove: bool = False) -> Iterator[tuple[str, int]]:
        self._must_exist()
        with self._explained(""):
            for folder, _, files in os.walk(self.root):
                for name in files:
                    path = Path(folder, name)
                    if not name.startswith(_TEMPORARY):
                        continue
                    try:
                        found = path.stat()
                        if found.st_mtime >= before:
                            continue
                        if remove:
                            path.unlink()
                    except FileNotFoundError:
                        continue  # its writer was alive after all
                    yield path.relative_to(self.root).as_posix(), found.st_size

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _blocks(self, key: str, offset: int, limit: int | None) -> Iterator[bytes]:
        path = self._path(key)
        with self._explained(key):
            try:
                file = path.open("rb")
            except (FileNotFoundError, NotADirectoryError):
                self._must_exist()
                raise missing(self.url, key) from None
            with file:
                if limit is not None and os.fstat(file.fileno()).st_size > limit:
                    raise StoreError(f"{path} has more than {limit:,} bytes: no registry document.")
                file.seek(offset)
                while block := file.read(BLOCK):
                    yield block

    def _must_exist(self) -> None:
        if not self.root.is_dir():
            if self.root.exists():
                raise StoreError(
                    f"{self.root} is a file, not a registry's folder. Correct FER_REGISTRY or "
                    "--registry."
                )
            raise StoreError(
                f"There is no registry at {self.root}. Correct FER_REGISTRY or --registry; "
                "`fer models register` creates it."
            )

    @contextmanager
    def _temporary(self, key: str, data: bytes) -> Iterator[Path]:
        """A synced file beside the target that goes at the end, and the folder synced."""
        folder = self._path(key).parent
        temporary = folder / f"{_TEMPORARY}{os.getpid()}-{uuid.uuid4().hex}"
        with self._explained(key):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(folder)

    @contextmanager
    def _lock(self, folder: Path) -> Iterator[None]:
        """Hold the folder's lock; it ends with the process, however that ends."""
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn an OSError into a StoreError that says what to do."""
        try:
            yield
        except FerError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            advice = {
                errno.ENOSPC: "Free space on that disk and repeat; nothing half-written is left.",
                errno.EDQUOT: "Free space in your quota and repeat; nothing half-written is left.",
                errno.EROFS: "The disk is mounted read-only; choose another with FER_REGISTRY.",
                errno.EACCES: "Ask for permission on that folder, or choose another.",
                errno.EPERM: "Ask for permission on that folder, or choose another.",
                errno.ENOTDIR: "A file stands where the registry's folder should be; correct "
                "FER_REGISTRY or --registry.",
                errno.EEXIST: "A file stands where the registry's folder should be; correct "
                "FER_REGISTRY or --registry.",
            }.get(error.errno or 0, "Correct that and repeat.")
            raise StoreError(f"The registry {self.root}: {key}: {reason}. {advice}") from error


def _has_files(folder: str) -> bool:
    return any(not name.startswith(".") for _, _, files in os.walk(folder) for name in files)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
