from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fer.dataset.table import FaceTable
from fer.errors import TableError
from fer.evaluation.corruptions import CORRUPTIONS
from fer.evaluation.robustness import measure_robustness, read_robustness, sample
from fer.files import write_json


@pytest.fixture(scope="module")
def held_out(faces: FaceTable) -> FaceTable:
    return faces.part("test")


@pytest.mark.parametrize("images", [1, 10, 50, 139])
def test_a_sample_has_the_shares_of_the_whole(held_out: FaceTable, images: int) -> None:
    chosen = sample(held_out, images, 1)
    assert len(set(chosen.tolist())) == images
    assert chosen.tolist() == sorted(chosen.tolist())
    part = held_out.rows(chosen)
    for label in range(7):
        for twin in (False, True):
            stratum = (held_out.expression == label) & (held_out.near_twin == twin)
            found = ((part.expression == label) & (part.near_twin == twin)).sum()
            assert abs(found - stratum.sum() * images / len(held_out)) < 1


def test_a_sample_is_drawn_by_its_seed(held_out: FaceTable) -> None:
    first = sample(held_out, 50, 1)
    np.testing.assert_array_equal(first, sample(held_out, 50, 1))
    assert (first != sample(held_out, 50, 2)).any()
    np.testing.assert_array_equal(sample(held_out, 10_000, 1), np.arange(len(held_out)))


def by_grey(crops: np.ndarray) -> np.ndarray:
    """Logits of a model that sees the mean grey level alone."""
    levels = np.array([10, 50, 90, 130, 170, 210, 250])
    return -np.abs(crops.mean(axis=(1, 2))[:, None] - levels).astype(np.float32)


def test_each_corruption_is_compared_with_the_same_images(held_out: FaceTable) -> None:
    logits = by_grey(held_out.pixels)
    found = measure_robustness(held_out, logits, by_grey, 0.95, 0)
    right = logits.argmax(axis=1) == held_out.expression
    assert found["untouched"]["test"]["accuracy"] == pytest.approx(right.mean())
    clean = ~held_out.near_twin
    assert found["untouched"]["clean"]["accuracy"] == pytest.approx(right[clean].mean())
    conditions = {(one["kind"], one["level"]): one for one in found["conditions"]}
    assert list(conditions) == [(one.kind, one.level) for one in CORRUPTIONS]
    # A model of mean grey is blind to blur, and blinded by light.
    assert conditions["blur", "sigma 2 px"]["test"]["difference"] == 0
    darker = conditions["brightness", "25 % of the range less"]
    assert darker["test"]["difference_high"] < -0.3
    for one in conditions.values():
        for subset, n in (("test", len(held_out)), ("clean", int(clean.sum()))):
            figures = one[subset]
            assert figures["n"] == n
            change = figures["accuracy"] - found["untouched"][subset]["accuracy"]
            assert figures["difference"] == pytest.approx(change)
            assert figures["difference_low"] <= figures["difference"] <= figures["difference_high"]


def test_it_is_the_same_every_time_and_json(held_out: FaceTable, tmp_path: Path) -> None:
    logits = by_grey(held_out.pixels)
    one, two = (measure_robustness(held_out, logits, by_grey, 0.9, 7) for _ in range(2))
    assert one == two
    write_json(tmp_path / "robustness.json", one)
    assert read_robustness(tmp_path / "robustness.json") == json.loads(json.dumps(one))


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": "other"}'])
def test_a_file_that_is_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "robustness.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TableError, match="dvc repro evaluate"):
        read_robustness(path)
