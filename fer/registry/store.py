"""The small interface a registry needs of its storage, and what every store shares.

A store maps keys to bytes. Two operations carry all of the registry's guarantees:
`create_if_absent` (one winner) and `swap` (replace only what was read). A folder and S3
implement it; `tests/registry/test_store.py` is the suite that both pass.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from fer.errors import ConflictError, NotFoundError, SettingsError, StoreError, UnsafeStoreError

BLOCK: Final = 1 << 20
MAX_DOCUMENT: Final = 4 << 20
"""Largest JSON document that is read into memory."""

Progress = Callable[[int], None]
"""Called with the number of bytes just moved."""


class Digest(Protocol):
    """What hashlib's objects do."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""


_SEGMENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")
_probed: set[tuple[int, str]] = set()


@dataclass(frozen=True)
class Stat:
    """What a listing tells of one key: bytes and the time of change (unix seconds)."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True)
class Stored:
    """A value and the entity tag it was read with; `swap` wants that tag."""

    data: bytes
    etag: str


class Store(ABC):
    """Keys are `/`-separated segments of `[a-z0-9._-]`, relative to the registry's root.

    Every method raises `StoreError` with what to do where the storage refuses or is absent,
    and `UnavailableError` where another try may help.
    """

    url: str
    """What the user named: a folder's path, or s3://bucket/prefix."""

    identity: str
    """Tells two stores apart, the endpoint included; resolved references are kept under it."""

    @abstractmethod
    def get(self, key: str, limit: int = MAX_DOCUMENT) -> Stored:
        """Read a value into memory.

        Raises:
            NotFoundError: no such key.
            StoreError: it has more than `limit` bytes.
        """

    @abstractmethod
    def put(self, key: str, data: bytes) -> str:
        """Write a value, whole or not at all, whether or not the key exists; return its tag."""

    @abstractmethod
    def create_if_absent(self, key: str, data: bytes) -> str:
        """Create a key; return its tag.

        Where the key exists with these very bytes the call succeeds: it may be our own write,
        whose answer was lost. So writers that compete put a nonce into `data`.

        Raises:
            ConflictError: the key exists with other bytes.
        """

    @abstractmethod
    def swap(self, key: str, data: bytes, etag: str) -> str:
        """Replace a value only while it still has `etag`; return the new tag.

        Success with our own bytes already there counts, as in `create_if_absent`.

        Raises:
            ConflictError: it has changed or gone meanwhile.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a key; a missing one is no error."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Stat]:
        """All keys under a `prefix` that is empty or ends with `/`, in no promised order."""

    @abstractmethod
    def folders(self, prefix: str) -> Iterator[str]:
        """Names directly under `prefix` (ends with `/`) that have keys below them."""

    @abstractmethod
    def head(self, key: str) -> Stat | None:
        """Size and time of a key; None where it does not exist."""

    @abstractmethod
    def read(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """Stream a value in blocks from `offset` on.

        Raises:
            NotFoundError: no such key.
            UnavailableError: the stream broke; call again with a later offset.
        """

    @abstractmethod
    def upload_from(
        self, key: str, path: Path, sha256: str, progress: Progress | None = None
    ) -> None:
        """Write a file's bytes to `key` with flat memory.

        Args:
            key: where to.
            path: the file.
            sha256: of its bytes; checked on the way as far as the store can.
            progress: called with the bytes of each block.
        """

    def leftovers(self, before: float, *, remove: bool = False) -> Iterator[tuple[str, int]]:
        """What killed writers left that is no key, older than `before` (unix seconds).

        Args:
            before: on the store's clock.
            remove: remove each as it is named.

        Returns:
            Name and bytes of each; by default there are none.
        """
        yield from ()

    def download_to(
        self,
        key: str,
        path: Path,
        offset: int = 0,
        size: int | None = None,
        progress: Progress | None = None,
        digest: Digest | None = None,
    ) -> None:
        """Write a value's bytes from `offset` on into `path`, which has `offset` bytes already.

        With `size`, a value that turns out longer ends there and is one block too long at most.
        What is written goes into `digest` too, so that nothing need be read again to be checked.

        Where the stream breaks, what came stays in the file, and a later call goes on from
        there. The caller verifies the digest of the whole.
        """
        with path.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.truncate()
            for block in self.read(key, offset):
                file.write(block)
                if digest is not None:
                    digest.update(block)
                offset += len(block)
                if progress is not None:
                    progress(len(block))
                if size is not None and offset > size:
                    return

    def check_conditional(self) -> None:
        """Prove by a probe that the store honours conditions; once per process and store.

        Raises:
            UnsafeStoreError: it ignored one, so several writers would lose updates.
            StoreError: it cannot be written.
        """
        mark = (os.getpid(), self.identity)
        if mark in _probed:
            return
        key = f"probes/{uuid.uuid4().hex}.json"
        first, second, third = (b'{"probe":%d}' % number for number in (1, 2, 3))
        etag = self.create_if_absent(key, first)
        try:
            if self.get(key).data != first:
                raise UnsafeStoreError(self._unsafe("gives back other bytes than were written"))
            if not self._refused(lambda: self.create_if_absent(key, second)):
                raise UnsafeStoreError(self._unsafe("ignores If-None-Match"))
            self.swap(key, second, etag)
            if not self._refused(lambda: self.swap(key, third, etag)):
                raise UnsafeStoreError(self._unsafe("ignores If-Match"))
            if self.get(key).data != second:
                raise UnsafeStoreError(self._unsafe("changes a value in spite of a refusal"))
        finally:
            self._forget_probe(key)
        _probed.add(mark)

    def _unsafe(self, what: str) -> str:
        return (
            f"{self.url} {what}, so two writers would overwrite each other's versions. Use a "
            "store with conditional writes (AWS S3, SeaweedFS 4.17 or later, a local folder); or, "
            "if only one process ever writes to this registry, set FER_SINGLE_WRITER=1."
        )

    @staticmethod
    def _refused(write: Callable[[], str]) -> bool:
        try:
            write()
        except ConflictError:
            return True
        return False

    def _forget_probe(self, key: str) -> None:
        # A writer may lack the permission to delete; a probe of 11 bytes may stay then.
        try:
            self.delete(key)
        except StoreError:
            return


def check_key(key: str) -> str:
    """Return `key` where every store can hold it.

    Raises:
        StoreError: odd characters, an empty or dotted segment.
    """
    segments = key.split("/")
    if len(key) > 800 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise StoreError(f"{key[:120]!r} cannot be a key: segments of [a-z0-9._-], no leading dot.")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` where it is empty or a key followed by `/`."""
    if prefix:
        if not prefix.endswith("/"):
            raise StoreError(f"The prefix {prefix!r} does not end with a slash.")
        check_key(prefix[:-1])
    return prefix


def sha256_tag(data: bytes) -> str:
    """Entity tag by content."""
    return hashlib.sha256(data).hexdigest()


def missing(url: str, key: str) -> NotFoundError:
    """The error for a key that does not exist."""
    return NotFoundError(f"{url} holds no {key}. `fer models list` shows what is there.")


def open_store(url: str) -> Store:
    """The store a registry URL names: `s3://bucket/prefix`, or a folder's path.

    Nothing is contacted or created yet.

    Raises:
        SettingsError: another scheme, or no bucket.
    """
    if url.startswith("s3://"):
        from fer.registry.s3_store import S3Store

        return S3Store.from_url(url)
    if "://" in url:
        raise SettingsError(
            f"{url!r} is no registry. Give a folder's path or s3://bucket/prefix "
            "(FER_REGISTRY or --registry)."
        )
    if not url.strip():
        raise SettingsError("The registry's path is empty. Set FER_REGISTRY or give --registry.")
    from fer.registry.folder_store import FolderStore

    return FolderStore(Path(url))
