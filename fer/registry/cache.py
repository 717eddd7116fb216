"""Pulled packages on the local disk, keyed by digest, and what references meant last time.

<cache>/models/sha256-<digest>/      a package, complete and verified; lands by one rename
<cache>/models/.parts/<digest>/      a pull under way, or to be resumed
<cache>/models/.locks/<digest>       held by the process that pulls it
<cache>/models/.used/<digest>        touched at each use, and held while a process uses it
<cache>/models/.references/<id>.json what a reference meant, for work without the network
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fer.errors import NotFoundError, PackageError, RegistryError, UnavailableError
from fer.files import sha256_of, write_bytes, write_json
from fer.registry.documents import blob_key, now
from fer.registry.eviction import evict, hold
from fer.registry.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    PackageFile,
    PackageManifest,
    parse_json,
)
from fer.registry.package import ModelPackage, replace_folder
from fer.registry.progress import transfer_bar
from fer.registry.store import BLOCK, Progress, Store

_log = logging.getLogger(__name__)
_DOWNLOADS: Final = 4
_RECORD: Final = 1 << 18
_TRIES_WITHOUT_PROGRESS: Final = 5


class ModelCache:
    """The cache in `folder`; any number of processes may share it.

    Args:
        folder: made at the first pull.
        limit: bytes that packages may take; beyond it the longest unused go. None: no limit.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = Path(os.path.abspath(folder.expanduser()))
        self.limit = limit

    def path(self, digest: str) -> Path:
        """Where the package with this digest lies once pulled."""
        return self.folder / f"sha256-{digest}"

    def find(self, digest: str) -> ModelPackage | None:
        """The cached package, verified anew; None where it is absent or damaged."""
        path = self.path(digest)
        if not path.is_dir():
            return None
        try:
            return ModelPackage.open(path, digest=digest)
        except PackageError as error:
            _log.warning("A cached package is damaged and will be pulled again: %s", error)
            return None

    def pull(
        self, store: Store, digest: str, label: str = "model", progress: bool = False
    ) -> ModelPackage:
        """The package with this digest, from the cache or downloaded into it.

        Files come in parallel; a broken one is resumed, also by a later call. Nothing appears
        under `path(digest)` before every digest was checked.

        Raises:
            NotFoundError: the store lacks one of its blobs.
            PackageError: the store's bytes do not match their digests.
            UnavailableError: the store cannot be reached.
        """
        # Held before anything is looked at, so that nobody evicts what is found.
        with self._explained():
            held = hold(self.folder, digest)
        try:
            package = self._pull(store, digest, label, progress)
        except BaseException:
            held.close()
            raise
        held.until_gone(package)
        with self._explained():
            evict(self.folder, self.limit, keep=digest)
        return package

    def _pull(self, store: Store, digest: str, label: str, progress: bool) -> ModelPackage:
        if (package := self.find(digest)) is not None:
            return package
        with self._explained(), self._lock(digest):
            # Another process may have pulled it while this one waited.
            if (package := self.find(digest)) is not None:
                return package
            parts = self.folder / ".parts" / digest
            parts.mkdir(parents=True, exist_ok=True)
            manifest_bytes = _manifest_bytes(store, digest, label)
            manifest = PackageManifest.from_bytes(manifest_bytes, f"The manifest of {label}")
            write_bytes(parts / MANIFEST, manifest_bytes)
            with transfer_bar(f"Pulling {label}", manifest.size, progress) as moved:
                _download_all(store, manifest, parts, label, moved)
            # Every file was hashed on its way in, so it is not read once more.
            replace_folder(parts, self.path(digest))
            return ModelPackage(self.path(digest), manifest, digest)

    def remember(
        self,
        registry: str,
        reference: str,
        number: int,
        digest: str,
        signatures: Mapping[str, Any] | None = None,
    ) -> None:
        """Note what a reference means now, and who signed that."""
        record = {
            "registry": registry,
            "reference": reference,
            "version": number,
            "digest": digest,
            "resolved": now(),
            "signatures": dict(signatures or {}),
        }
        with self._explained():
            write_json(self._record(registry, reference), record)

    def signatures(self, registry: str, reference: str) -> dict[str, Any]:
        """The signatures of what a reference meant when it was last pulled."""
        try:
            record = parse_json(self._record(registry, reference).read_bytes(), _RECORD)
            return dict(record["signatures"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def knows(self, registry: str, reference: str) -> bool:
        """Whether `recall` has something to go on."""
        return self._record(registry, reference).is_file()

    def recall(self, registry: str, reference: str, why: str) -> ModelPackage:
        """The package that a reference meant when it was last pulled.

        Args:
            registry: identity of the store.
            reference: as pulled.
            why: why the registry is not asked; the log says it.

        Raises:
            NotFoundError: it was never pulled, or the cache has lost it.
        """
        advice = (
            f"{reference} is not in the cache {self.folder} ({why}). Pull it once with the "
            "registry at hand (`fer models pull`), or name a package's folder."
        )
        try:
            record = parse_json(self._record(registry, reference).read_bytes(), _RECORD)
            number, digest = int(record["version"]), str(record["digest"])
            resolved = str(record["resolved"])
        except (OSError, ValueError, KeyError, TypeError):
            raise NotFoundError(advice) from None
        with self._explained():
            held = hold(self.folder, digest)
        package = self.find(digest)
        if package is None:
            held.close()
            raise NotFoundError(advice)
        held.until_gone(package)
        _log.warning(
            "%s. Using %s as it was on %s: version %d.",
            why.rstrip("."),
            reference,
            resolved,
            number,
        )
        return package

    def _record(self, registry: str, reference: str) -> Path:
        name = hashlib.sha256(f"{registry}\n{reference}".encode()).hexdigest()[:32]
        return self.folder / ".references" / f"{name}.json"

    @contextmanager
    def _lock(self, digest: str) -> Iterator[None]:
        import fcntl

        path = self.folder / ".locks" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                advice = "Free space there, or set FER_CACHE to another disk; a repeat resumes."
            else:
                advice = "Set FER_CACHE to a folder that can be written."
            raise RegistryError(
                f"The cache {self.folder}: {error.strerror or error}. {advice}"
            ) from error


def _manifest_bytes(store: Store, digest: str, label: str) -> bytes:
    try:
        data = store.get(blob_key(digest), MAX_MANIFEST_BYTES).data
    except NotFoundError:
        raise NotFoundError(
            f"{label} is incomplete: {store.url} lacks its manifest. Run `fer models verify "
            f"{label}` and register the package anew."
        ) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise _altered(store, MANIFEST, label)
    return data


def _download_all(
    store: Store, manifest: PackageManifest, parts: Path, label: str, moved: Progress
) -> None:
    def fetch(item: tuple[str, PackageFile]) -> None:
        _download(store, item[0], item[1], parts, label, moved)

    # Large files first: they decide how long it takes.
    items = sorted(manifest.files.items(), key=lambda item: -item[1].size)
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        try:
            list(pool.map(fetch, items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _download(
    store: Store, name: str, entry: PackageFile, parts: Path, label: str, moved: Progress
) -> None:
    """Bring one file into `parts`, going on from what an earlier try left."""
    target = parts / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and target.stat().st_size == entry.size and _matches(target, entry):
        moved(entry.size)
        return
    # No file of a package starts with a dot, so this is nobody's name.
    part = target.with_name(f".{target.name}.part")
    for fresh in (False, True):
        if fresh:
            # What was resumed did not fit; once more from the start.
            part.unlink(missing_ok=True)
        if _fill(store, entry, part, moved) == entry.sha256:
            part.replace(target)
            return
    part.unlink(missing_ok=True)
    raise _altered(store, name, label)


def _fill(store: Store, entry: PackageFile, part: Path, moved: Progress) -> str:
    """Read on until `part` has the whole length, a broken stream is taken up again; its sha256."""
    failures = 0
    have = part.stat().st_size if part.is_file() else 0
    if have > entry.size:
        part.unlink()
        have = 0
    digest = hashlib.sha256()
    if have:
        with part.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    moved(have)
    while have < entry.size or not part.is_file():
        problem: UnavailableError | None = None
        try:
            store.download_to(blob_key(entry.sha256), part, have, entry.size, moved, digest)
        except UnavailableError as error:
            problem = error
        except NotFoundError:
            raise NotFoundError(
                f"{store.url} lacks {blob_key(entry.sha256)}, which the package needs. Register "
                "the package anew: that uploads what is missing."
            ) from None
        now_have = part.stat().st_size if part.is_file() else 0
        if now_have >= entry.size:
            break
        failures = 0 if now_have > have else failures + 1
        if failures >= _TRIES_WITHOUT_PROGRESS:
            raise problem or UnavailableError(
                f"{store.url} ends {blob_key(entry.sha256)} after {now_have:,} of {entry.size:,} "
                "bytes. Run `fer models verify`; if it says so too, register the package anew."
            )
        have = now_have
        time.sleep(random.uniform(0, 0.1 * 2**failures))  # noqa: S311
    return digest.hexdigest()


def _altered(store: Store, name: str, label: str) -> PackageError:
    return PackageError(
        f"{store.url} holds altered bytes for {name} of {label}: their sha256 does not match. "
        f"Nothing was put into the cache. Run `fer models verify {label}`, restore that blob from "
        "a backup or delete it, and register the package anew."
    )


def _matches(path: Path, entry: PackageFile) -> bool:
    return path.stat().st_size == entry.size and sha256_of(path) == entry.sha256
