"""The ablation benchmark: what it trains on, what it says, and that it goes on where it stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fer.dataset.prepare import prepare
from fer.dataset.synthetic import synthetic_dataset
from fer.dataset.table import FaceTable, write_source
from fer.params import load_params

CHECKOUT = Path(__file__).resolve().parent.parent
PROGRAM = CHECKOUT / "benchmarks" / "ablations.py"


@pytest.fixture(scope="module")
def ablations() -> Any:
    """benchmarks/ablations.py, which is no part of a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROGRAM.parent))
        spec = importlib.util.spec_from_file_location("ablations", PROGRAM)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "ablations", module)  # its dataclass looks itself up
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared table of drawn faces, some of them twice."""
    folder = tmp_path_factory.mktemp("prepared")
    write_source(folder / "images.parquet", synthetic_dataset(20, 0.2, seed=1))
    params = load_params(CHECKOUT / "params.yaml")
    prepare(folder / "images.parquet", params.prepare, 1, folder, folder / "cleaning.json")
    return folder / "faces.parquet"


def test_nothing_of_the_test_split_is_trained_on_or_judged(
    ablations: ModuleType, faces: Path
) -> None:
    table = FaceTable.read(faces)
    part = ablations.fewer(table, 60)
    assert set(part.split) == {"train", "validation"}
    assert len(part.part("train")) == 60
    assert len(part.part("validation")) == len(table.part("validation"))
    assert not np.isin(part.sha256, table.part("test").sha256).any()
    counts = np.bincount(part.part("train").expression, minlength=7)
    whole = np.bincount(table.part("train").expression, minlength=7)
    assert np.abs(counts / 60 - whole / whole.sum()).max() < 0.03, "stratified"
    assert (ablations.fewer(table, 60).name == part.name).all()


def test_twins_stand_for_as_many_others(ablations: ModuleType, faces: Path) -> None:
    table = FaceTable.read(faces)
    validation = table.part("validation").sha256
    # Drawn copies of validation images may be few: make one.
    row = int(np.flatnonzero((table.split == "train") & (table.cleaning == "keep"))[0])
    table.sha256[row], table.cleaning[row] = validation[0], "twin"
    left_in = ablations.fewer(table, 60, twins=True).part("train")
    assert len(left_in) == 60
    assert np.isin(left_in.sha256, validation).any()
    assert not np.isin(ablations.fewer(table, 60).part("train").sha256, validation).any()


def test_every_variant_is_a_valid_recipe_and_differs_in_one_thing(ablations: ModuleType) -> None:
    options = ablations.options_of(["--params", str(CHECKOUT / "params.yaml")])
    found = ablations.variants(ablations.short_recipe(options)["train"])
    trained = {}
    for name, variant in found.items():
        params = ablations.params_of(variant, 7, options)
        assert params.seed == 7
        trained[name] = (params.train.model_dump_json(), variant.power, variant.twins)
    assert len(set(trained.values())) == len(found), "no two are the same"


def test_weights_are_one_on_average_and_heavier_for_the_rare(ablations: ModuleType) -> None:
    labels = np.repeat(np.arange(7), [10, 1, 10, 20, 10, 10, 10])
    for power in (0.5, 1.0):
        weights = ablations.rarity(labels, power)
        assert weights[labels].mean() == pytest.approx(1)
        assert weights[1] / weights[3] == pytest.approx(20**power)


def record(name: str, seed: int, right: int, *, count: int = 100) -> dict[str, Any]:
    """A record whose first `right` images were recognised."""
    return {
        "variant": name,
        "change": f"what {name} is",
        "seed": seed,
        "settings": {"epochs": 2},
        "validation_accuracy": right / count,
        "validation_loss": 1.5,
        "predicted": [1] * right + [0] * (count - right),
        "expression": [1] * count,
        "images_per_second": 300.0,
        "training_images": 48,
        "initial_weights": {"kind": "none"},
        "machine": "a machine",
    }


def test_the_difference_is_paired_by_seed_and_image(ablations: ModuleType) -> None:
    base = [record("base", 1, 60), record("base", 2, 64)]
    found = ablations.difference([record("a", 2, 70), record("a", 1, 62), record("a", 3, 9)], base)
    assert found["mean"] == pytest.approx(4.0)
    assert sorted(found["by_seed"]) == pytest.approx([2.0, 6.0])
    assert found["low"] < 4 < found["high"]
    assert found["high"] - found["low"] < 10, "narrower than that of two shares of 100 images"
    assert ablations.difference([record("a", 3, 9)], base)["mean"] is None


def test_the_table_goes_between_the_marks(ablations: ModuleType, tmp_path: Path) -> None:
    records = [record("base", 1, 60), record("base", 2, 64), record("a", 1, 62)]
    text = ablations.page(records, ["base", "a", "b"])
    assert "| base | what base is | 2 | 62.0 (60.0 to 64.0) |  |  |" in text
    assert "| a | what a is | 1 | 62.0 (62.0 to 62.0) | +2.0 (" in text
    assert "| b |" not in text
    document = tmp_path / "recipe.md"
    document.write_text("before\n<!-- begin ablations -->\nold\n<!-- end ablations -->\nafter\n")
    ablations.put(text, document)
    ablations.put(text, document)
    assert document.read_text() == (
        f"before\n<!-- begin ablations -->\n{text}<!-- end ablations -->\nafter\n"
    )
    document.write_text("no marks")
    with pytest.raises(SystemExit, match="lacks <!-- begin ablations -->"):
        ablations.put(text, document)


_SMALL = """
import sys
sys.path.insert(0, {benchmarks!r})
import ablations

