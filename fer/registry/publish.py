"""Registering a package: blobs first, then the one write that makes a version visible."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from fer.errors import ConflictError, NotFoundError, StoreError, UnavailableError
from fer.registry.aliases import AliasMover
from fer.registry.catalog import in_parallel
from fer.registry.documents import (
    INDEXED,
    DigestDocument,
    IndexDocument,
    VersionDocument,
    blob_key,
    digest_key,
    index_key,
    new_id,
    now,
    version_key,
)
from fer.registry.manifest import MANIFEST, PackageFile
from fer.registry.package import ModelPackage, check_file
from fer.registry.progress import transfer_bar
from fer.registry.reference import check_name
from fer.registry.store import Progress
from fer.registry.sweep import pending
from fer.registry.versions import Version, summarise, summary_record
from fer.registry.writer import TRIES, author, back_off

_HASHED_FIRST: Final = 16 << 20
"""Files up to this are checked before anything is sent, larger ones while they are."""


class Publisher(AliasMover):
    """Registration."""

    def initialize(self) -> None:
        """Make a registry where there is none, and prove that its store is fit for one.

        The first write does the same; this says it before there is anything to lose.

        Raises:
            UnsafeStoreError: the store ignores conditional writes.
            StoreError: it is absent, or cannot be written.
            RegistryError: there is something else, or a registry of a newer schema.
        """
        self._begin_writing()

    def register(
        self,
        folder: Path | str | ModelPackage,
        note: str = "",
        *,
        progress: bool = False,
        origin: dict[str, Any] | None = None,
    ) -> Version:
        """Register the package in `folder` as the next version of its model.

        Files go up first, those already there are skipped; creating the version document is
        the commit, so a version is visible whole or not at all. Registering the same package
        again returns the version it has, and uploads what that lacks; where that version was
        deleted, it becomes a new one.

        Args:
            folder: of the package.
            note: kept with the version.
            progress: show a bar on stderr even where it is no terminal.
            origin: where it was imported from; see `Version`.

        Raises:
            PackageError: the package is not whole.
            StoreError: the store refuses; nothing became visible.
        """
        package = (
            folder
            if isinstance(folder, ModelPackage)
            else ModelPackage.open(folder, hash_up_to=_HASHED_FIRST)
        )
        name = check_name(package.name)
        self._begin_writing()
        blobs = {package.digest, *(file.sha256 for file in package.manifest.files.values())}
        with pending(self.store, str(package.name), blobs), ThreadPoolExecutor(1) as pool:
            # What is registered already is looked up while the files go up: over a network, that
            # takes longer than a small package.
            looked = pool.submit(self._look, name, package.digest)
            self._upload(package, progress)
            return self._commit(name, package, note, origin, looked)

    def _upload(self, package: ModelPackage, progress: bool) -> None:
        manifest = package.folder / MANIFEST
        whole = PackageFile(size=manifest.stat().st_size, sha256=package.digest)
        files: dict[PackageFile, list[Path]] = {whole: [manifest]}
        for name, entry in package.manifest.files.items():
            files.setdefault(entry, []).append(package.file(name))
        # Large files first: they decide how long it takes.
        waiting = sorted(files.items(), key=lambda item: -item[0].size)
        total = sum(entry.size for entry in files)
        with transfer_bar(f"Registering {package.name}", total, progress) as moved:
            in_parallel(lambda item: self._send(*item, moved), waiting, workers=4)

    def _send(self, entry: PackageFile, paths: list[Path], moved: Progress) -> None:
        """Upload a file of the package, unless the store has it; `paths` are its copies."""
        large = entry.size > _HASHED_FIRST
        stat = self.store.head(blob_key(entry.sha256))
        if stat is None or stat.size != entry.size:
            try:
                self.store.upload_from(blob_key(entry.sha256), paths[0], entry.sha256, moved)
            except UnavailableError:
                raise
            except StoreError:
                # Where the file is not what the manifest says, say that instead.
                check_file(paths[0], entry)
                raise
            paths = paths[1:]
        else:
            moved(entry.size)
        for path in paths:
            check_file(path, entry, hashed=large)

    def _commit(
        self,
        name: str,
        package: ModelPackage,
        note: str,
        origin: dict[str, Any] | None,
        looked: Future[tuple[int, Version | None]],
    ) -> Version:
        """Create the version document under the first number that is free.

        Args:
            name: the model.
            package: whose blobs are all there.
            note: kept with the version.
            origin: where it was imported from.
            looked: the newest version, and the one that has this package. What came since then
                is a conflict about the number.
        """
        number, known = looked.result()
        if known is not None:
            # It may have been deleted while the files went up.
            number, known = self._look(name, package.digest)
        for attempt in range(TRIES * 20):
            if known is not None:
                return known
            document = VersionDocument(
                name=name,
                number=number + 1,
                digest=package.digest,
                created=now(),
                author=author(),
                note=note,
                nonce=new_id(),
                origin=origin,
                package=package.manifest,
            )
            try:
                self.store.create_if_absent(version_key(name, number + 1), document.to_bytes())
            except ConflictError:
                back_off(attempt)
                # Others may have gone on by several; a listing may lag behind the conflict.
                number, known = self._look(name, package.digest, number + 1)
                continue
            self._settle_version(document, fresh=True)
            return Version.of(document)
        raise ConflictError(f"Too many others register {name!r} at once. Repeat the command.")

    def _look(self, name: str, digest: str, least: int = 0) -> tuple[int, Version | None]:
        """The newest version's number, `least` at least, and the version that has this digest."""
        newest = max([least, *self._known_numbers(name)])
        return newest, self._registered(name, digest, newest)

    def _registered(self, name: str, digest: str, newest: int) -> Version | None:
        """The version up to `newest` that has this digest and is not deleted.

        The newest version's digest entry and event are completed first: after that every
        version up to it can be found by digest, and a newer one may be committed.
        """
        if not newest:
            return None
        document = self._document(name, newest)
        self._settle_version(document)
        if document.digest == digest:
            found = document
        else:
            key = digest_key(name, digest)
            try:
                entry = DigestDocument.from_bytes(self.store.get(key).data, f"{self.url}/{key}")
            except NotFoundError:
                return None
            found = self._document(name, entry.number)
        if found.digest != digest or self.state(name, found.number).deleted:
            return None
        return Version.of(found)

    def _settle_version(self, document: VersionDocument, *, fresh: bool = False) -> None:
        """Write what follows from a version; anyone may, any number of times."""
        event = document.event
        with ThreadPoolExecutor(1) as pool:
            noted = pool.submit(self._note_digest, document, fresh=fresh)
            self._ensure(event.key, event.to_bytes(), fresh=fresh)
            noted.result()
        if document.number % INDEXED == 0:
            self._write_index(document.name, document.number // INDEXED - 1)

    def _note_digest(self, document: VersionDocument, *, fresh: bool) -> None:
        """Let the digest lead to this version, or to a later one with the same package.

        There are several only where the earlier ones were deleted.
        """
        key = digest_key(document.name, document.digest)
        data = DigestDocument(number=document.number).to_bytes()
        while True:
            try:
                if fresh:
                    self.store.create_if_absent(key, data)
                    return
                present = self.store.get(key)
                entry = DigestDocument.from_bytes(present.data, f"{self.url}/{key}")
                if entry.number < document.number:
                    self.store.swap(key, data, present.etag)
                return
            except NotFoundError:
                fresh = True
            except ConflictError:
                fresh = False

    def _write_index(self, name: str, part: int) -> None:
        """Sum up 100 versions for listings, unless somebody has."""
        key = index_key(name, part)
        if self.store.head(key) is not None:
            return
        numbers = range(part * INDEXED + 1, (part + 1) * INDEXED + 1)
        versions = in_parallel(lambda number: self._version(name, number), numbers)
        records = [summary_record(summarise(version)) for version in versions]
        self._ensure(key, IndexDocument(name=name, versions=records).to_bytes(), fresh=True)
