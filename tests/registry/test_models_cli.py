"""`fer models` as users run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fer.cli.models import app
from fer.errors import FerError, GateError, ModelReferenceError, RegistryError, UsageError
from fer.registry import Registry
from fer.registry.documents import blob_key

runner = CliRunner()
COMMANDS = [
    "init",
    "list",
    "show",
    "log",
    "register",
    "promote",
    "rollback",
    "pull",
    "verify",
    "gate",
    "tag",
    "note",
    "sign",
    "deprecate",
    "delete",
    "restore",
    "gc",
    "diff",
    "export",
    "import",
]


def run(*arguments: object) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, FerError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def run_json(*arguments: object) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return document


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    assert f"fer models {command}" in " ".join(run(command, "--help").replace("│", " ").split())


def test_init_may_be_repeated(folder_registry: Registry, make_package: Any) -> None:
    for _ in range(2):
        assert run_json("init") == {"registry": folder_registry.url}
    assert run_json("list")["models"] == []
    assert run_json("register", make_package(1).folder)["version"] == 1


def test_a_life(folder_registry: Registry, make_package: Any) -> None:
    first, second = make_package(1), make_package(2)
    assert run_json("register", first.folder, "--promote-as", "champion")["version"] == 1
    done = run_json("register", second.folder, "--note", "more data")
    assert (done["version"], done["digest"]) == (2, second.digest)
    listed = run_json("list")["models"]
    assert listed == [
        {
            "name": "faces",
            "latest": 2,
            "aliases": {"champion": 1},
            "description": "Seven expressions",
        }
    ]
    assert [v["aliases"] for v in run_json("list", "faces")["versions"]] == [["champion"], []]
    moved = run_json("promote", "faces:2", "--reason", "better")
    assert (moved["version"], moved["previous"]) == (2, 1)
    assert run_json("rollback", "faces")["version"] == 1
    shown = run_json("show", "faces:2")
    assert shown["package"]["metrics"] == {"accuracy": 0.502}
    assert [event["action"] for event in shown["events"]] == ["register", "promote"]
    pulled = run_json("pull", "faces")
    assert pulled["digest"] == first.digest
    assert run("pull", "faces").strip() == pulled["folder"]
    assert run_json("verify", "faces")["ok"] is True


def test_the_log_of_a_model(folder_registry: Registry, make_package: Any) -> None:
    for seed in (1, 2):
        run("register", make_package(seed).folder, "--promote-as", "champion", "-n", f"run {seed}")
    run("rollback", "faces", "--reason", "worse [red]outside[/red]")
    run("delete", "faces:2", "--force")
    events = run_json("log", "faces")["events"]
    assert [(event["action"], event["version"]) for event in events] == [
        ("register", 1),
        ("promote", 1),
        ("register", 2),
        ("promote", 2),
        ("rollback", 1),
        ("delete", 2),
    ]
    assert [event["action"] for event in run_json("log", "faces", "--last", "2")["events"]] == [
        "rollback",
        "delete",
    ]
    text = run("log", "faces")
    assert "rollback 1 @champion" in text
    assert "worse [red]outside[/red]" in text


def test_text_for_people(folder_registry: Registry, make_package: Any) -> None:
    assert "Registered faces:1" in run("register", make_package(1).folder, "-n", "[red]x[/red]\x1b")
    run("promote", "faces:1")
    assert "latest=1" in run("list")
    assert "@champion" in run("list", "faces")
    shown = run("show", "faces")
    assert "[red]x[/red]" in shown
    assert "\x1b" not in shown
    assert "0.501" in shown
    assert "ok  model.onnx" in run("verify", "faces")


def test_damage_fails(folder_registry: Registry, make_package: Any) -> None:
    package = make_package(1)
    run("register", package.folder)
    folder_registry.store.delete(blob_key(package.manifest.files["model.onnx"].sha256))
    with pytest.raises(RegistryError, match=r"damaged") as raised:
        run("verify", "faces:1")
    assert raised.value.exit_code == 1


def test_a_bad_alias_leaves_no_version(folder_registry: Registry, make_package: Any) -> None:
    with pytest.raises(ModelReferenceError) as raised:
        run("register", make_package(1).folder, "--promote-as", "No Good")
    assert raised.value.exit_code == 2
    assert not folder_registry.store.root.exists()  # type: ignore[attr-defined]


def test_what_comes_after_registration(folder_registry: Registry, make_package: Any) -> None:
    for seed in (1, 2, 3):
        run("register", make_package(seed).folder)
    assert run_json("tag", "faces:1", "stage=field", "lab")["tags"] == {"stage": "field", "lab": ""}
    assert run_json("tag", "faces:1", "--remove", "lab")["tags"] == {"stage": "field"}
    assert run_json("note", "faces:1", "a note")["notes"][0]["text"] == "a note"
    assert run_json("deprecate", "faces:1", "--reason", "old")["deprecated"] == "old"
    listed = run_json("list", "faces")["versions"]
    assert listed[0]["tags"] == {"stage": "field"}
    assert listed[0]["metrics"] == {"accuracy": 0.501}
    assert "stage=field deprecated" in run("list", "faces")
    shown = run("show", "faces:1")
    assert "deprecated[/yellow]" not in shown
    assert "a note" in shown
    assert run_json("deprecate", "faces:1", "--undo")["deprecated"] is None

    assert run_json("delete", "faces:2", "--reason", "wrong [red]labels")["deleted"]
    assert [one["version"] for one in run_json("list", "faces")["versions"]] == [1, 3]
    assert len(run_json("list", "faces", "--deleted")["versions"]) == 3
    assert "wrong [red]labels" in run("show", "faces:2")
    plan = run_json("gc", "--grace", "0")
    assert (plan["applied"], plan["purged"]) == (False, ["faces:2"])
    assert "Would delete 2 blobs" in run("gc", "--grace", "0")
    assert run_json("restore", "faces:2")["deleted"] is None
    assert run_json("gc", "--grace", "0", "--apply")["blobs"] == []


def test_diff_of_versions_and_folders(folder_registry: Registry, make_package: Any) -> None:
    package = make_package(2)
    run("register", make_package(1).folder)
    found = run_json("diff", "faces:1", package.folder)
    assert found["metrics"] == {"accuracy": {"before": 0.501, "after": 0.502, "delta": 0.001}}
    assert list(found["files"]) == ["model.onnx"]
    text = run("diff", "faces:1", package.folder)
    assert "accuracy  0.501 -> 0.502  (+0.001)" in text
    assert "data  the same" in text


def test_export_and_import(folder_registry: Registry, make_package: Any, tmp_path: Path) -> None:
    for seed in (1, 2):
        run("register", make_package(seed).folder)
    other = tmp_path / "other"
    done = run_json("export", "faces:2", "--to", other)
    assert [(one["from"], one["to"]) for one in done["versions"]] == [("faces:2", "faces:1")]
    done = run_json("import", "faces@latest", "--from", folder_registry.url, "-r", other, "--all")
    assert [one["to"] for one in done["versions"]] == ["faces:2", "faces:1"]
    assert "origin" in run("show", "faces:2", "-r", other)
    with pytest.raises(UsageError, match=r"both registries"):
        run("export", "faces:2", "--to", folder_registry.url)


def test_a_forced_promotion_says_so(folder_registry: Registry, make_package: Any) -> None:
    run("register", make_package(1).folder)
    check = {"name": "recall_fear", "passed": False, "text": "recall_fear 0.1 is below 0.2"}
    decision = {"passed": False, "champion": None, "checks": [check], "text": "recall_fear"}
    folder_registry.judge("faces", 1, decision)
    assert "gate:failed" in run("list", "faces")
    with pytest.raises(GateError, match=r"did not pass the gate"):
        run("promote", "faces:1")
    assert run_json("promote", "faces:1", "--force", "--reason", "needed")["forced"] is True
    shown = run("show", "faces")
    assert "FORCED    past the gate as @champion" in shown
    assert "NO  recall_fear 0.1 is below 0.2" in shown
    assert run_json("show", "faces")["forced"][0]["reason"] == "needed"
    # For ever: after another decision, another champion, its deletion, and the end of its files.
    folder_registry.judge("faces", 1, {"passed": True, "champion": None})
    run("promote", "faces:1")
    run("register", make_package(2).folder, "--promote-as", "champion")
    run("delete", "faces:1", "--force")
    assert run_json("gc", "--grace", "0", "--apply")["purged"] == ["faces:1"]
    assert "FORCED    past the gate as @champion" in run("show", "faces:1")
    assert "promote 1 @champion FORCED" in run("log", "faces")
