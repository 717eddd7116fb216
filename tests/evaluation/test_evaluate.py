from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer.dataset.table import FaceTable
from fer.errors import PackageError, TableError
from fer.evaluation.calibration import expected_calibration_error, softmax
from fer.evaluation.evaluate import assess, evaluate
from fer.evaluation.ferplus import VOTES, no_votes, read_votes
from fer.evaluation.report import read_per_class
from fer.expressions import EXPRESSIONS
from fer.params import EvaluateParams

GreyModel = Callable[..., Path]
PARAMS = EvaluateParams(
    confidence=0.95,
    bootstrap=200,
    calibration_bins=15,
    latency_runs=5,
    views=2,
    robustness_images=70,
)
FILES = {
    "metrics.json",
    "per_class.csv",
    "confusion.csv",
    "confusion.png",
    "reliability.csv",
    "reliability.png",
    "robustness.json",
    "robustness.png",
    "per_class.png",
    "predictions.parquet",
    "latency.json",
    "index.html",
}


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory, faces: FaceTable, grey_model: GreyModel
) -> Path:
    """A prepared table, a model, FER+ votes, and one evaluation of them."""
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("evaluation")
    faces.write(folder / "faces.parquet")
    grey_model(folder / "model" / "model.onnx", sharpness=3.0)
    lines = ["name," + ",".join(VOTES)]
    # Annotators see the grey level, as the model does, but agree on no disgust.
    ours = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
    for name in faces.name:
        level = EXPRESSIONS.index(name.split("/")[1])
        counts = ["9" if one == ours[level] and one != "disgust" else "0" for one in VOTES]
        lines.append(f"{name}," + ",".join(counts))
    (folder / "votes.csv").write_text("\n".join(lines) + "\n")
    table = read_votes(folder / "votes.csv", faces.name.tolist())
    pq.write_table(table, folder / "ferplus.parquet")
    run(folder, folder / "out")
    return folder


