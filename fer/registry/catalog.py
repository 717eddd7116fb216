"""Reading a registry: models, versions, aliases, events, and what a reference means."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, TypeVar

from fer.errors import ModelReferenceError, NotFoundError, RegistryError, StoreError
from fer.registry.documents import (
    INDEXED,
    ROOT,
    AliasDocument,
    Event,
    IndexDocument,
    MovingDocument,
    RootDocument,
    StateDocument,
    VersionDocument,
    alias_key,
    index_key,
    index_prefix,
    state_key,
    version_key,
    version_number,
    versions_prefix,
)
from fer.registry.reference import DEFAULT_ALIAS, LATEST, PREVIOUS, ModelReference, check_name
from fer.registry.store import Store
from fer.registry.versions import (
    Alias,
    Version,
    VersionState,
    VersionSummary,
    read_summary,
    summarise,
)

_log = logging.getLogger(__name__)
_READERS: Final = 16
_LONG: Final = 1000
"""Versions that one page of a listing shows."""
T = TypeVar("T")
R = TypeVar("R")
M = TypeVar("M", bound=MovingDocument)


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

    def versions(self, name: str, *, deleted: bool = False) -> list[Version]:
        """All versions of a model, oldest first; reads every manifest (see `summaries`).

        Args:
            name: the model.
            deleted: deleted versions too.

        Raises:
            NotFoundError: no such model; the nearest names are given.
        """
        numbers = self._numbers(name)
        if not deleted:
            gone = {number for number, state in self.states(name).items() if state.deleted}
            numbers = [number for number in numbers if number not in gone]
        return in_parallel(lambda number: self._version(name, number), numbers)

    def summaries(self, name: str, *, deleted: bool = False) -> list[VersionSummary]:
        """A line for each version, oldest first, from the index where it reaches.

        Of 100 versions one document is read; only the newest are read one by one.

        Args:
            name: the model.
            deleted: deleted versions too.

        Raises:
            NotFoundError: no such model; the nearest names are given.
        """
        numbers = self._numbers(name)
        parts = in_parallel(lambda part: self._indexed(name, part), range((numbers[-1]) // INDEXED))
        found = {summary.number: summary for part in parts for summary in part}
        missing = [number for number in numbers if number not in found]
        found |= {
            one.number: one
            for one in in_parallel(lambda number: summarise(self._version(name, number)), missing)
        }
        states = self.states(name)
        return [
            replace(found[number], state=states[number]) if number in states else found[number]
            for number in numbers
            if deleted or number not in states or not states[number].deleted
        ]

    def state(self, name: str, number: int) -> VersionState:
        """What may change about a version: tags, notes, whether it is deprecated or deleted."""
        return VersionState.of(self._read(StateDocument, state_key(name, number))[0])

    def states(self, name: str) -> dict[int, VersionState]:
        """The states of all versions about which something was changed, by number."""
        documents = self._state_documents(name)
        return {document.number: VersionState.of(document) for document in documents}

    def resolve(self, reference: str | ModelReference, *, deleted: bool = False) -> Version:
        """The version a reference means now.

        Args:
            reference: name, name@alias or name:7.
            deleted: a deleted version too.

        Raises:
            ModelReferenceError: it cannot be parsed, or is a path.
            NotFoundError: no such model, alias or version, or it was deleted; the nearest are
                given.
        """
        wanted = _parse(reference)
        self._check_root()
        if wanted.number is not None:
            number = wanted.number
        elif wanted.alias == LATEST:
            number = self._latest(wanted.name)
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
            version = self._version(wanted.name, number)
        except NotFoundError:
            raise self._no_version(wanted.name, number) from None
        if not deleted and (wanted.number is not None or wanted.alias == PREVIOUS):
            # No alias but the computed one can point at a deleted version.
            self._check_present(wanted.name, number)
        return version

    def aliases(self, name: str) -> dict[str, Alias]:
        """All aliases of a model by name, `latest` and `previous` left out."""
        documents = self._alias_documents(check_name(name))
        if not documents:
            self._numbers(name)
        return {document.alias: Alias.of(document) for document in documents}

    def events(self, name: str, last: int | None = None) -> list[Event]:
        """Everything that happened to a model, oldest first.

        Args:
            name: the model.
            last: only this many, the newest; others are not read.

        Raises:
            NotFoundError: no such model.
        """
        numbers = self._numbers(name)
        prefix = f"models/{name}/events/"
        keys = [stat.key for stat in self.store.list(prefix)]
        if last is not None:
            keys = sorted(keys)[-last:]  # they sort by time
        events = in_parallel(
            lambda key: Event.from_bytes(self.store.get(key).data, f"{self.url}/{key}"), keys
        )
        # The newest of each kind may not be written yet; the documents hold them.
        events.append(self._document(name, numbers[-1]).event)
        events += [document.event for document in self._alias_documents(name)]
        events += [document.event for document in self._state_documents(name)]
        unique = {event.id: event for event in events}
        ordered = sorted(unique.values(), key=lambda event: (event.time, event.id))
        return ordered if last is None else ordered[-last:]

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

    def _known_numbers(self, name: str) -> list[int]:
        """As `_present_numbers`, without listing a long history (servers take a second for some
        thousand keys): numbers have no gap, so the index and a few questions tell the last one.
        """
        prefix = index_prefix(name)
        parts = (stat.key.removeprefix(prefix).split(".")[0] for stat in self.store.list(prefix))
        newest = INDEXED * max((int(part) + 1 for part in parts if part.isdecimal()), default=0)
        # The index is derived, so it is not believed that there is such a version.
        if newest < _LONG or self.store.head(version_key(name, newest)) is None:
            return self._present_numbers(name)
        while True:
            ahead = [version_key(name, newest + step) for step in range(1, _READERS + 1)]
            there = [stat is not None for stat in in_parallel(self.store.head, ahead)]
            if not all(there):
                return list(range(1, newest + there.index(False) + 1))
            newest += len(ahead)

    def _numbers(self, name: str, *, listed: bool = False) -> list[int]:
        """Version numbers, ascending; at least one.

        Args:
            name: the model.
            listed: from the store's own listing, however long that takes.

        Raises:
            NotFoundError: no such model.
        """
        check_name(name)
        self._check_root()
        numbers = self._present_numbers(name) if listed else self._known_numbers(name)
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
        return Version.of(self._document(name, number))

    def _alias(self, name: str, alias: str) -> AliasDocument:
        key = alias_key(name, alias)
        try:
            data = self.store.get(key).data
        except NotFoundError:
            raise self._no_alias(name, alias) from None
        return AliasDocument.from_bytes(data, f"{self.url}/{key}")

    def _alias_documents(self, name: str) -> list[AliasDocument]:
        prefix = f"models/{name}/aliases/"
        found = [
            stat.key.removeprefix(prefix).removesuffix(".json") for stat in self.store.list(prefix)
        ]
        return in_parallel(lambda alias: self._alias(name, alias), sorted(found))

    def _state_documents(self, name: str) -> list[StateDocument]:
        keys = [stat.key for stat in self.store.list(f"models/{check_name(name)}/states/")]
        found = in_parallel(lambda key: self._read(StateDocument, key)[0], keys)
        return [document for document in found if document is not None]

    def _read(self, kind: type[M], key: str) -> tuple[M | None, str]:
        """A moving document and its entity tag; None where it does not exist yet."""
        try:
            stored = self.store.get(key)
        except NotFoundError:
            return None, ""
        return kind.from_bytes(stored.data, f"{self.url}/{key}"), stored.etag

    def _indexed(self, name: str, part: int) -> list[VersionSummary]:
        """Summaries from the index; none where it is missing or damaged, for it is derived."""
        key = index_key(name, part)
        try:
            document = IndexDocument.from_bytes(self.store.get(key).data, f"{self.url}/{key}")
            return [read_summary(record) for record in document.versions]
        except NotFoundError:
            return []
        except (RegistryError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, StoreError):
                raise
            _log.warning("%s/%s is damaged and was not used: %s", self.url, key, error)
            return []

    def _latest(self, name: str) -> int:
        """The highest version that is not deleted."""
        for number in reversed(self._numbers(name)):
            if self.state(name, number).deleted is None:
                return number
        raise NotFoundError(
            f"All versions of {name!r} were deleted. `fer models list {name} --deleted` shows "
            "them, `fer models restore` brings one back."
        )

    def _check_present(self, name: str, number: int) -> None:
        state = self.state(name, number)
        if state.deleted is None:
            return
        advice = (
            "Its files are gone; register the package anew."
            if state.purged
            else f"`fer models restore {name}:{number}` brings it back."
        )
        why = f" ({state.deleted})" if state.deleted else ""
        raise NotFoundError(f"{name}:{number} was deleted{why}. {advice}")

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
