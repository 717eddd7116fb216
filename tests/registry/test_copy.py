"""Copies between registries: a folder, SeaweedFS and moto on either side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fer.errors import NotFoundError, PackageError
from fer.registry import Registry
from fer.registry.documents import blob_key


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    return Registry.open(str(tmp_path / "other"))


def test_out_and_in_again(registry: Registry, other: Registry, make_package: Any) -> None:
    other.register(make_package(9).folder)
    for seed in (1, 2):
        registry.register(make_package(seed).folder, f"run {seed}")
    registry.promote("faces", 2)
    registry.tag("faces", 2, {"stage": "field"})
    copied = registry.copy_to(other, "faces@champion")
    assert (copied.number, copied.note) == (2, "run 2")
    assert copied.digest == registry.resolve("faces").digest
    assert other.verify("faces:2").ok
    assert other.state("faces", 2).tags == {"stage": "field"}
    assert copied.origin is not None
    assert (copied.origin["registry"], copied.origin["version"]) == (registry.url, 2)
    assert other.events("faces")[1].details == {"origin": copied.origin}
    # Once more, and back: what is there already stays the version it is.
    assert registry.copy_to(other, "faces:2") == copied
    assert other.copy_to(registry, "faces:2") == registry.resolve("faces:2")
    back = other.copy_to(registry, "faces:1")
    assert (back.number, registry.verify("faces:3").ok) == (3, True)
    assert len(other.versions("faces")) == 2
    assert other.aliases("faces") == {}


def test_what_was_copied_keeps_its_first_origin(
    registry: Registry, other: Registry, make_package: Any, tmp_path: Path
) -> None:
    registry.register(make_package(1).folder)
    registry.copy_to(other, "faces:1")
    third = Registry.open(str(tmp_path / "third"))
    copied = other.copy_to(third, "faces:1")
    assert copied.origin is not None
    assert copied.origin["registry"] == registry.url


def test_damage_is_not_copied(registry: Registry, other: Registry, make_package: Any) -> None:
    package = make_package(1)
    registry.register(package.folder)
    key = blob_key(package.manifest.files["model.onnx"].sha256)
    data = registry.store.get(key).data
    registry.store.put(key, data[:-1] + b"X")
    with pytest.raises(PackageError, match=r"altered bytes"):
        registry.copy_to(other, "faces:1")
    assert not Path(other.url).exists()
    registry.delete("faces", 1)
    with pytest.raises(NotFoundError, match=r"deleted"):
        registry.copy_to(other, "faces:1")


def test_registering_again_uploads_what_was_lost(registry: Registry, make_package: Any) -> None:
    package = make_package(1)
    version = registry.register(package.folder)
    registry.store.delete(blob_key(package.manifest.files["model.onnx"].sha256))
    assert not registry.verify("faces:1").ok
    assert registry.register(package.folder) == version
    assert registry.verify("faces:1").ok