def run(
    folder: Path,
    out: Path,
    ferplus: str | None = "ferplus.parquet",
    params: EvaluateParams = PARAMS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    evaluate(
        faces=folder / "faces.parquet",
        model=folder / "model",
        ferplus=folder / ferplus if ferplus else None,
        params=params,
        seed=3,
        out=out,
        progress=progress,
    )


def test_the_report_is_whole(workspace: Path) -> None:
    assert {path.name for path in (workspace / "out").iterdir()} == FILES


def test_figures_are_those_of_the_table(workspace: Path) -> None:
    faces = FaceTable.read(workspace / "faces.parquet")
    metrics = json.loads((workspace / "out" / "metrics.json").read_text())
    seen = np.array([EXPRESSIONS.index(name.split("/")[1]) for name in faces.name])
    right = seen == faces.expression  # the model sees the grey level, which the name has too
    for section, rows in (
        ("test", faces.split == "test"),
        ("clean", (faces.split == "test") & ~faces.near_twin),
        ("near_twins", (faces.split == "test") & faces.near_twin),
        ("validation", faces.split == "validation"),
    ):
        found = metrics[section]
        assert found["n"] == rows.sum()
        assert found["accuracy"] == pytest.approx(right[rows].mean(), abs=1e-6)
        assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert metrics["clean"]["n"] + metrics["near_twins"]["n"] == metrics["test"]["n"]
    assert metrics["test"]["macro_f1_low"] < metrics["test"]["macro_f1"]
    assert metrics["model_bytes"] == (workspace / "model" / "model.onnx").stat().st_size


def test_scaling_lowers_the_calibration_error(workspace: Path) -> None:
    metrics = json.loads((workspace / "out" / "metrics.json").read_text())
    # The model is nearly certain and wrong on a quarter of the labels.
    assert metrics["temperature"] > 1.5
    assert metrics["test"]["ece"] < 0.1 < 0.2 < metrics["test"]["ece_before"]
    assert metrics["test"]["nll"] < metrics["test"]["nll_before"]


def test_agreement_with_ferplus(workspace: Path) -> None:
    metrics = json.loads((workspace / "out" / "metrics.json").read_text())
    # Six of the seven classes have votes; the annotators see just what the model sees.
    assert metrics["ferplus"]["n"] == metrics["test"]["n"] * 6 // 7
    assert metrics["ferplus"]["agreement"] == 1.0
    assert 0.6 < metrics["ferplus"]["label_agreement"] < 0.9
    assert metrics["ferplus_clean"]["n"] == metrics["clean"]["n"] * 6 // 7


def test_equal_input_gives_equal_bytes(workspace: Path, tmp_path: Path) -> None:
    run(workspace, tmp_path)
    for name in FILES - {"latency.json", "index.html"}:
        assert (tmp_path / name).read_bytes() == (workspace / "out" / name).read_bytes(), name


def test_no_votes_no_figures(workspace: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(no_votes(), workspace / "empty.parquet")
    run(workspace, tmp_path / "empty", "empty.parquet")
    run(workspace, tmp_path / "none", None)
    empty = (tmp_path / "empty" / "metrics.json").read_bytes()
    assert empty == (tmp_path / "none" / "metrics.json").read_bytes()
    assert "ferplus" not in json.loads(empty)


def test_predictions_have_identity_and_no_pixels(workspace: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(workspace / "out" / "predictions.parquet")
    shares = np.stack([table[f"p_{name}"].to_numpy() for name in EXPRESSIONS], axis=1)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(shares)), abs=1e-5)
    assert set(table["split"].to_pylist()) == {"validation", "test"}
    assert table["predicted"].to_pylist() == [EXPRESSIONS[one] for one in shares.argmax(axis=1)]
    assert "pixels" not in table.column_names
    assert len(set(table["sha256"].to_pylist())) == len(table)


def test_confusion_has_one_row_per_test_image(workspace: Path) -> None:
    lines = (workspace / "out" / "confusion.csv").read_text().splitlines()
    metrics = json.loads((workspace / "out" / "metrics.json").read_text())
    assert lines[0] == "actual,predicted"
    assert len(lines) - 1 == metrics["test"]["n"]
    same = sum(one.split(",")[0] == one.split(",")[1] for one in lines[1:])
    assert same / (len(lines) - 1) == pytest.approx(metrics["test"]["accuracy"], abs=1e-6)


def test_per_class_can_be_read_back(workspace: Path, tmp_path: Path) -> None:
    rows = read_per_class(workspace / "out" / "per_class.csv")
    assert [row["expression"] for row in rows] == list(EXPRESSIONS)
    assert all(row["recall_low"] <= row["recall"] <= row["recall_high"] for row in rows)
    (tmp_path / "bad.csv").write_text("expression,support\nangry,many\n")
    for path in (tmp_path / "bad.csv", tmp_path / "absent.csv"):
        with pytest.raises(TableError, match="dvc repro evaluate"):
            read_per_class(path)


def test_the_page_stands_alone(workspace: Path) -> None:
    page = (workspace / "out" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    assert "<script" not in page
    metrics = json.loads((workspace / "out" / "metrics.json").read_text())
    assert f"{metrics['test']['accuracy'] * 100:.1f}\u00a0%" in page
    assert "prefers-color-scheme" in page
    assert "nobody&#39;s twin" in page


def test_dvc_reads_the_metrics(workspace: Path) -> None:
    metrics = json.loads((workspace / "out" / "metrics.json").read_text())

    def leaves(value: object) -> list[object]:
        if isinstance(value, dict):
            return [leaf for one in value.values() for leaf in leaves(one)]
        return [value]

    # DVC shows nested mappings of single values, and leaves lists out.
    assert all(isinstance(leaf, int | float | str) for leaf in leaves(metrics))


def test_views_stand_apart_from_the_single_one(workspace: Path, tmp_path: Path) -> None:
    metrics = json.loads((workspace / "out" / "metrics.json").read_text())
    views = metrics.pop("views")
    assert views["count"] == 2
    # A mirror image has the same mean grey level, so this model answers the same.
    for name, figure in (
        ("test", "accuracy"),
        ("clean", "accuracy"),
        ("ferplus", "agreement"),
        ("ferplus_clean", "agreement"),
    ):
        assert views[name]["n"] == metrics[name]["n"]
        assert views[name][figure] == metrics[name][figure]
        assert views[name]["difference"] == 0
    alone = PARAMS.model_copy(update={"views": 1})
    run(workspace, tmp_path, params=alone)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    page = (workspace / "out" / "index.html").read_text()
    assert "all test images, mean of 2 views" in page
    assert "mean of 2 views" not in (tmp_path / "index.html").read_text()


def test_robustness_is_measured_on_a_part(workspace: Path) -> None:
    found = json.loads((workspace / "out" / "robustness.json").read_text())
    assert found["untouched"]["test"]["n"] == 70
    page = (workspace / "out" / "index.html").read_text()
    assert "70 of the 140 test images" in page
    for condition in found["conditions"]:
        assert condition["kind"] in page


def test_every_prediction_moves_the_bar(workspace: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(workspace, tmp_path, progress=lambda done, total: seen.append((done, total)))
    # Validation and test, the mirror images of test, and 16 times the part of it.
    assert {total for _, total in seen} == {280 + 140 + 16 * 70}
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_images(
    faces: FaceTable, grey_model: GreyModel, tmp_path: Path, split: str
) -> None:
    faces.rows(faces.split != split).write(tmp_path / "faces.parquet")
    grey_model(tmp_path / "model" / "model.onnx")
    with pytest.raises(TableError, match=f"no {split} image"):
        run(tmp_path, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_no_model(faces: FaceTable, tmp_path: Path) -> None:
    faces.write(tmp_path / "faces.parquet")
    with pytest.raises(PackageError, match=r"model\.onnx"):
        run(tmp_path, tmp_path / "out", None)


def test_logits_that_are_not_finite(faces: FaceTable) -> None:
    logits = np.zeros((len(faces), 7), np.float32)
    logits[5, 2] = np.nan
    with pytest.raises(TableError, match="not finite"):
        assess(faces, logits, PARAMS, 0)


def test_without_twins_the_clean_subset_is_all(faces: FaceTable) -> None:
    alone = dataclasses.replace(faces, near_twin=np.zeros(len(faces), bool))
    rng = np.random.default_rng(0)
    found = assess(alone, rng.normal(size=(len(faces), 7)).astype(np.float32), PARAMS, 0)
    assert found.metrics["near_twins"] == {"n": 0}
    assert found.metrics["clean"]["accuracy"] == found.metrics["test"]["accuracy"]


def test_all_twins_leave_no_clean_subset(
    faces: FaceTable, grey_model: GreyModel, tmp_path: Path
) -> None:
    copied = dataclasses.replace(faces, near_twin=faces.split != "train")
    copied.write(tmp_path / "faces.parquet")
    grey_model(tmp_path / "model" / "model.onnx")
    run(tmp_path, tmp_path / "out", None)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["clean"] == {"n": 0}


def test_labels_move_the_digest_of_the_test_set_and_order_does_not(faces: FaceTable) -> None:
    logits = np.random.default_rng(0).normal(size=(len(faces), 7)).astype(np.float32)
    digest = assess(faces, logits, PARAMS, 0).metrics["test_set"]
    back = np.arange(len(faces))[::-1]
    assert assess(faces.rows(back), logits[back], PARAMS, 0).metrics["test_set"] == digest
    changed = faces.expression.copy()
    changed[faces.split == "test"] = 3
    other = dataclasses.replace(faces, expression=changed)
    assert assess(other, logits, PARAMS, 0).metrics["test_set"] != digest


def test_calibration_is_that_of_the_scaled_test_split(faces: FaceTable) -> None:
    rng = np.random.default_rng(1)
    logits = (rng.normal(size=(len(faces), 7)) * 4).astype(np.float32)
    found = assess(faces, logits, PARAMS, 0)
    test = faces.split == "test"
    shares = softmax(logits[test], found.calibration)
    correct = shares.argmax(axis=1) == faces.expression[test]
    expected = expected_calibration_error(shares.max(axis=1), correct, PARAMS.calibration_bins)
    assert found.metrics["test"]["ece"] == pytest.approx(expected, abs=1e-6)
