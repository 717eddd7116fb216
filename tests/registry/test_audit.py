"""Checking a whole registry, on every kind of store."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from fer.cli.models import app
from fer.errors import RegistryError
from fer.registry import Registry
from fer.registry.documents import ROOT, alias_key, blob_key, index_key, state_key, version_key
from fer.registry.store import Store


@pytest.fixture
def filled(registry: Registry, make_package: Any) -> Registry:
    """Three versions, an alias with a predecessor, one version deleted, one tagged."""
    for seed in (1, 2, 3):
        registry.register(make_package(seed).folder)
    registry.promote("faces", 1)
    registry.promote("faces", 2)
    registry.delete("faces", 3)
    registry.tag("faces", 1, {"site": "lab"})
    return registry


def test_a_sound_registry(filled: Registry) -> None:
    report = filled.audit()
    assert report.findings == []
    # Three manifests, three models, one card that all share.
    assert (report.models, report.versions, report.blobs) == (1, 3, 7)
    assert report.size == 3 * 20_000 + len("# Card\n")
    assert Registry(filled.store).audit().ok


def test_an_empty_registry_is_sound(registry: Registry, make_package: Any) -> None:
    registry.register(make_package(1).folder)
    assert registry.audit().ok


def _rewritten(store: Store, key: str, **changes: Any) -> None:
    store.put(key, json.dumps(json.loads(store.get(key).data) | changes).encode())


def _flip(store: Store, key: str) -> None:
    data = bytearray(store.get(key, limit=1 << 20).data)
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))


def _cut(store: Store, key: str) -> None:
    store.put(key, store.get(key).data[:-20])


def _model_blob(registry: Registry) -> str:
    return blob_key(registry.resolve("faces:2").manifest.files["model.onnx"].sha256)


Damage = Callable[[Registry], str]
DAMAGES: dict[str, tuple[Damage, Callable[[Store, str], None], str]] = {
    "flipped bit": (_model_blob, _flip, "its bytes were altered; needed by faces:2"),
    "missing blob": (_model_blob, lambda s, k: s.delete(k), "it is missing; needed by faces:2"),
    "shortened blob": (
        _model_blob,
        lambda s, k: s.put(k, b"short"),
        "it has 5 bytes instead of 20,000; needed by faces:2",
    ),
    "missing manifest": (
        lambda r: blob_key(r.resolve("faces:1").digest),
        lambda s, k: s.delete(k),
        "it is missing; needed by faces:1",
    ),
    "truncated version": (lambda _: version_key("faces", 3), _cut, "cut short"),
    "missing version": (lambda _: version_key("faces", 1), lambda s, k: s.delete(k), "is missing"),
    "copied version": (
        lambda _: version_key("faces", 3),
        lambda s, k: s.put(k, s.get(version_key("faces", 1)).data),
        "describes faces:1",
    ),
    "dangling alias": (
        lambda _: alias_key("faces", "champion"),
        lambda s, k: _rewritten(s, k, version=9),
        "points at version 9, which does not exist",
    ),
    "alias of a deleted version": (
        lambda _: alias_key("faces", "champion"),
        lambda s, k: _rewritten(s, k, version=3),
        "points at version 3, which was deleted",
    ),
    "alias with another digest": (
        lambda _: alias_key("faces", "champion"),
        lambda s, k: _rewritten(s, k, version=1),
        "names another digest than version 1 has",
    ),
    "dangling predecessor": (
        lambda _: alias_key("faces", "champion"),
        lambda s, k: _rewritten(s, k, previous=8),
        "a rollback would go to version 8",
    ),
    "state of no version": (
        lambda _: state_key("faces", 7),
        lambda s, k: s.put(
            k,
            json.dumps(json.loads(s.get(state_key("faces", 1)).data) | {"number": 7}).encode(),
        ),
        "about faces:7, which does not exist",
    ),
    "garbled event": (
        lambda r: next(iter(sorted(s.key for s in r.store.list("models/faces/events/")))),
        lambda s, k: s.put(k, b"<html>"),
        "HTML",
    ),
    "garbled index": (
        lambda _: index_key("faces", 0),
        lambda s, k: s.put(k, b'{"name":"faces","schema_version":1,"versions":[{}]}'),
        "does not sum up the versions",
    ),
    "missing root": (lambda _: ROOT, lambda s, k: s.delete(k), "it is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_found_and_nothing_else(filled: Registry, damage: str) -> None:
    where, do, said = DAMAGES[damage]
    key = where(filled)
    do(filled.store, key)
    report = Registry(filled.store).audit()
    assert not report.ok
    found = {finding.key: finding for finding in report.findings}
    assert said in found[key].problem
    assert found[key].advice.endswith(".")
    # A version that is gone is missed by its state, and by the alias that would go back to it.
    missed = {alias_key("faces", "champion"), state_key("faces", 1)}
    assert set(found) - {key} == (missed if damage == "missing version" else set())


def test_on_the_command_line(folder_registry: Registry, make_package: Any) -> None:
    runner = CliRunner()
    folder_registry.register(make_package(1).folder)
    folder_registry.promote("faces", 1)
    result = runner.invoke(app, ["verify"])
    assert result.exit_code == 0
    assert "1 models, 1 versions, 3 files" in result.stdout
    _rewritten(folder_registry.store, alias_key("faces", "champion"), version=4)
    result = runner.invoke(app, ["verify"])
    assert isinstance(result.exception, RegistryError)
    assert "version 4, which does not exist" in result.stdout
    assert "fer models promote faces:" in result.stdout
    document = json.loads(runner.invoke(app, ["verify", "--json"]).stdout)
    assert document["ok"] is False
    assert [one["key"] for one in document["findings"]] == [alias_key("faces", "champion")]
