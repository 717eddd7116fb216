"""Reading a registry: models, versions, aliases, events, and what a reference means."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from fer.errors import ModelReferenceError, NotFoundError, RegistryError, StoreError
from fer.registry.documents import (
    ROOT,
    Alias,
    AliasDocument,
    Event,
    RootDocument,
    Version,
    VersionDocument,
    alias_key,
    version_key,
    version_number,
    versions_prefix,
)
from fer.registry.reference import DEFAULT_ALIAS, LATEST, PREVIOUS, ModelReference, check_name
from fer.registry.store import Store

_READERS: Final = 16
T = TypeVar("T")
R = TypeVar("R")


class Catalog:
    """What a store holds, for readers; `Registry` adds writing and pulling."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._root_checked = False

    @property
    def url(self) -> str:
        """What the user named."""
        return self.store.url

    def models(self) -> list[str]:
        """Names of all models, sorted."""
        self._check_root()
        return sorted(self.store.folders("models/"))

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, oldest first.

        Raises:
            NotFoundError: no such model; the nearest names are given.
        """
        numbers = self._numbers(name)
        return in_parallel(lambda number: self._version(name, number), numbers)

    def resolve(self, reference: str | ModelReference) -> Version:
        """The version a reference means now.

        Raises:
            ModelReferenceError: it cannot be parsed, or is a path.
            NotFoundError: no such model, alias or version; the nearest are given.
        """
        wanted = _parse(reference)
        self._check_root()
        if wanted.number is not None:
            number = wanted.number
        elif wanted.alias == LATEST:
            number = self._numbers(wanted.name)[-1]
        elif wanted.alias == PREVIOUS:
            champion = self._alias(wanted.name, DEFAULT_ALIAS)
            if champion.previous is None:
                raise NotFoundError(
                    f"{wanted.name}@{DEFAULT_ALIAS} has no predecessor: it never moved."
                )
            number = champion.previous
        else:
            number = self._alias(wanted.name, wanted.alias or DEFAULT_ALIAS).version
        try:
            return self._version(wanted.name, number)
        except NotFoundError:
            raise self._no_version(wanted.name, number) from None

    def aliases(self, name: str) -> dict[str, Alias]:
        """All aliases of a model by name, `latest` and `previous` left out."""
        self._numbers(name)
        prefix = f"models/{name}/aliases/"
        found = [
            stat.key.removeprefix(prefix).removesuffix(".json") for stat in self.store.list(prefix)
        ]
        documents = in_parallel(lambda alias: self._alias(name, alias), sorted(found))
        return {document.alias: to_alias(document) for document in documents}

    def events(self, name: str) -> list[Event]:
        """Everything that happened to a model, oldest first."""
        numbers = self._numbers(name)
        prefix = f"models/{name}/events/"
        keys = [stat.key for stat in self.store.list(prefix)]
        events = in_parallel(
            lambda key: Event.from_bytes(self.store.get(key).data, f"{self.url}/{key}"), keys
        )
        # The newest of each kind may not be written yet; the documents hold them.
        events.append(self._document(name, numbers[-1]).event)
        aliases = [
            stat.key.rsplit("/", 1)[1].removesuffix(".json")
            for stat in self.store.list(f"models/{name}/aliases/")
        ]
        events += [self._alias(name, alias).event for alias in aliases]
        unique = {event.id: event for event in events}
        return sorted(unique.values(), key=lambda event: (event.time, event.id))

    def _check_root(self) -> None:
        """Refuse a registry of a newer schema; one that nobody wrote to yet is all right."""
        if self._root_checked:
            return
        try:
            RootDocument.from_bytes(self.store.get(ROOT).data, f"{self.url}/{ROOT}")
        except NotFoundError:
            return
        except StoreError:
            # A folder that does not exist yet; reading from it says so by itself.
            if self.store.identity.startswith("folder:"):
                return
            raise
        self._root_checked = True

    def _present_numbers(self, name: str) -> list[int]:
        keys = (stat.key for stat in self.store.list(versions_prefix(name)))
        return sorted(number for key in keys if (number := version_number(key)) is not None)

    def _numbers(self, name: str) -> list[int]:
        """Version numbers, ascending; at least one.

        Raises:
            NotFoundError: no such model.
        """
        check_name(name)
        self._check_root()
        numbers = self._present_numbers(name)
        if not numbers:
            raise self._no_model(name)
        return numbers

    def _document(self, name: str, number: int) -> VersionDocument:
        key = version_key(name, number)
        where = f"{self.url}/{key}"
        document = VersionDocument.from_bytes(self.store.get(key).data, where)
        if (document.name, document.number) != (name, number):
            raise RegistryError(
                f"{where} describes {document.name}:{document.number}: it was copied or altered. "
                "Restore it from a backup."
            )
        return document

    def _version(self, name: str, number: int) -> Version:
        return to_version(self._document(name, number))

    def _alias(self, name: str, alias: str) -> AliasDocument:
        key = alias_key(name, alias)
        try:
            data = self.store.get(key).data
        except NotFoundError:
            raise self._no_alias(name, alias) from None
        return AliasDocument.from_bytes(data, f"{self.url}/{key}")

    def _read_alias(self, key: str) -> tuple[AliasDocument | None, str]:
        try:
            stored = self.store.get(key)
        except NotFoundError:
            return None, ""
        return AliasDocument.from_bytes(stored.data, f"{self.url}/{key}"), stored.etag

    def _no_model(self, name: str) -> NotFoundError:
        known = sorted(self.store.folders("models/"))
        if not known:
            return NotFoundError(
                f"The registry {self.url} holds no model yet. Register one with "
                "`fer models register FOLDER`."
            )
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:5]
        return NotFoundError(
            f"The registry {self.url} holds no model {name!r}. Nearest: {', '.join(near)}."
        )

    def _no_alias(self, name: str, alias: str) -> NotFoundError:
        numbers = self._numbers(name)
        prefix = f"models/{name}/aliases/"
        known = sorted(
            stat.key.removeprefix(prefix).removesuffix(".json") for stat in self.store.list(prefix)
        )
        have = f"it has {', '.join('@' + item for item in known)}" if known else "it has none"
        return NotFoundError(
            f"{name!r} has no alias {alias!r}; {have}. Set it with `fer models promote "
            f"{name}:{numbers[-1]} --alias {alias}`, or name a version: {name}:{numbers[-1]}."
        )

    def _no_version(self, name: str, number: int) -> NotFoundError:
        numbers = self._numbers(name)
        near = sorted(sorted(numbers, key=lambda item: abs(item - number))[:3])
        listed = ", ".join(f"{name}:{item}" for item in near)
        return NotFoundError(f"{name!r} has no version {number}. Nearest: {listed}.")


def _parse(reference: str | ModelReference) -> ModelReference:
    wanted = reference if isinstance(reference, ModelReference) else ModelReference.parse(reference)
    if wanted.path is not None:
        raise ModelReferenceError(
            f"{wanted.path} is a path; a registered model is named name, name@alias or name:7."
        )
    return wanted


def to_version(document: VersionDocument) -> Version:
    return Version(
        name=document.name,
        number=document.number,
        digest=document.digest,
        created=document.created,
        author=document.author,
        note=document.note,
        manifest=document.package,
    )


def to_alias(document: AliasDocument) -> Alias:
    return Alias(
        name=document.name,
        alias=document.alias,
        number=document.version,
        previous=document.previous,
        generation=document.generation,
        time=document.event.time,
        author=document.event.author,
        reason=document.event.reason,
        gate=document.event.gate,
    )


def in_parallel(work: Callable[[T], R], items: Iterable[T], workers: int = _READERS) -> list[R]:
    """Results in the items' order; the first error ends it."""
    items = list(items)
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(workers, len(items))) as pool:
        try:
            return list(pool.map(work, items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
