"""Collecting what nothing refers to, beside registrations that go on.

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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from fer.errors import ConflictError, NotFoundError, RegistryError, StoreError
from fer.registry.catalog import in_parallel
from fer.registry.documents import (
    HISTORY,
    INDEXED,
    PENDING,
    SWEEP,
    PendingDocument,
    SweepDocument,
    new_id,
    now,
    pending_key,
)
from fer.registry.progress import transfer_bar
from fer.registry.store import Stat, Store

if TYPE_CHECKING:
    from fer.registry.publish import Publisher

DAY: Final = timedelta(days=1)
"""Grace period: what is younger is never collected."""

_LEASE: Final = 60.0
"""Seconds after which a sweep that was not renewed is over."""
_BATCH: Final = 64
_BLOBS: Final = "blobs/sha256/"
_PROBES: Final = "probes/"


@dataclass(frozen=True)
class GarbageReport:
    """What was collected, or would be.

    Attributes:
        applied: whether it was deleted; otherwise this is what would go.
        purged: deleted versions that were given up, as name:number.
        blobs: digests.
        leftovers: other keys, files and uploads that killed writers left.
        size: bytes of all of them.
        kept: blobs that are in use or younger than the grace period.
    """

    applied: bool
    purged: list[str]
    blobs: list[str]
    leftovers: list[str]
    size: int
    kept: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@contextmanager
def pending(store: Store, package: str, blobs: Iterable[str]) -> Iterator[None]:
    """Keep `blobs` from being collected while a registration relies on them."""
    from fer.registry.writer import author

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
        sweep = _sweep(store)[0]
        if sweep is None or not sweep.running:
            return
        # Both times are the store's own: when this was written, and when the sweep was renewed.
        store.put(key, data)
        mine, theirs = store.head(key), store.head(SWEEP)
        if mine is None or theirs is None or mine.modified - theirs.modified > _LEASE:
            return
        time.sleep(0.5)


def _sweep(store: Store) -> tuple[SweepDocument | None, str]:
    try:
        stored = store.get(SWEEP)
    except NotFoundError:
        return None, ""
    return SweepDocument.from_bytes(stored.data, f"{store.url}/{SWEEP}"), stored.etag


def collect(
    registry: Publisher, grace: timedelta, *, apply: bool, progress: bool = False
) -> GarbageReport:
    """See `Registry.collect_garbage`."""
    store = registry.store
    if not apply:
        registry.models()
        return _Collection(registry, time.time() - grace.total_seconds(), None, progress).run()
    registry._begin_writing()
    sweep = _Sweep(store)
    sweep.begin()
    report = None
    try:
        stat = store.head(SWEEP)
        began = stat.modified if stat is not None else time.time()
        report = _Collection(registry, began - grace.total_seconds(), sweep, progress).run()
        return report
    finally:
        sweep.end(report)


class _Sweep:
    """The lease of one collection."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._nonce = new_id()
        self._etag = ""
        self._renewed = 0.0
        self._history: list[dict[str, Any]] = []

    def begin(self) -> None:
        present, etag = _sweep(self.store)
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

    def end(self, report: GarbageReport | None) -> None:
        if report is not None:
            entry = {"time": now(), "blobs": len(report.blobs), "size": report.size}
            self._history = [*self._history, entry | {"purged": report.purged[:100]}][-HISTORY:]
        try:
            self._write(False, self._etag)
        except (ConflictError, StoreError):
            return  # it ends by itself

    def _write(self, running: bool, etag: str) -> None:
        from fer.registry.writer import author

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
        key = f"{_PROBES}{self._nonce}.json"
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


class _Collection:
    """One pass: what is in use, what is not, and its deletion where a sweep is given."""

    def __init__(
        self, registry: Publisher, before: float, sweep: _Sweep | None, progress: bool
    ) -> None:
        self.registry = registry
        self.store = registry.store
        self.before = before
        self.sweep = sweep
        self.progress = progress
        self.size = 0
        self.purged: list[str] = []

    def run(self) -> GarbageReport:
        old, needed = self._pending()
        for name in self.registry.models():
            needed |= self._in_use(name)
        old += [stat for stat in self.store.list(_PROBES) if stat.modified < self.before]
        blobs, kept = [], 0
        for stat in self.store.list(_BLOBS):
            if stat.modified < self.before and stat.key.removeprefix(_BLOBS) not in needed:
                blobs.append(stat)
            else:
                kept += 1
        self.size += sum(stat.size for stat in (*old, *blobs))
        self._delete([*old, *blobs])
        leftovers = [stat.key for stat in old]
        for name, size in self.store.leftovers(self.before, remove=self.sweep is not None):
            leftovers.append(name)
            self.size += size
        return GarbageReport(
            applied=self.sweep is not None,
            purged=self.purged,
            blobs=sorted(stat.key.removeprefix(_BLOBS) for stat in blobs),
            leftovers=sorted(leftovers),
            size=self.size,
            kept=kept,
        )

    def _pending(self) -> tuple[list[Stat], set[str]]:
        """What registrations left that died, and the blobs of those under way."""
        old: list[Stat] = []
        young: list[Stat] = []
        for stat in self.store.list(PENDING):
            (old if stat.modified < self.before else young).append(stat)
        needed: set[str] = set()
        for stat in young:
            try:
                data = self.store.get(stat.key).data
            except NotFoundError:
                continue  # done meanwhile; the versions are read after this
            needed |= set(PendingDocument.from_bytes(data, f"{self.store.url}/{stat.key}").blobs)
        return old, needed

    def _in_use(self, name: str) -> set[str]:
        """Digests of all blobs that a model's versions need; purges what was deleted long ago."""
        registry = self.registry
        states = registry.states(name)
        pointed = {number for alias in registry.aliases(name).values() for number in [alias.number]}
        gone = set()
        for number, state in sorted(states.items()):
            if not state.deleted or number in pointed:
                continue
            stat = self.store.head(f"models/{name}/states/{number}.json")
            if state.purged:
                gone.add(number)
                continue
            old = stat is not None and stat.modified < self.before
            if old and (self.sweep is None or registry._purge(name, number)):
                gone.add(number)
                self.purged.append(f"{name}:{number}")
        # Listed: what is deleted must not depend on a derived document.
        present = registry._numbers(name, listed=True)
        numbers = [number for number in present if number not in gone]
        needed: set[str] = set()
        with transfer_bar(f"Reading {name}", len(numbers), self.progress) as moved:

            def read(number: int) -> list[str]:
                package = registry._document(name, number)
                moved(1)
                if self.sweep is not None:
                    self.sweep.check()
                return [package.digest, *(file.sha256 for file in package.package.files.values())]

            for start in range(0, len(numbers), _BATCH):
                if self.sweep is not None:
                    self.sweep.renew()
                for digests in in_parallel(read, numbers[start : start + _BATCH]):
                    needed.update(digests)
        if self.sweep is not None:
            for part in range(len(numbers) // INDEXED):
                registry._write_index(name, part)
        return needed

    def _delete(self, stats: list[Stat]) -> None:
        if self.sweep is None:
            return
        sweep = self.sweep

        def delete(stat: Stat) -> None:
            sweep.check()
            self.store.delete(stat.key)

        for start in range(0, len(stats), _BATCH):
            sweep.renew()
            in_parallel(delete, stats[start : start + _BATCH])
