"""Collecting garbage, on every kind of store, beside writers that go on or have died."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fer.errors import NotFoundError, RegistryError
from fer.registry import Registry
from fer.registry.documents import SWEEP, blob_key, pending_key, version_key
from fer.registry.folder_store import FolderStore
from fer.registry.s3_store import S3Store
from fer.registry.store import Store
from fer.registry.sweep import Sweep, pending

NO_GRACE = timedelta(0)


def _age(store: Store) -> None:
    """Let what is there be older than what comes; S3 tells time in whole seconds."""
    time.sleep(1.1 if isinstance(store, S3Store) else 0.02)


def _blobs(registry: Registry) -> set[str]:
    return {stat.key.rsplit("/", 1)[1] for stat in registry.store.list("blobs/")}


def test_deletion_frees_the_space_of_what_nobody_else_needs(
    registry: Registry, make_package: Any
) -> None:
    first, second = make_package(1), make_package(2)
    for package in (first, second):
        registry.register(package.folder)
    card = first.manifest.files["docs/card.md"].sha256
    alone = {first.digest, first.manifest.files["model.onnx"].sha256}
    registry.delete("faces", 1)
    _age(registry.store)
    before = {stat.key for stat in registry.store.list()}

    plan = registry.collect_garbage(NO_GRACE)
    assert (plan.applied, plan.purged, plan.leftovers) == (False, ["faces:1"], [])
    assert set(plan.blobs) == alone
    assert plan.size > 20_000
    assert {stat.key for stat in registry.store.list()} == before
    assert registry.restore("faces", 1).deleted is None
    registry.delete("faces", 1)
    _age(registry.store)

    assert registry.collect_garbage().blobs == []  # younger than a day
    done = registry.collect_garbage(NO_GRACE, apply=True)
    assert (done.applied, set(done.blobs), done.size) == (True, alone, plan.size)
    assert card in _blobs(registry)
    assert not _blobs(registry) & alone
    assert registry.verify("faces:2").ok
    with pytest.raises(NotFoundError, match=r"purged: its files are gone"):
        registry.restore("faces", 1)
    with pytest.raises(NotFoundError, match=r"deleted.*register the package anew"):
        registry.pull("faces:1")
    assert [event.action for event in registry.events("faces")][-1] == "purge"

    again = registry.register(first.folder)
    assert again.number == 3
    assert registry.verify("faces:3").ok
    _age(registry.store)
    assert registry.collect_garbage(NO_GRACE, apply=True).blobs == []


def test_what_killed_writers_left(registry: Registry, make_package: Any, tmp_path: Path) -> None:
    registry.register(make_package(1).folder)
    kept = {stat.key for stat in registry.store.list()}
    registry.store.put(blob_key("a" * 64), b"orphan")
    registry.store.put("probes/0123.json", b"{}")
    registry.store.put(pending_key("b" * 32), b"{}")
    if isinstance(registry.store, FolderStore):
        (registry.store.root / "blobs" / "sha256" / ".tmp-1-abc").write_bytes(b"half")
    elif isinstance(registry.store, S3Store):
        registry.store._client.create_multipart_upload(
            Bucket=registry.store.bucket, Key=registry.store._key(blob_key("c" * 64))
        )
    _age(registry.store)
    done = registry.collect_garbage(NO_GRACE, apply=True)
    assert done.blobs == ["a" * 64]
    assert len(done.leftovers) == 3
    assert {stat.key for stat in registry.store.list()} == kept | {SWEEP}
    assert registry.verify("faces:1").ok
    _age(registry.store)
    again = registry.collect_garbage(NO_GRACE, apply=True)
    assert (again.blobs, again.leftovers) == ([], [])


def test_blobs_of_a_registration_under_way_stay(registry: Registry, make_package: Any) -> None:
    package = make_package(1)
    registry.register(package.folder)
    registry.delete("faces", 1)
    time.sleep(2.2)
    blobs = {package.digest, package.manifest.files["model.onnx"].sha256}
    with pending(registry.store, "faces", blobs):
        done = registry.collect_garbage(timedelta(seconds=1), apply=True)
        assert done.purged == ["faces:1"]
        assert len(done.blobs) == 1  # the card, which this registration does not name
        assert blobs <= _blobs(registry)
    assert not list(registry.store.list("pending/"))


def test_a_registration_waits_for_a_sweep(folder_registry: Registry, make_package: Any) -> None:
    registry, package = folder_registry, make_package(1)
    model = package.manifest.files["model.onnx"].sha256
    registry.register(package.folder)
    registry.delete("faces", 1)
    sweep = Sweep(registry.store)
    sweep.begin()
    numbers: list[int] = []
    thread = threading.Thread(target=lambda: numbers.append(registry.register(package).number))
    thread.start()
    time.sleep(0.7)
    assert numbers == []
    # What a collection may do: it began before this registration was pending.
    registry.store.delete(blob_key(model))
    sweep.end(None)
    thread.join(20)
    assert numbers == [2]
    assert registry.verify("faces:2").ok


def test_a_dead_sweep_blocks_nobody_for_long(
    folder_registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_registry.register(make_package(1).folder)
    Sweep(folder_registry.store).begin()  # and its process is killed
    with pytest.raises(RegistryError, match=r"is collecting garbage"):
        folder_registry.collect_garbage(apply=True)
    path = folder_registry.store.root / SWEEP  # type: ignore[attr-defined]
    os.utime(path, (time.time() - 61, time.time() - 61))
    assert folder_registry.register(make_package(2).folder).number == 2
    assert folder_registry.collect_garbage(apply=True).applied


def test_a_damaged_version_stops_a_collection(registry: Registry, make_package: Any) -> None:
    registry.register(make_package(1).folder)
    registry.store.put(blob_key("a" * 64), b"orphan")
    whole = registry.store.get(version_key("faces", 1)).data
    registry.store.put(version_key("faces", 1), whole[:100])
    _age(registry.store)
    with pytest.raises(RegistryError, match=r"cut short"):
        registry.collect_garbage(NO_GRACE, apply=True)
    assert "a" * 64 in _blobs(registry)
    registry.store.put(version_key("faces", 1), whole)
    assert registry.collect_garbage(NO_GRACE, apply=True).blobs == ["a" * 64]


def test_a_slow_store_stops_a_collection(
    folder_registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_registry.register(make_package(1).folder)
    folder_registry.store.put(blob_key("a" * 64), b"orphan")
    _age(folder_registry.store)
    monkeypatch.setattr(Sweep, "renew", lambda self: setattr(self, "_renewed", -1e9))
    with pytest.raises(RegistryError, match=r"answers so slowly"):
        folder_registry.collect_garbage(NO_GRACE, apply=True)
    assert "a" * 64 in _blobs(folder_registry)


@pytest.mark.slow
def test_collections_beside_registrations(folder_registry: Registry, make_package: Any) -> None:
    """Versions come and go while blobs are collected: what is there is whole."""
    registry = folder_registry
    packages = [make_package(seed, size=3000) for seed in range(3)]
    end = time.monotonic() + 8
    grace = timedelta(seconds=2)  # longer than a registration takes, on a busy machine too
    problems: list[str] = []

    def churn(me: int) -> None:
        while time.monotonic() < end:
            try:
                number = registry.register(packages[me]).number
                if not registry.verify(f"faces:{number}").ok:
                    problems.append(f"faces:{number} is not whole")
                registry.delete("faces", number)
                time.sleep(0.4 * me)
            except NotFoundError as error:
                problems.append(str(error))

    threads = [threading.Thread(target=churn, args=(me,)) for me in range(3)]
    for thread in threads:
        thread.start()
    collected = 0
    while time.monotonic() < end:
        done = registry.collect_garbage(grace, apply=True)
        collected += len(done.blobs)
    for thread in threads:
        thread.join()
    assert problems == []
    numbers = [version.number for version in registry.versions("faces", deleted=True)]
    assert numbers == list(range(1, len(numbers) + 1))
    for package in packages:
        assert registry.verify(str(registry.register(package))).ok
