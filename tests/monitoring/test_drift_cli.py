"""`fer drift` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from fer.cli.drift import FOUND, app
from fer.errors import ParamsError, TableError, UsageError

Write = Callable[..., None]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run far from any params.yaml."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> Result:
    whole = typer.Typer()
    whole.add_typer(app, name="drift")
    return CliRunner().invoke(whole, ["drift", *(str(one) for one in arguments)])


def test_drift_has_an_exit_status_of_its_own(results: Path, write: Write) -> None:
    result = run("check", results)
    assert result.exit_code == 0, result.output
    assert "Steady: " in result.stdout
    assert result.stdout.count("steady") == 16
    write(results, 30, seed=5, brightness=85.0)
    result = run("check", results)
    assert result.exit_code == FOUND == 3
    assert "Drift: brightness" in result.stdout
    assert result.stdout.split("brightness", 1)[1].splitlines()[0].split()[-1] == "drift"
    few = run("check", results, "--until", "2026-03-10", "--days", "0.5")
    assert few.exit_code == 0
    assert "Too few to tell" in few.stdout


def test_json_is_the_whole_comparison(results: Path, write: Write) -> None:
    write(results, 30, seed=5, brightness=85.0)
    result = run("check", results, "--runs", 1, "--json")
    assert result.exit_code == FOUND
    document = json.loads(result.stdout)
    assert document["verdict"] == "drift"
    assert document["model"]["version"] == 1
    assert document["now"]["runs"] == 1
    assert document["baseline"]["faces"] >= 1000
    (line,) = [one for one in document["lines"] if one["name"] == "brightness"]
    assert line["effect"] > line["threshold"] == 0.15
    assert line["verdict"] == "drift"
    assert line["baseline"] - line["now"] == pytest.approx(40, abs=6)


def test_a_report_is_written(results: Path, write: Write, tmp_path: Path) -> None:
    write(results, 30, seed=5, brightness=85.0)
    result = run("check", results, "--report", tmp_path / "report", "--json")
    assert result.exit_code == FOUND
    assert "index.html" in result.stderr
    assert json.loads((tmp_path / "report" / "drift.json").read_text()) == json.loads(result.stdout)
    assert {one.name for one in (tmp_path / "report").iterdir()} == {
        "index.html",
        "drift.png",
        "drift.json",
    }


def test_a_baseline_is_kept_and_used(results: Path, tmp_path: Path) -> None:
    result = run("baseline", results, "--since", "2026-03-05", "--until", "2026-03-12", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["faces"] > 200
    assert document["runs"] == 3
    found = json.loads(run("check", results, "--json").stdout)
    assert found["baseline"]["faces"] == document["faces"]
    text = run("baseline", results, "--out", tmp_path / "other.json").stdout
    assert "first faces of m:1" in text
    found = json.loads(run("check", results, "--baseline", "other.json", "--json").stdout)
    assert found["baseline"]["faces"] >= 1000
    period = ("--baseline-since", "2026-03-05", "--baseline-until", "2026-03-06")
    found = json.loads(run("check", results, *period, "--json").stdout)
    assert found["baseline"]["runs"] == 1


def test_params_say_what_drift_is(
    results: Path, write: Write, checkout: Path, tmp_path: Path
) -> None:
    write(results, 30, seed=5, brightness=85.0)
    text = (checkout / "params.yaml").read_text(encoding="utf-8")
    assert "max_ks: 0.15" in text
    (tmp_path / "params.yaml").write_text(text.replace("max_ks: 0.15", "max_ks: 0.95"))
    assert run("check", results).exit_code == 0
    result = run("check", results, "--params", "none.yaml")
    assert isinstance(result.exception, ParamsError)


def test_what_is_wrong_is_said(results: Path, tmp_path: Path) -> None:
    assert isinstance(run("check", tmp_path / "none").exception, TableError)
    for wrong in (("--days", "1", "--runs", "1"), ("--model", "x"), ("--until", "soon")):
        assert isinstance(run("check", results, *wrong).exception, UsageError)
    assert run("check", results, "--runs", "0").exit_code == 2


def test_the_help_states_the_exit_status() -> None:
    text = " ".join(run("check", "--help").stdout.split())
    assert "0: no drift, or too few faces to tell; 3: drift" in text
