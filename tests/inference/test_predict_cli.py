"""`fer predict` and `fer batch` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from fer.cli.predict import app
from fer.errors import ImageError, ParamsError, StoreError
from fer.expressions import EXPRESSIONS


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run far from any params.yaml."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> Result:
    whole = typer.Typer()
    whole.add_typer(app)
    return CliRunner().invoke(whole, [str(one) for one in arguments])


def test_predict_prints_json(model: Path, folder: Path) -> None:
    result = run("predict", folder / "b.png", folder / "e-wall.png", "--model", model, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["model"]["name"] == "model"
    first, second = document["pictures"]
    assert (first["width"], first["error"]) == (512, None)
    face = first["faces"][0]
    assert face["expression"] == max(face["probabilities"], key=face["probabilities"].get)
    assert list(face["probabilities"]) == list(EXPRESSIONS)
    assert len(face["box"]) == 4
    assert second["faces"] == []


def test_predict_draws_seven_bars(model: Path, folder: Path) -> None:
    result = run("predict", folder / "b.png", folder / "e-wall.png", "--model", model)
    for name in EXPRESSIONS:
        assert name in result.stdout
    assert "█" in result.stdout
    assert "box " in result.stdout
    assert "no face found" in result.stdout


def test_predict_takes_a_face_crop(model: Path, folder: Path) -> None:
    result = run("predict", folder / "e-wall.png", "--crop", "--model", model, "--json")
    (face,) = json.loads(result.stdout)["pictures"][0]["faces"]
    assert face["box"] is None
    assert face["expression"] == "fear"  # grey level 90 in the stand-in model


def test_predict_names_what_it_cannot_read_and_does_the_rest(model: Path, folder: Path) -> None:
    bad = folder / "h-text.jpg"
    result = run("predict", bad, folder / "none.jpg", folder / "b.png", "--model", model, "--json")
    assert isinstance(result.exception, ImageError)
    assert result.exception.exit_code == 2
    pictures = json.loads(result.stdout)["pictures"]
    assert "but text" in pictures[0]["error"]
    assert "does not exist" in pictures[1]["error"]
    assert pictures[2]["faces"]
    assert "h-text.jpg" in result.stderr


def test_params_say_how_faces_are_found(model: Path, folder: Path, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    assert "min_score: null" in text
    (tmp_path / "params.yaml").write_text(text.replace("min_score: null", "min_score: 9.0"))
    picture = folder / "b.png"
    found = json.loads(run("predict", picture, "--model", model, "--json").stdout)
    assert found["pictures"][0]["faces"] == []
    result = run("predict", picture, "--model", model, "--params", "none.yaml")
    assert isinstance(result.exception, ParamsError)


def test_batch_reports(model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("batch", folder, out, "--model", model, "--csv", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["analysed"], document["quarantined"]) == (6, 3)
    assert list((out / "parts").glob("*.csv"))
    text = run("batch", folder, out, "--model", model).stdout
    assert "9 recorded before" in text
    (folder / "j.jpg").symlink_to(tmp_path / "nowhere.jpg")
    result = run("batch", folder, out, "--model", model)
    assert isinstance(result.exception, StoreError)
    assert "j.jpg" in result.stdout
