"""The model registry: versions, aliases and events on nothing but an object store.

`documents.py` describes the layout and why many writers at once are safe.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Self

from fer.errors import PackageError, SettingsError, UnavailableError
from fer.registry.audit import AuditReport, audit
from fer.registry.cache import ModelCache
from fer.registry.garbage import DAY, GarbageReport, collect
from fer.registry.package import ModelPackage
from fer.registry.publish import Publisher
from fer.registry.reference import ModelReference
from fer.registry.signatures import check_signature, sign_manifest
from fer.registry.store import Store, open_store
from fer.registry.verify import VerifyReport, verify_version
from fer.registry.versions import Version, VersionState
from fer.settings import settings

_log = logging.getLogger(__name__)


class Registry(Publisher):
    """A registry on a store; `Registry.open()` makes one from FER_REGISTRY."""

    def __init__(self, store: Store, cache: ModelCache | None = None) -> None:
        super().__init__(store)
        now = settings()
        self.cache = cache or ModelCache(now.cache / "models", now.cache_limit)

    @classmethod
    def open(cls, url: str | None = None) -> Self:
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

    def collect_garbage(
        self, grace: timedelta = DAY, *, apply: bool = False, progress: bool = False
    ) -> GarbageReport:
        """Find what nothing refers to, and with `apply` delete it.

        Purged are versions deleted longer than `grace` ago; deleted are the blobs that no other
        version and no registration under way needs, and what killed writers left behind. Nothing
        younger than `grace` goes.

        Args:
            grace: longer than the longest registration takes. 0 says that nobody registers now.
            apply: delete; otherwise only report what would go.
            progress: show a bar on stderr even where it is no terminal.

        Raises:
            RegistryError: a version document is damaged, so what it needs is not known; or
                another collection is under way. Nothing was deleted.
        """
        return collect(self, grace, apply=apply, progress=progress)

    def copy_to(
        self, target: Registry, reference: str | ModelReference, *, progress: bool = False
    ) -> Version:
        """Copy a version into another registry, where it becomes the next version of its model.

        Every digest is checked on the way out and on the way in. The copy says where it came
        from, and takes the note, the tags and the signatures along. A package that the target
        has already stays the version it is there.

        Args:
            target: the other registry.
            reference: name, name@alias or name:7 in this one.
            progress: show bars on stderr even where it is no terminal.

        Raises:
            NotFoundError: no such version here.
            PackageError: this registry holds bytes that do not match.
        """
        version = self.resolve(reference)
        package = self.pull(ModelReference(name=version.name, number=version.number), progress)
        origin = version.origin or {
            "registry": self.url,
            "version": version.number,
            "author": version.author,
            "created": version.created,
        }
        copied = target.register(package, version.note, progress=progress, origin=origin)
        state = self.state(version.name, version.number)
        if state.tags:
            target.tag(copied.name, copied.number, state.tags)
        for key, bundle in state.signatures.items():
            target.add_signature(copied.name, copied.number, key, bundle)
        return copied

    def sign(
        self, reference: str | ModelReference, key: Path, password: str | None = None
    ) -> VersionState:
        """Sign a version with a private key; its public key can then be demanded by `pull`.

        The package is pulled and checked first, so that nothing damaged is signed.

        Args:
            reference: name, name@alias or name:7.
            key: PEM file of a private key on NIST P-256, P-384 or P-521.
            password: of the key; None takes FER_SIGNING_PASSWORD.

        Raises:
            SignatureError: the key cannot be used, or model-signing is not installed.
            NotFoundError: no such version.
        """
        secret = settings().signing_password
        password = password or (secret.get_secret_value() if secret else None)
        version = self.resolve(reference)
        pinned = ModelReference(name=version.name, number=version.number)
        manifest = self.pull(pinned, trusted=()).manifest_bytes()
        signer, bundle = sign_manifest(manifest, key, password)
        return self.add_signature(version.name, version.number, signer, bundle)

    def pull(
        self,
        reference: str | Path | ModelReference,
        progress: bool = False,
        *,
        trusted: Sequence[Path] | None = None,
    ) -> ModelPackage:
        """The package a reference means, from the cache or through it.

        Every file is verified. With FER_OFFLINE, or where the store cannot be reached, what the
        reference meant last time is used, and the log says so.

        Args:
            reference: name, name@alias, name:7, or a package's path.
            progress: show a bar on stderr even where it is no terminal.
            trusted: public keys, one of which must have signed it; None takes FER_TRUSTED_KEYS,
                and none demands no signature. A path is opened whoever signed it.

        Raises:
            NotFoundError: no such model, alias or version, or offline and never pulled.
            PackageError: the registry holds bytes that do not match.
            SignatureError: no trusted key signed it.
        """
        keys = settings().trusted_keys if trusted is None else tuple(trusted)
        wanted = (
            reference if isinstance(reference, ModelReference) else ModelReference.parse(reference)
        )
        if wanted.path is not None:
            return ModelPackage.open(wanted.path)
        if settings().offline:
            return self._recall(str(wanted), "FER_OFFLINE is set", keys)
        try:
            version = self.resolve(wanted)
            package = self.cache.pull(self.store, version.digest, str(version), progress)
            state = self.state(version.name, version.number)
        except UnavailableError as error:
            if not self.cache.knows(self.store.identity, str(wanted)):
                raise
            return self._recall(str(wanted), str(error), keys)
        if package.name != version.name:
            raise PackageError(
                f"{version} holds a package of the model {package.name!r}. Run `fer models verify "
                f"{version}` and register it anew."
            )
        if keys:
            check_signature(package.manifest_bytes(), state.signatures, keys, str(version))
        if state.deprecated:
            _log.warning("%s is deprecated: %s", version, state.deprecated)
        for meaning in {str(wanted), str(version)}:
            self.cache.remember(
                self.store.identity, meaning, version.number, version.digest, state.signatures
            )
        return package

    def _recall(self, reference: str, why: str, trusted: Sequence[Path]) -> ModelPackage:
        """What a reference meant when it was last pulled."""
        package = self.cache.recall(self.store.identity, reference, why)
        if trusted:
            signatures = self.cache.signatures(self.store.identity, reference)
            check_signature(package.manifest_bytes(), signatures, trusted, reference)
        return package

    def verify(self, reference: str | ModelReference, progress: bool = False) -> VerifyReport:
        """Read every byte of a version and recompute its digests.

        Raises:
            NotFoundError: no such version.
        """
        version = self.resolve(reference)
        return verify_version(self.store, version, progress)

    def audit(self, progress: bool = False) -> AuditReport:
        """Read the whole registry: each document, where each alias points, each blob once.

        A registration or promotion that happens meanwhile is no finding, as nothing becomes
        visible before all that it needs.

        Raises:
            StoreError: the store cannot be read.
        """
        return audit(self, progress=progress)


def pull(
    reference: str | Path,
    registry: str | None = None,
    *,
    progress: bool = False,
    trusted: Sequence[Path] | None = None,
) -> ModelPackage:
    """The package a reference means; a path needs no registry.

    Args:
        reference: name, name@alias, name:7, or a package's path.
        registry: the registry's address; None takes FER_REGISTRY.
        progress: show a bar on stderr even where it is no terminal.
        trusted: see `Registry.pull`.
    """
    wanted = ModelReference.parse(reference)
    if wanted.path is not None:
        return ModelPackage.open(wanted.path)
    return Registry.open(registry).pull(wanted, progress, trusted=trusted)
