"""What may change about a version, on every kind of store."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from fer.errors import GateError, ModelReferenceError, NotFoundError, RegistryError
from fer.registry import Registry, VersionState, catalog, publish
from fer.registry.documents import digest_key, index_key

PASSED = {"passed": True, "champion": None, "text": "fine", "checks": []}
FAILED = PASSED | {"passed": False, "text": "recall_fear 0.1 is below 0.2"}


@pytest.fixture
def two(registry: Registry, make_package: Any) -> Registry:
    """A registry with faces:1 and faces:2."""
    for seed in (1, 2):
        registry.register(make_package(seed).folder)
    return registry


def _actions(registry: Registry) -> list[str]:
    return [event.action for event in registry.events("faces")]


def test_tags_and_notes(two: Registry) -> None:
    assert two.state("faces", 1) == VersionState()
    two.tag("faces", 1, {"stage": "field", "owner": "lab"})
    state = two.tag("faces", 1, {"stage": "done"}, remove=("owner", "absent"))
    assert state.tags == {"stage": "done"}
    assert two.tag("faces", 1, {"stage": "done"}) == state  # nothing changed: no event
    two.note("faces", 1, "  fails on side views ")
    state = two.note("faces", 1, "only left ones")
    assert [note.text for note in state.notes] == ["fails on side views", "only left ones"]
    assert two.states("faces") == {1: two.state("faces", 1)}
    assert _actions(two)[2:] == ["tag", "tag", "note", "note"]
    assert two.events("faces")[3].details == {
        "set": {"stage": "done"},
        "removed": ["owner", "absent"],
    }
    assert two.events("faces")[-1].reason == "only left ones"


@pytest.mark.parametrize("tags", [{"UP": "x"}, {"a b": "x"}, {"a": "x" * 501}, {"a": "x\ny"}])
def test_odd_tags_are_refused(folder_registry: Registry, make_package: Any, tags: Any) -> None:
    folder_registry.register(make_package(1).folder)
    with pytest.raises(ModelReferenceError):
        folder_registry.tag("faces", 1, tags)
    for text in ("", "  ", "x" * 5001):
        with pytest.raises(ModelReferenceError):
            folder_registry.note("faces", 1, text)
    with pytest.raises(NotFoundError, match=r"no version 7"):
        folder_registry.tag("faces", 7, {"a": "b"})
    assert folder_registry.states("faces") == {}


def test_many_writers_of_one_state(two: Registry) -> None:
    def write(me: int) -> None:
        for turn in range(3):
            two.tag("faces", 1, {f"tag-{me}-{turn}": "x"})

    threads = [threading.Thread(target=write, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(two.state("faces", 1).tags) == 12
    assert _actions(two).count("tag") == 12


def test_a_changer_that_died_after_its_swap(two: Registry) -> None:
    two.tag("faces", 1, {"a": "1"})
    lost = two.events("faces")[-1]
    two.store.delete(lost.key)
    assert two.events("faces")[-1] == lost
    two.tag("faces", 1, {"a": "2"})
    assert two.store.head(lost.key) is not None


def test_a_deprecated_version(two: Registry, caplog: pytest.LogCaptureFixture) -> None:
    two.promote("faces", 1)
    two.deprecate("faces", 1, "labels were wrong")
    assert two.pull("faces").digest == two.resolve("faces:1").digest
    assert "faces:1 is deprecated: labels were wrong" in caplog.text
    with pytest.raises(RegistryError, match=r"deprecated \(labels were wrong\).*--undo"):
        two.promote("faces", 1, "challenger")
    assert two.promote("faces", 1, "challenger", force=True).forced
    two.undeprecate("faces", 1)
    assert not two.promote("faces", 1, "challenger").forced
    assert two.state("faces", 1).deprecated is None


def test_a_deleted_version_and_back(two: Registry) -> None:
    state = two.delete("faces", 2, "trained on the test set")
    assert state.deleted == "trained on the test set"
    assert [version.number for version in two.versions("faces")] == [1]
    assert [version.number for version in two.versions("faces", deleted=True)] == [1, 2]
    assert [one.number for one in two.summaries("faces")] == [1]
    assert two.resolve("faces@latest").number == 1
    for call in (
        lambda: two.resolve("faces:2"),
        lambda: two.pull("faces:2"),
        lambda: two.promote("faces", 2),
        lambda: two.delete("faces", 2),
        lambda: two.tag("faces", 2, {"a": "b"}),
    ):
        with pytest.raises(NotFoundError, match=r"deleted \(trained on.*fer models restore"):
            call()
    assert two.resolve("faces:2", deleted=True).number == 2
    two.restore("faces", 2, "it was not")
    assert two.resolve("faces@latest").number == 2
    assert two.verify("faces:2").ok
    assert _actions(two)[2:] == ["delete", "restore"]
    for number in (1, 2):
        two.delete("faces", number)
    with pytest.raises(NotFoundError, match=r"All versions of 'faces' were deleted"):
        two.resolve("faces@latest")
    assert two.models() == ["faces"]


def test_numbers_are_never_given_again(two: Registry, make_package: Any) -> None:
    deleted = two.delete("faces", 2)
    assert deleted.deleted
    again = two.register(make_package(2).folder)
    assert (again.number, again.digest) == (3, two.resolve("faces:2", deleted=True).digest)
    assert two.register(make_package(2).folder) == again
    assert b":3" in two.store.get(digest_key("faces", again.digest)).data
    assert two.register(make_package(3).folder).number == 4
    assert two.register(make_package(2).folder) == again


def test_a_deletion_while_the_same_package_goes_up(
    folder_registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_package(1)
    folder_registry.register(package.folder)
    upload = folder_registry._upload

    def slowly(*arguments: Any) -> None:
        upload(*arguments)
        time.sleep(0.2)  # so that it was looked for before
        folder_registry.delete("faces", 1)

    monkeypatch.setattr(folder_registry, "_upload", slowly)
    assert folder_registry.register(package.folder).number == 2
    assert folder_registry.resolve("faces@latest").digest == package.digest


def test_what_an_alias_points_at_is_not_deleted(two: Registry) -> None:
    two.promote("faces", 1)
    two.promote("faces", 2)
    with pytest.raises(RegistryError, match=r"is @champion and cannot be deleted"):
        two.delete("faces", 2, force=True)
    with pytest.raises(RegistryError, match=r"rollback of @champion goes to faces:1"):
        two.delete("faces", 1)
    two.delete("faces", 1, force=True)
    with pytest.raises(NotFoundError, match=r"deleted"):
        two.rollback("faces")
    with pytest.raises(NotFoundError, match=r"deleted"):
        two.resolve("faces@previous")


def test_an_alias_that_comes_while_a_version_is_deleted(
    two: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*_: Any) -> None:
        monkeypatch.setattr(two, "_refuse_if_pointed_at", original)
        two.promote("faces", 2, "challenger")

    original = two._refuse_if_pointed_at
    # Promoted after the deletion looked for aliases and before it was written.
    monkeypatch.setattr(two, "_refuse_if_pointed_at", meanwhile)
    with pytest.raises(RegistryError, match=r"is @challenger"):
        two.delete("faces", 2)
    assert two.state("faces", 2).deleted is None
    assert two.resolve("faces@challenger").number == 2


def test_a_deletion_that_comes_while_a_version_is_promoted(
    two: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = two._change

    def meanwhile(kind: Any, key: str, *rest: Any) -> Any:
        if "aliases" in key:
            monkeypatch.setattr(two, "_change", original)
            two.delete("faces", 2)
        return original(kind, key, *rest)

    monkeypatch.setattr(two, "_change", meanwhile)
    two.promote("faces", 2)
    assert two.resolve("faces").number == 2
    assert two.state("faces", 2).deleted is None
    assert _actions(two)[2:] == ["delete", "promote", "restore"]


def test_the_gate_is_heeded(two: Registry) -> None:
    two.promote("faces", 1)
    two.judge("faces", 2, FAILED | {"champion": 1})
    assert two.state("faces", 2).gate == FAILED | {"champion": 1}
    two.promote("faces", 2, "challenger")
    with pytest.raises(GateError, match=r"recall_fear.*--force"):
        two.promote("faces", 2)
    assert two.resolve("faces").number == 1
    moved = two.promote("faces", 2, reason="the field needs it", force=True)
    assert (moved.number, moved.forced, moved.gate) == (2, True, FAILED | {"champion": 1})
    # What was forced stays forced in the log, whatever comes after.
    two.rollback("faces")
    two.judge("faces", 2, PASSED | {"champion": 1})
    assert not two.promote("faces", 2).forced
    forced = [event for event in two.events("faces") if event.forced]
    assert [(event.version, event.reason) for event in forced] == [(2, "the field needs it")]
    assert forced[0].gate == FAILED | {"champion": 1}


def test_a_decision_holds_against_the_champion_it_was_taken_on(
    two: Registry, make_package: Any
) -> None:
    two.judge("faces", 2, PASSED)
    two.register(make_package(3).folder)
    two.promote("faces", 1)
    with pytest.raises(GateError, match=r"against no champion, but the champion is now version 1"):
        two.promote("faces", 2)
    two.judge("faces", 2, PASSED | {"champion": 1})
    assert not two.promote("faces", 2, force=True).forced  # there was nothing to overcome
    assert two.promote("faces", 3, force=True).forced  # nobody had asked the gate


def test_a_listing_reads_the_index(
    registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (catalog, publish):
        monkeypatch.setattr(module, "INDEXED", 3)
    for seed in range(1, 9):
        registry.register(make_package(seed, size=100).folder, note=f"run {seed}")
    registry.tag("faces", 2, {"a": "b"})
    registry.delete("faces", 5)
    read: list[int] = []
    original = Registry._version

    def count(self: Registry, name: str, number: int) -> Any:
        read.append(number)
        return original(self, name, number)

    monkeypatch.setattr(Registry, "_version", count)
    summaries = registry.summaries("faces")
    assert sorted(read) == [7, 8]
    assert [one.number for one in summaries] == [1, 2, 3, 4, 6, 7, 8]
    assert summaries[1].state.tags == {"a": "b"}
    assert [one.note for one in summaries[:2]] == ["run 1", "run 2"]
    assert summaries[3].metrics == {"accuracy": 0.504}
    whole = {version.number: version for version in registry.versions("faces")}
    assert all(whole[one.number].digest == one.digest for one in summaries)
    # The index is derived: without it, or with a damaged one, the listing is the same.
    registry.store.put(index_key("faces", 0), b"{damaged")
    registry.store.delete(index_key("faces", 1))
    assert registry.summaries("faces") == summaries
    assert len(registry.summaries("faces", deleted=True)) == 8


def test_a_writer_that_died_before_the_index(
    registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (catalog, publish):
        monkeypatch.setattr(module, "INDEXED", 2)
    for seed in (1, 2):
        registry.register(make_package(seed, size=100).folder)
    before = registry.store.get(index_key("faces", 0)).data
    registry.store.delete(index_key("faces", 0))
    registry.register(make_package(3, size=100).folder)
    assert registry.store.get(index_key("faces", 0)).data == before


def test_a_long_history_is_not_listed(
    registry: Registry, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (catalog, publish):
        monkeypatch.setattr(module, "INDEXED", 2)
    monkeypatch.setattr(catalog, "_LONG", 4)
    monkeypatch.setattr(catalog, "_READERS", 2)
    for seed in range(1, 8):
        registry.register(make_package(seed, size=100).folder)
    registry.store.delete(index_key("faces", 2))  # so the end is three versions further on
    listed: list[str] = []
    original = registry.store.list

    def listing(prefix: str = "") -> Any:
        listed.append(prefix)
        return original(prefix)

    monkeypatch.setattr(registry.store, "list", listing)
    assert [one.number for one in registry.summaries("faces")] == list(range(1, 8))
    assert registry.resolve("faces@latest").number == 7
    assert registry.register(make_package(8, size=100).folder).number == 8
    assert "models/faces/versions/" not in listed
    # An index of versions that do not exist leads nobody astray.
    registry.store.put(index_key("faces", 50), registry.store.get(index_key("faces", 0)).data)
    assert [one.number for one in registry.summaries("faces")] == list(range(1, 9))
    assert registry.register(make_package(9, size=100).folder).number == 9
