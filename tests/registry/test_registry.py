"""Versions, aliases, events and pulls on every kind of store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fer.errors import (
    ConflictError,
    ModelReferenceError,
    NotFoundError,
    PackageError,
    RegistryError,
    SettingsError,
    StoreError,
)
from fer.registry import ModelPackage, Registry, pull
from fer.registry.documents import blob_key, digest_key, version_key


def test_the_whole_life(registry: Registry, make_package: Any, tmp_path: Path) -> None:
    first = registry.register(make_package(1).folder, "first try")
    second = registry.register(make_package(2).folder)
    assert [first.number, second.number] == [1, 2]
    assert first.manifest.metrics == {"accuracy": 0.501}
    assert (first.note, first.size) == ("first try", first.manifest.size)
    assert registry.models() == ["faces"]
    assert registry.versions("faces") == [first, second]

    moved = registry.promote("faces", 1, reason="the only one")
    assert (moved.number, moved.previous, moved.generation) == (1, None, 1)
    moved = registry.promote("faces", 2, reason="better", gate={"accuracy": 0.7, "passed": True})
    assert (moved.number, moved.previous, moved.generation) == (2, 1, 2)
    assert registry.resolve("faces") == registry.resolve("faces@champion") == second
    assert registry.resolve("faces@previous") == registry.resolve("faces:1") == first
    assert registry.resolve("faces@latest") == second
    assert registry.rollback("faces", reason="worse in the field").number == 1
    assert registry.resolve("faces") == first
    assert registry.rollback("faces").number == 2
    registry.promote("faces", 1, "challenger")
    assert {k: v.number for k, v in registry.aliases("faces").items()} == {
        "champion": 2,
        "challenger": 1,
    }

    events = registry.events("faces")
    assert [(event.action, event.alias, event.version, event.previous) for event in events] == [
        ("register", None, 1, None),
        ("register", None, 2, None),
        ("promote", "champion", 1, None),
        ("promote", "champion", 2, 1),
        ("rollback", "champion", 1, 2),
        ("rollback", "champion", 2, 1),
        ("promote", "challenger", 1, None),
    ]
    assert events[3].gate == {"accuracy": 0.7, "passed": True}
    assert events[4].reason == "worse in the field"
    assert registry.events("faces", 3) == events[-3:]
    assert registry.events("faces", 30) == events
    # Of the log only the newest are read; those that may not be written yet come besides.
    registry.store.put(events[0].key, b"damaged")
    assert registry.events("faces", 3) == events[-3:]
    with pytest.raises(RegistryError):
        registry.events("faces")
    assert "@" in events[0].author

    package = registry.pull("faces")
    assert package.digest == second.digest
    assert package.folder.parent == tmp_path / "cache" / "models"
    assert (
        package.file("model.onnx").read_bytes() == make_package(2).file("model.onnx").read_bytes()
    )
    assert registry.verify("faces@champion").ok


def test_the_layout(registry: Registry, make_package: Any) -> None:
    package = make_package()
    registry.register(package.folder)
    registry.promote("faces", 1)
    keys = {stat.key for stat in registry.store.list()}
    blobs = {blob_key(entry.sha256) for entry in package.manifest.files.values()}
    events = {key for key in keys if key.startswith("models/faces/events/")}
    assert len(events) == 2
    assert keys - events == {
        "registry.json",
        blob_key(package.digest),
        *blobs,
        "models/faces/versions/1.json",
        digest_key("faces", package.digest),
        "models/faces/aliases/champion.json",
    }
    document = json.loads(registry.store.get(version_key("faces", 1)).data)
    assert document["digest"] == package.digest
    assert document["package"]["files"]["model.onnx"]["size"] == 20_000


def test_registering_again_is_safe(registry: Registry, make_package: Any) -> None:
    first = registry.register(make_package(1).folder, "note")
    assert registry.register(make_package(1).folder, "another note") == first
    registry.register(make_package(2).folder)
    registry.register(make_package(3).folder)
    assert registry.register(make_package(1).folder) == first
    assert [version.number for version in registry.versions("faces")] == [1, 2, 3]
    assert len(registry.events("faces")) == 3


def test_a_writer_that_died_after_its_commit(registry: Registry, make_package: Any) -> None:
    first = registry.register(make_package(1).folder)
    # What it had left to do: the digest entry and the event.
    event = registry.events("faces")[0]
    registry.store.delete(digest_key("faces", first.digest))
    registry.store.delete(event.key)
    assert registry.events("faces") == [event]
    registry.register(make_package(2).folder)
    assert registry.events("faces")[0] == event
    assert registry.store.head(event.key) is not None
    assert registry.register(make_package(1).folder) == first


def test_a_mover_that_died_after_its_swap(registry: Registry, make_package: Any) -> None:
    registry.register(make_package(1).folder)
    registry.promote("faces", 1, reason="one")
    lost = registry.events("faces")[-1]
    registry.store.delete(lost.key)
    assert registry.events("faces")[-1] == lost
    registry.promote("faces", 1, reason="two")
    assert registry.store.head(lost.key) is not None
    assert [event.reason for event in registry.events("faces")] == ["", "one", "two"]


def test_unchanged_files_are_not_uploaded_again(registry: Registry, make_package: Any) -> None:
    registry.register(make_package(1).folder)
    before = {stat.key: stat.modified for stat in registry.store.list("blobs/")}
    registry.register(make_package(2).folder)
    after = {stat.key: stat.modified for stat in registry.store.list("blobs/")}
    assert len(after) == len(before) + 2  # another model and another manifest, the same card
    assert before.items() <= after.items()


def test_promotion_to_where_it_points_keeps_the_predecessor(
    registry: Registry, make_package: Any
) -> None:
    for seed in (1, 2):
        registry.register(make_package(seed).folder)
        registry.promote("faces", seed)
    assert registry.promote("faces", 2).previous == 1
    assert registry.rollback("faces").number == 1


def test_promotion_on_condition(registry: Registry, make_package: Any) -> None:
    registry.register(make_package(1).folder)
    registry.promote("faces", 1, expected=0)
    with pytest.raises(ConflictError, match=r"points at version 1, not at 7"):
        registry.promote("faces", 1, expected=7)
    with pytest.raises(ConflictError, match=r"decide again"):
        registry.promote("faces", 1, expected=0)
    assert len(registry.events("faces")) == 2


def test_what_is_missing_is_named_with_the_nearest(registry: Registry, make_package: Any) -> None:
    for seed in range(1, 6):
        registry.register(make_package(seed).folder)
    with pytest.raises(NotFoundError, match=r"'fases'. Nearest: faces"):
        registry.resolve("fases@latest")
    with pytest.raises(NotFoundError, match=r"no version 9. Nearest: faces:3, faces:4, faces:5"):
        registry.resolve("faces:9")
    with pytest.raises(NotFoundError, match=r"no alias 'champion'; it has none.*promote faces:5"):
        registry.resolve("faces")
    with pytest.raises(NotFoundError, match=r"no version 9"):
        registry.promote("faces", 9)
    with pytest.raises(NotFoundError, match=r"no alias"):
        registry.rollback("faces")
    registry.promote("faces", 3)
    with pytest.raises(NotFoundError, match=r"nothing to go back to"):
        registry.rollback("faces")
    with pytest.raises(NotFoundError, match=r"never moved"):
        registry.resolve("faces@previous")


def test_odd_names(registry: Registry, make_package: Any) -> None:
    registry.register(make_package(1).folder)
    for alias in ("latest", "previous", "UP", "a b", "../x", "1"):
        with pytest.raises(ModelReferenceError):
            registry.promote("faces", 1, alias)
    with pytest.raises(ModelReferenceError):
        registry.versions("../faces")
    with pytest.raises(ModelReferenceError, match=r"is a path"):
        registry.resolve("./faces")


def test_verify_finds_damage(registry: Registry, make_package: Any) -> None:
    package = make_package()
    registry.register(package.folder)
    model = blob_key(package.manifest.files["model.onnx"].sha256)
    card = blob_key(package.manifest.files["docs/card.md"].sha256)
    data = registry.store.get(model).data
    registry.store.put(model, bytes([data[0] ^ 1]) + data[1:])
    registry.store.put(card, b"x")
    report = registry.verify("faces:1")
    assert not report.ok
    problems = {file.name: file.problem for file in report.files}
    assert problems["manifest.json"] is None
    assert problems["model.onnx"] == "its bytes were altered"
    assert problems["docs/card.md"] == "it has 1 bytes instead of 7"
    registry.store.delete(model)
    registry.store.put(blob_key(package.digest), b"{}")
    problems = {file.name: file.problem for file in registry.verify("faces:1").files}
    assert problems["model.onnx"] == "it is missing"
    assert problems["manifest.json"] == "its bytes were altered"
    # A blob of the wrong size or none is sent again by the next registration that needs it.


def test_damaged_blobs_never_reach_the_cache(
    registry: Registry, make_package: Any, tmp_path: Path
) -> None:
    package = make_package()
    registry.register(package.folder)
    key = blob_key(package.manifest.files["model.onnx"].sha256)
    data = registry.store.get(key).data
    registry.store.put(key, data[:-1] + b"X")
    with pytest.raises(PackageError, match=r"altered bytes for model\.onnx of faces:1"):
        registry.pull("faces:1")
    assert not list((tmp_path / "cache" / "models").glob("sha256-*"))
    registry.store.put(key, data)
    assert registry.pull("faces:1").digest == package.digest
    registry.store.delete(key)
    assert registry.pull("faces:1").digest == package.digest  # from the cache


def test_damaged_and_newer_documents(registry: Registry, make_package: Any) -> None:
    registry.register(make_package(1).folder)
    key = version_key("faces", 1)
    whole = registry.store.get(key).data
    registry.store.put(key, whole[: len(whole) // 2])
    with pytest.raises(RegistryError, match=r"cut short"):
        registry.resolve("faces:1")
    registry.store.put(key, json.dumps(json.loads(whole) | {"schema_version": 2}).encode())
    with pytest.raises(RegistryError, match=r"pip install --upgrade fer-workflow"):
        registry.resolve("faces:1")
    registry.store.put(version_key("faces", 2), whole)
    with pytest.raises(RegistryError, match=r"describes faces:1"):
        registry.resolve("faces:2")


def test_a_newer_registry_is_refused(registry: Registry, make_package: Any, url: str) -> None:
    registry.register(make_package(1).folder)
    root = json.loads(registry.store.get("registry.json").data)
    registry.store.put("registry.json", json.dumps(root | {"schema_version": 2}).encode())
    fresh = Registry.open(url)
    for call in (fresh.models, lambda: fresh.resolve("faces:1"), lambda: fresh.promote("faces", 1)):
        with pytest.raises(RegistryError, match=r"up to 1: upgrade with `pip install"):
            call()
    with pytest.raises(RegistryError, match=r"upgrade"):
        fresh.register(make_package(2).folder)


def test_an_empty_registry(registry: Registry) -> None:
    with pytest.raises((NotFoundError, StoreError), match=r"no model yet|There is no registry"):
        registry.resolve("faces")


def test_pull_takes_paths_without_a_registry(make_package: Any) -> None:
    package = make_package()
    assert pull(package.folder) == package
    assert pull(str(package.folder)) == package
    with pytest.raises(SettingsError, match=r"FER_REGISTRY"):
        pull("faces")


@pytest.mark.parametrize("address", ["http://host/x", "s3://", "s3:///x", "s3://b/../x", " "])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(SettingsError):
        Registry.open(address)


def test_gate_figures_must_be_json(registry: Registry, make_package: Any) -> None:
    registry.register(make_package(1).folder)
    for gate in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(RegistryError, match=r"JSON"):
            registry.promote("faces", 1, gate=gate)


def test_an_altered_package_is_not_registered(registry: Registry, make_package: Any) -> None:
    package = make_package()
    package.file("model.onnx").write_bytes(b"else")
    with pytest.raises(PackageError):
        registry.register(package.folder)
    with pytest.raises((StoreError, NotFoundError)):
        registry.versions("faces")
    assert isinstance(package, ModelPackage)
