"""The model registry: versions, aliases and events on nothing but an object store.

`documents.py` describes the layout and why many writers at once are safe.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from fer.errors import (
    ConflictError,
    NotFoundError,
    PackageError,
    RegistryError,
    SettingsError,
    UnavailableError,
)
from fer.registry.cache import ModelCache
from fer.registry.catalog import Catalog, in_parallel, to_alias, to_version
from fer.registry.documents import (
    HISTORY,
    ROOT,
    Alias,
    AliasDocument,
    DigestDocument,
    Event,
    RootDocument,
    Version,
    VersionDocument,
    alias_key,
    blob_key,
    digest_key,
    new_id,
    now,
    version_key,
)
from fer.registry.manifest import MANIFEST, describe
from fer.registry.package import ModelPackage
from fer.registry.progress import transfer_bar
from fer.registry.reference import (
    DEFAULT_ALIAS,
    ModelReference,
    check_alias,
    check_name,
)
from fer.registry.store import Store, open_store
from fer.registry.verify import VerifyReport, verify_version
from fer.settings import settings

_log = logging.getLogger(__name__)
_TRIES: Final = 500


class Registry(Catalog):
    """A registry on a store; `Registry.open()` makes one from FER_REGISTRY."""

    def __init__(self, store: Store, cache: ModelCache | None = None) -> None:
        super().__init__(store)
        self.cache = cache or ModelCache(settings().cache / "models")

    @classmethod
    def open(cls, url: str | None = None) -> Registry:
        """The registry at `url`: a folder's path, or s3://bucket/prefix. Contacts nothing yet.

        Args:
            url: None takes FER_REGISTRY.

        Raises:
            SettingsError: no address, or not one of a registry.
        """
        url = url or settings().registry
        if url is None:
            raise SettingsError(
                "No registry is named. Set FER_REGISTRY to a folder or s3://bucket/prefix, or "
                "give --registry."
            )
        return cls(open_store(url))

    # Writing ------------------------------------------------------------------------------

    def register(
        self, folder: Path | str | ModelPackage, note: str = "", *, progress: bool = False
    ) -> Version:
        """Register the package in `folder` as the next version of its model.

        Files go up first, those already there are skipped; creating the version document is
        the commit, so a version is visible whole or not at all. Registering the same package
        again returns the version it has.

        Raises:
            PackageError: the package is not whole.
            StoreError: the store refuses; nothing became visible.
        """
        package = folder if isinstance(folder, ModelPackage) else ModelPackage.open(folder)
        name = check_name(package.name)
        self._begin_writing()
        number = max(self._present_numbers(name), default=0)
        uploaded = False
        for _ in range(_TRIES * 20):
            if (known := self._registered(name, package.digest, number)) is not None:
                return known
            if not uploaded:
                self._upload(package, progress)
                uploaded = True
            document = VersionDocument(
                name=name,
                number=number + 1,
                digest=package.digest,
                created=now(),
                author=_author(),
                note=note,
                nonce=new_id(),
                package=package.manifest,
            )
            try:
                self.store.create_if_absent(version_key(name, number + 1), document.to_bytes())
            except ConflictError:
                # Others may have gone on by several; a listing may lag behind the conflict.
                number = max([number + 1, *self._present_numbers(name)])
                continue
            self._settle_version(document, fresh=True)
            return to_version(document)
        raise ConflictError(f"Too many others register {name!r} at once. Repeat the command.")

    def promote(
        self,
        name: str,
        number: int,
        alias: str = DEFAULT_ALIAS,
        reason: str = "",
        gate: dict[str, Any] | None = None,
        *,
        expected: int | None = None,
    ) -> Alias:
        """Point an alias at a version, and record it.

        Args:
            name: the model.
            number: the version.
            alias: `champion`, `challenger` or any other.
            reason: why; kept in the event log.
            gate: the decision's figures as JSON; kept in the event log.
            expected: move only while the alias points at this version (0: does not exist).

        Raises:
            NotFoundError: no such version.
            ConflictError: the alias does not point at `expected`.
        """
        check_alias(alias, movable=True)
        target = self.resolve(ModelReference(name=check_name(name), number=number))

        def next_target(present: AliasDocument | None) -> Version:
            at = present.version if present else 0
            if expected is not None and at != expected:
                raise ConflictError(
                    f"{name}@{alias} points at version {at or 'none'}, not at {expected}: somebody "
                    "moved it. Look at it with `fer models show` and decide again."
                )
            return target

        return self._move(name, alias, "promote", reason, gate, next_target)

    def rollback(self, name: str, alias: str = DEFAULT_ALIAS, reason: str = "") -> Alias:
        """Point an alias back at the version it pointed at before; twice returns.

        Raises:
            NotFoundError: no such alias, or it never pointed elsewhere.
        """
        check_alias(alias, movable=True)
        check_name(name)

        def next_target(present: AliasDocument | None) -> Version:
            if present is None:
                raise self._no_alias(name, alias)
            if present.previous is None:
                raise NotFoundError(
                    f"{name}@{alias} has pointed at version {present.version} alone, so there is "
                    "nothing to go back to. Promote another version instead."
                )
            return self._version(name, present.previous)

        return self._move(name, alias, "rollback", reason, None, next_target)

    # Moving bytes -------------------------------------------------------------------------

    def pull(self, reference: str | Path | ModelReference, progress: bool = False) -> ModelPackage:
        """The package a reference means, from the cache or through it.

        Every file is verified. With FER_OFFLINE, or where the store cannot be reached, what the
        reference meant last time is used, and the log says so.

        Args:
            reference: name, name@alias, name:7, or a package's path.
            progress: show a bar on stderr even where it is no terminal.

        Raises:
            NotFoundError: no such model, alias or version, or offline and never pulled.
            PackageError: the registry holds bytes that do not match.
        """
        wanted = (
            reference if isinstance(reference, ModelReference) else ModelReference.parse(reference)
        )
        if wanted.path is not None:
            return ModelPackage.open(wanted.path)
        if settings().offline:
            return self.cache.recall(self.store.identity, str(wanted), "FER_OFFLINE is set")
        try:
            version = self.resolve(wanted)
            package = self.cache.pull(self.store, version.digest, str(version), progress)
        except UnavailableError as error:
            if not self.cache.knows(self.store.identity, str(wanted)):
                raise
            return self.cache.recall(self.store.identity, str(wanted), str(error))
        if package.name != version.name:
            raise PackageError(
                f"{version} holds a package of the model {package.name!r}. Run `fer models verify "
                f"{version}` and register it anew."
            )
        for meaning in {str(wanted), str(version)}:
            self.cache.remember(self.store.identity, meaning, version.number, version.digest)
        return package

    def verify(self, reference: str | ModelReference, progress: bool = False) -> VerifyReport:
        """Read every byte of a version and recompute its digests.

        Raises:
            NotFoundError: no such version.
        """
        version = self.resolve(reference)
        return verify_version(self.store, version, progress)

    def _upload(self, package: ModelPackage, progress: bool) -> None:
        blobs = {entry.sha256: package.file(name) for name, entry in package.manifest.files.items()}
        sizes = {entry.sha256: entry.size for entry in package.manifest.files.values()}
        blobs[package.digest] = package.folder / MANIFEST
        sizes[package.digest] = blobs[package.digest].stat().st_size
        with transfer_bar(f"Registering {package.name}", sum(sizes.values()), progress) as moved:

            def send(digest: str) -> None:
                stat = self.store.head(blob_key(digest))
                if stat is not None and stat.size == sizes[digest]:
                    moved(sizes[digest])
                    return
                self.store.upload_from(blob_key(digest), blobs[digest], digest, moved)

            in_parallel(send, list(blobs), workers=4)

    # Inside -------------------------------------------------------------------------------

    def _begin_writing(self) -> None:
        # Read first: some servers make a misspelt bucket when it is written to.
        self._check_root()
        self.store.check_conditional()
        if not self._root_checked:
            try:
                self.store.create_if_absent(ROOT, RootDocument(created=now()).to_bytes())
            except ConflictError:
                self._root_checked = False
                self._check_root()

    def _registered(self, name: str, digest: str, newest: int) -> Version | None:
        """The version up to `newest` that has this digest.

        The newest version's digest entry and event are completed first: after that every
        version up to it can be found by digest, and a newer one may be committed.
        """
        if not newest:
            return None
        document = self._document(name, newest)
        self._settle_version(document)
        if document.digest == digest:
            return to_version(document)
        key = digest_key(name, digest)
        try:
            found = DigestDocument.from_bytes(self.store.get(key).data, f"{self.url}/{key}")
        except NotFoundError:
            return None
        version = self._version(name, found.number)
        return version if version.digest == digest else None

    def _settle_version(self, document: VersionDocument, *, fresh: bool = False) -> None:
        """Write what follows from a version; anyone may, any number of times."""
        entry = DigestDocument(number=document.number)
        self._ensure(digest_key(document.name, document.digest), entry.to_bytes(), fresh=fresh)
        self._ensure(document.event.key, document.event.to_bytes(), fresh=fresh)

    def _ensure(self, key: str, data: bytes, *, fresh: bool = False) -> None:
        # One that is not our own mostly stands already; asking is cheaper than a refused write.
        if fresh or self.store.head(key) is None:
            try:
                self.store.create_if_absent(key, data)
            except ConflictError:
                _log.debug("%s was written by another process meanwhile", key)

    def _move(
        self,
        name: str,
        alias: str,
        action: str,
        reason: str,
        gate: dict[str, Any] | None,
        next_target: Callable[[AliasDocument | None], Version],
    ) -> Alias:
        """Compare-and-swap an alias until it holds; every move is an event."""
        self._begin_writing()
        key, identity = alias_key(name, alias), new_id()
        for attempt in range(_TRIES):
            present, etag = self._read_alias(key)
            if present is not None and _has_move(present, identity):
                # Our write held though its answer was lost, and others moved on from it.
                return to_alias(present)
            target = next_target(present)
            try:
                event = Event(
                    id=identity,
                    time=now(),
                    name=name,
                    action=action,
                    version=target.number,
                    alias=alias,
                    previous=present.version if present else None,
                    author=_author(),
                    reason=reason,
                    gate=gate,
                )
            except ValidationError as error:
                raise RegistryError(
                    f"The gate's figures cannot be kept: {describe(error)}. Give plain JSON."
                ) from None
            document = _moved(present, target, event)
            try:
                if present is None:
                    self.store.create_if_absent(key, document.to_bytes())
                else:
                    self._ensure(present.event.key, present.event.to_bytes())
                    self.store.swap(key, document.to_bytes(), etag)
            except ConflictError:
                time.sleep(min(0.2, 0.002 * attempt) * (os.urandom(1)[0] / 255))
                continue
            self._ensure(event.key, event.to_bytes(), fresh=True)
            return to_alias(document)
        raise ConflictError(f"Too many others move {name}@{alias} at once. Repeat the command.")


def pull(
    reference: str | Path, registry: str | None = None, *, progress: bool = False
) -> ModelPackage:
    """The package a reference means; a path needs no registry.

    Args:
        reference: name, name@alias, name:7, or a package's path.
        registry: the registry's address; None takes FER_REGISTRY.
        progress: show a bar on stderr even where it is no terminal.
    """
    wanted = ModelReference.parse(reference)
    if wanted.path is not None:
        return ModelPackage.open(wanted.path)
    return Registry.open(registry).pull(wanted, progress)


def _moved(present: AliasDocument | None, target: Version, event: Event) -> AliasDocument:
    """The alias after a move; moving to where it points keeps its predecessor."""
    entry: dict[str, Any] = {"version": target.number, "event": event.id, "time": event.time}
    if present is None:
        previous, history, generation = None, [], 0
    else:
        stays = present.version == target.number
        previous = present.previous if stays else present.version
        history, generation = present.history, present.generation
    return AliasDocument(
        name=target.name,
        alias=event.alias or DEFAULT_ALIAS,
        version=target.number,
        digest=target.digest,
        previous=previous,
        generation=generation + 1,
        event=event,
        history=[*history, entry][-HISTORY:],
    )


def _has_move(document: AliasDocument, identity: str) -> bool:
    return any(entry.get("event") == identity for entry in document.history)


def _author() -> str:
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
