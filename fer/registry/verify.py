"""Recomputing every digest of a registered version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fer.errors import NotFoundError, PackageError, StoreError
from fer.registry.documents import blob_key
from fer.registry.manifest import MANIFEST, PackageFile, PackageManifest
from fer.registry.progress import transfer_bar
from fer.registry.store import Progress, Store
from fer.registry.versions import Version


@dataclass(frozen=True)
class FileCheck:
    """What verification found of one file; `problem` is None where it is whole."""

    name: str
    sha256: str
    size: int
    problem: str | None


@dataclass(frozen=True)
class VerifyReport:
    """Every file of a version, its manifest first."""

    version: Version
    files: list[FileCheck]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not any(file.problem for file in self.files)


def verify_version(store: Store, version: Version, progress: bool = False) -> VerifyReport:
    """Read every byte of a version from `store` and compare sizes and digests."""
    data = b""
    checks = []
    try:
        data = store.get(blob_key(version.digest)).data
        found = hashlib.sha256(data).hexdigest()
        problem = None if found == version.digest else "its bytes were altered"
        if problem is None and PackageManifest.from_bytes(data) != version.manifest:
            problem = "the version document describes another package"
    except NotFoundError:
        problem = "it is missing"
    except (StoreError, PackageError) as error:
        problem = str(error)
    checks.append(FileCheck(MANIFEST, version.digest, len(data), problem))
    files = sorted(version.manifest.files.items())
    with transfer_bar(f"Verifying {version}", version.size, progress) as moved:
        checks += [
            FileCheck(name, entry.sha256, entry.size, blob_problem(store, entry, moved))
            for name, entry in files
        ]
    return VerifyReport(version, checks)


def blob_problem(store: Store, entry: PackageFile, moved: Progress) -> str | None:
    """What is wrong with a blob, every byte of which is read; None where nothing is."""
    digest, size = hashlib.sha256(), 0
    try:
        for block in store.read(blob_key(entry.sha256)):
            digest.update(block)
            size += len(block)
            moved(len(block))
    except NotFoundError:
        return "it is missing"
    except StoreError as error:
        return f"it cannot be read: {error}"
    if size != entry.size:
        return f"it has {size:,} bytes instead of {entry.size:,}"
    return None if digest.hexdigest() == entry.sha256 else "its bytes were altered"
