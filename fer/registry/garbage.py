"""Collecting what nothing refers to, beside registrations that go on.

`fer.registry.sweep` says how the two keep clear of each other.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from fer.errors import NotFoundError
from fer.registry.catalog import in_parallel
from fer.registry.documents import INDEXED, PENDING, SWEEP, PendingDocument
from fer.registry.progress import transfer_bar
from fer.registry.store import Stat
from fer.registry.sweep import PROBES, Sweep

if TYPE_CHECKING:
    from fer.registry.publish import Publisher

DAY: Final = timedelta(days=1)
"""Grace period: what is younger is never collected."""

_BATCH: Final = 64
_BLOBS: Final = "blobs/sha256/"


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


def collect(
    registry: Publisher, grace: timedelta, *, apply: bool, progress: bool = False
) -> GarbageReport:
    """See `Registry.collect_garbage`."""
    store = registry.store
    if not apply:
        registry.models()
        return _Collection(registry, time.time() - grace.total_seconds(), None, progress).run()
    registry._begin_writing()
    sweep = Sweep(store)
    sweep.begin()
    report = None
    try:
        stat = store.head(SWEEP)
        began = stat.modified if stat is not None else time.time()
        report = _Collection(registry, began - grace.total_seconds(), sweep, progress).run()
        return report
    finally:
        did = None
        if report is not None:
            did = {"blobs": len(report.blobs), "size": report.size, "purged": report.purged[:100]}
        sweep.end(did)


class _Collection:
    """One pass: what is in use, what is not, and its deletion where a sweep is given."""

    def __init__(
        self, registry: Publisher, before: float, sweep: Sweep | None, progress: bool
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
        old += [stat for stat in self.store.list(PROBES) if stat.modified < self.before]
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
