"""How registrations and a collection of blobs keep clear of each other.

A registration first writes down which blobs it needs (`pending/<id>.json`), then looks whether
blobs are being collected (`sweep.json`), and only then relies on a blob that is there already. A
collection first says that it sweeps, then reads what is pending, then which versions there are.
So of the two at least one sees the other: either the collection spares the blobs, or the
registration waits until the sweep is over and looks for its blobs afterwards.

A sweep is renewed while it lasts, so that one whose process died blocks nobody for long. Times
are those that the store itself puts on its keys: no clock of a client decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from fer.errors import ConflictError, NotFoundError, RegistryError, StoreError
from fer.registry.documents import (
    HISTORY,
    SWEEP,
    PendingDocument,
    SweepDocument,
    new_id,
    now,
    pending_key,
)
from fer.registry.store import Store
from fer.registry.writer import author

PROBES: Final = "probes/"
"""Where keys lie that are written for the store's time, and deleted at once."""

_LEASE: Final = 60.0
"""Seconds after which a sweep that was not renewed is over."""


@contextmanager
def pending(store: Store, package: str, blobs: Iterable[str]) -> Iterator[None]:
    """Keep `blobs` from being collected while a registration relies on them."""
    identity = new_id()
    key = pending_key(identity)
    document = PendingDocument(
        created=now(), author=author(), package=package, nonce=identity, blobs=sorted(blobs)
    )
    store.put(key, document.to_bytes())
    try:
        _wait_for_sweep(store, key, document.to_bytes())
        yield
    finally:
        # A writer may lack the permission to delete; the next collection does it then.
        with suppress(StoreError):
            store.delete(key)


def _wait_for_sweep(store: Store, key: str, data: bytes) -> None:
    while True:
        sweep = _present(store)[0]
        if sweep is None or not sweep.running:
            return
        # Both times are the store's own: when this was written, and when the sweep was renewed.
        store.put(key, data)
        mine, theirs = store.head(key), store.head(SWEEP)
        if mine is None or theirs is None or mine.modified - theirs.modified > _LEASE:
            return
        time.sleep(0.5)


def _present(store: Store) -> tuple[SweepDocument | None, str]:
    try:
        stored = store.get(SWEEP)
    except NotFoundError:
        return None, ""
    return SweepDocument.from_bytes(stored.data, f"{store.url}/{SWEEP}"), stored.etag


class Sweep:
    """The lease of one collection."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._nonce = new_id()
        self._etag = ""
        self._renewed = 0.0
        self._history: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Say that blobs are being collected.

        Raises:
            RegistryError: another collection is under way.
        """
        present, etag = _present(self.store)
        if present is not None and present.running:
            self._refuse_if_alive(present)
        self._history = list(present.history) if present is not None else []
        try:
            self._write(True, etag)
        except ConflictError:
            raise self._busy("somebody") from None

    def renew(self) -> None:
        """Go on sweeping, if it is still ours; called before each batch of deletions."""
        if time.monotonic() - self._renewed < _LEASE / 6:
            return
        try:
            self._write(True, self._etag)
        except ConflictError:
            raise RegistryError(
                f"The collection in {self.store.url} was held up for so long that another one "
                "took over. Run it again."
            ) from None

    def check(self) -> None:
        """Stop before a registration may think that this collection has died."""
        if time.monotonic() - self._renewed > _LEASE / 2:
            raise RegistryError(
                f"{self.store.url} answers so slowly that the collection was stopped to be safe. "
                "Run it again: it goes on where it ended."
            )

    def end(self, did: Mapping[str, Any] | None) -> None:
        """Let registrations go on; `did` goes into the history of collections."""
        if did is not None:
            self._history = [*self._history, {"time": now(), **did}][-HISTORY:]
        try:
            self._write(False, self._etag)
        except (ConflictError, StoreError):
            return  # it ends by itself

    def _write(self, running: bool, etag: str) -> None:
        before = time.monotonic()
        data = SweepDocument(
            running=running,
            nonce=new_id() if running else self._nonce,
            author=author(),
            time=now(),
            history=self._history,
        ).to_bytes()
        if etag:
            self._etag = self.store.swap(SWEEP, data, etag)
        else:
            self._etag = self.store.create_if_absent(SWEEP, data)
        self._renewed = before

    def _refuse_if_alive(self, present: SweepDocument) -> None:
        # Its own probe gives the store's time now.
        key = f"{PROBES}{self._nonce}.json"
        self.store.put(key, b"{}")
        here, theirs = self.store.head(key), self.store.head(SWEEP)
        self.store.delete(key)
        if here and theirs and here.modified - theirs.modified <= _LEASE:
            raise self._busy(present.author)

    def _busy(self, who: str) -> RegistryError:
        return RegistryError(
            f"{who} is collecting garbage in {self.store.url}. Wait for that; if its process "
            f"died, repeat in {_LEASE:.0f} seconds."
        )
