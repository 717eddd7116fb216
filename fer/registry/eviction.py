"""Keeping the cache of pulled packages below a size: the longest unused go first.

A process holds a shared lock on a package from before it looks for it until the `ModelPackage`
is gone from memory, or the process is. Eviction takes that lock for itself or leaves the package
alone, and renames it away before it deletes, so no reader meets half a package.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import time
import uuid
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fer.errors import RegistryError
from fer.files import locked

if TYPE_CHECKING:
    from fer.registry.package import ModelPackage

RECENT: Final = 600.0
"""Seconds after its latest use for which a package stays, held or not: `fer models pull` prints
a folder for the next command to use."""

_log = logging.getLogger(__name__)
_PACKAGE: Final = "sha256-"
_GONE: Final = ".gone-"


class Hold:
    """A package that this process uses; `close` lets it go."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Let it go; twice is no error."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def until_gone(self, package: ModelPackage) -> None:
        """Keep the hold for as long as `package` is referred to."""
        weakref.finalize(package, self.close)


@dataclass(frozen=True)
class Cached:
    """A package in the cache."""

    digest: str
    size: int
    used: float


def hold(folder: Path, digest: str) -> Hold:
    """Mark a package as used now, and hold it."""
    path = folder / ".used" / digest
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.utime(path)
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise
        # A cache that only others may write to: what lies in it is used all the same.
        descriptor = os.open(os.devnull, os.O_RDONLY)
        return Hold(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return Hold(descriptor)


def cached(folder: Path) -> list[Cached]:
    """All packages in the cache, the longest unused first."""
    found = []
    for path in folder.glob(f"{_PACKAGE}*"):
        digest = path.name.removeprefix(_PACKAGE)
        try:
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            mark = folder / ".used" / digest
            used = (mark if mark.exists() else path).stat().st_mtime
        except FileNotFoundError:
            continue  # evicted meanwhile
        found.append(Cached(digest, size, used))
    return sorted(found, key=lambda one: one.used)


def evict(folder: Path, limit: int | None, keep: str = "") -> list[str]:
    """Delete the longest unused packages until the rest fits into `limit` bytes.

    What a process holds, what was used in the last ten minutes, and `keep` stay, so that the
    limit may be exceeded for a while.

    Returns:
        Digests of what was deleted.
    """
    if limit is None:
        return []
    gone = []
    with locked(folder / ".locks" / "eviction"):
        for left in folder.glob(f"{_GONE}*"):  # of an eviction that was killed
            shutil.rmtree(left, ignore_errors=True)
        packages = cached(folder)
        total = sum(one.size for one in packages)
        for one in packages:
            if total <= limit:
                break
            if one.digest == keep or time.time() - one.used < RECENT:
                continue
            if _remove(folder, one.digest):
                _log.info("Evicted %s from the cache (%d bytes)", one.digest[:12], one.size)
                gone.append(one.digest)
                total -= one.size
    if total > limit:
        _log.warning(
            "The cache %s has %.1f MB, over FER_CACHE_LIMIT: the rest is in use or was just used.",
            folder,
            total / 1e6,
        )
    return gone


def _remove(folder: Path, digest: str) -> bool:
    """Delete a package that nobody holds."""
    mark = folder / ".used" / digest
    mark.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(mark, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        away = folder / f"{_GONE}{uuid.uuid4().hex}"
        try:
            (folder / f"{_PACKAGE}{digest}").rename(away)
        except OSError as error:
            raise RegistryError(
                f"{folder} holds a package that cannot be deleted ({error.strerror}). Give its "
                "owner's permission, or unset FER_CACHE_LIMIT."
            ) from None
        # The mark stays: another process may be waiting for it at this moment.
        shutil.rmtree(away, ignore_errors=True)
        return True
    finally:
        os.close(descriptor)