ablations.__file__ = __file__  # so that workers are this script too
if "--worker" in sys.argv:
    import keras
    import fer.training.train as module

    def small():
        inputs = keras.Input((None, None, 3))
        x = keras.layers.Rescaling(1 / 255)(inputs)
        return keras.Model(inputs, keras.layers.Conv2D(8, 3, strides=4)(x), name="backbone")

    module.build_backbone = small
ablations.main()
"""


@pytest.mark.slow
def test_a_stopped_series_goes_on_where_it_was(faces: Path, tmp_path: Path) -> None:
    """A small network stands for EfficientNetB2."""
    out, program = tmp_path / "out", tmp_path / "program.py"
    program.write_text(_SMALL.format(benchmarks=str(PROGRAM.parent)))
    command = [
        *(sys.executable, str(program), "--faces", str(faces), "--out", str(out)),
        *("--params", str(CHECKOUT / "params.yaml"), "--weights", "none", "--seeds", "1"),
        *("--images", "48", "--epochs", "2", "--batch-size", "16", "--only", "class-weights"),
    ]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        return subprocess.run(
            [*command, *more],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    first = run()
    assert first.returncode == 0, first.stderr
    assert "1 of 2: base, seed 1" in first.stderr
    records = {path.name: json.loads(path.read_text()) for path in out.iterdir()}
    assert set(records) == {"base-1.json", "class-weights-1.json"}, "scratch folders are gone"
    base, weighted = records["base-1.json"], records["class-weights-1.json"]
    assert base["train"] == weighted["train"], "only the loss differs"
    assert base["history"][0]["loss"] != weighted["history"][0]["loss"]
    for one in (base, weighted):
        right = np.equal(one["predicted"], one["expression"]).mean()
        assert one["validation_accuracy"] == pytest.approx(right)
        assert [epoch["epoch"] for epoch in one["history"]] == [1, 2]
        assert one["history"][0]["val_loss"] == 0, "judged at the end alone"

    (out / "class-weights-1.json").unlink()
    again = run()
    assert again.returncode == 0, again.stderr
    assert "1 of 1: class-weights, seed 1" in again.stderr
    repeated = json.loads((out / "class-weights-1.json").read_text())
    assert repeated["validation_loss"] == weighted["validation_loss"], "to the last digit"

    none = run("--minutes", "0", "--seeds", "2")
    assert none.returncode == 0, none.stderr
    assert "2 of 2 left for another call: time is up" in none.stderr
    other = run("--images", "32")
    assert other.returncode == 1
    assert "holds records of other data, weights, parameters or sizes" in other.stderr
