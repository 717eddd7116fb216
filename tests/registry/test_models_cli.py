"""`fer models` as users run it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from fer.cli.models import app
from fer.errors import FerError, ModelReferenceError, RegistryError
from fer.registry import Registry
from fer.registry.documents import blob_key

runner = CliRunner()
COMMANDS = ["list", "show", "register", "promote", "rollback", "pull", "verify"]


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
