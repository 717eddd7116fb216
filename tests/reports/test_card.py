from __future__ import annotations

import re
from typing import Any

import pytest

from fer.expressions import EXPRESSIONS
from fer.reports.card import card_page, model_card


def bounded(name: str, value: float) -> dict[str, float]:
    return {name: value, f"{name}_low": value - 0.01, f"{name}_high": value + 0.01}


METRICS: dict[str, Any] = {
    "confidence": 0.95,
    "temperature": 1.2345,
    "curvature": 0.0678,
    "test_set": "abcdef012345",
    "model_bytes": 31_000_000,
    "validation": {"n": 3589, **bounded("accuracy", 0.661)},
    "test": {
        "n": 3589,
        **bounded("accuracy", 0.652),
        **bounded("macro_f1", 0.632),
        **bounded("ece", 0.021),
        **bounded("ece_before", 0.087),
    },
    "clean": {"n": 3037, **bounded("accuracy", 0.623), **bounded("macro_f1", 0.601)},
    "near_twins": {"n": 552, **bounded("accuracy", 0.812)},
    "ferplus": {"n": 3350, "label_agreement": 0.655, **bounded("agreement", 0.643)},
    "f1": dict.fromkeys(EXPRESSIONS, 0.5),
}
DATA = {
    "splits": {
        "train": {"images": 28709, "kept": 28100, "near_twins": 0},
        "validation": {"images": 3589, "kept": 3589, "near_twins": 531},
        "test": {"images": 3589, "kept": 3589, "near_twins": 552},
    },
    "splits_rule": "as the source names them",
    "clean_subset_rule": "nobody's near copy",
}
PER_CLASS = [
    {
        "expression": name,
        "support": 100 + index,
        **bounded("precision", 0.6),
        **bounded("recall", 0.7),
        **bounded("f1", 0.65),
    }
    for index, name in enumerate(EXPRESSIONS)
]


def changed(n: int, value: float, change: float) -> dict[str, Any]:
    return {"n": n, **bounded("accuracy", value), **bounded("difference", change)}


ROBUSTNESS = {
    "untouched": {
        "test": {"n": 800, **bounded("accuracy", 0.651)},
        "clean": {"n": 677, **bounded("accuracy", 0.62)},
    },
    "conditions": [
        {
            "kind": "blur",
            "level": "sigma 2 px",
            "test": changed(800, 0.551, -0.1),
            "clean": changed(677, 0.53, -0.09),
        },
        {
            "kind": "contrast",
            "level": "half of it",
            "test": changed(800, 0.661, 0.01),
            "clean": {"n": 0},
        },
    ],
}
VIEWS = {
    "count": 2,
    "test": changed(3589, 0.66, 0.008),
    "clean": changed(3037, 0.63, 0.007),
    "ferplus": {"n": 3350, **bounded("agreement", 0.65), **bounded("difference", 0.007)},
}


def card(**changes: Any) -> str:
    values: dict[str, Any] = {
        "name": "fer2013-efficientnetb2",
        "description": "Seven expressions.",
        "metrics": METRICS,
        "lineage": {"git": {"commit": "1234abcd", "dirty": False}, "seed": 2013},
        "data": DATA,
        "source": {"kind": "archive"},
        "per_class": PER_CLASS,
    }
    return model_card(**(values | changes))


def test_it_says_what_the_model_is_for_and_what_not() -> None:
    text = card()
    for words in (
        "# fer2013-efficientnetb2",
        "## Intended use",
        "## Out of scope",
        "Article 5(1)(f)",
        "## Limits",
        "## Provenance",
    ):
        assert words in text


def test_figures_stand_beside_their_intervals() -> None:
    text = card()
    assert "| accuracy, all test images | 65.2 % | 64.2 to 66.2 | 3,589 |" in text
    assert "| accuracy, clean subset | 62.3 % | 61.3 to 63.3 | 3,037 |" in text
    assert "| agreement with the FER+ majority | 64.3 % | 63.3 to 65.3 | 3,350 |" in text
    assert "from 8.7 % to 2.1 %" in text
    assert "agrees with the FER+ majority on 65.5 %" in text
    assert "| disgust | 101 | 60.0 % (59.0 to 61.0) | 70.0 % (69.0 to 71.0) |" in text


def test_calibration_is_told_in_full() -> None:
    assert "temperature 1.2345, curvature 0.0678 (inside the model)" in card()
    text = card(metrics=METRICS | {"curvature": 0.0})
    assert "curvature" not in text
    assert "square" not in text


def test_views_are_lines_of_their_own() -> None:
    text = card(metrics=METRICS | {"views": VIEWS})
    assert "| accuracy, all test images | 65.2 % | 64.2 to 66.2 | 3,589 |" in text
    title = "accuracy, all test images, mean of 2 views"
    assert f"| {title} | 66.0 % | 65.0 to 67.0 | 3,589 |" in text
    assert "| agreement with the FER+ majority, mean of 2 views | 65.0 % |" in text
    assert "views" not in card()


def test_worse_pictures_are_told_from_what_was_measured() -> None:
    text = card(robustness=ROBUSTNESS)
    row = "| blur: sigma 2 px | 55.1 % | -10.0 (-11.0 to -9.0) | 53.0 % | -9.0 (-10.0 to -8.0) |"
    assert row in text
    assert "| contrast: half of it | 66.1 % | +1.0 (+0.0 to +2.0) | - | - |" in text
    assert (
        "800 test images, each changed in one way; untouched they have an accuracy of 65.1 %"
        in (text)
    )
    assert "smaller than 24 pixels" in text
    assert "this card has no figure for that" not in text
    without = card()
    assert "Worse pictures" not in without
    assert "this card has no figure for that" in without


def test_leaks_are_counted() -> None:
    text = card()
    assert "| test | 3,589 | 3,589 | 552 |" in text
    assert "609 training images were left out" in text
    assert "nobody's near copy" in text


def test_lineage_is_listed_and_cannot_break_the_table() -> None:
    text = card(lineage={"git": {"commit": "1234abcd", "dirty": True}, "note": "a|b\n<b>c</b>"})
    assert "| git.commit | 1234abcd |" in text
    assert "| git.dirty | yes |" in text
    assert r"| note | a\|b \<b\>c\</b\> |" in text


def test_lists_in_the_lineage_are_told_in_words() -> None:
    sizes = [{"size": 48, "epochs": 11}, {"size": 64, "epochs": 11}]
    text = card(lineage={"params": {"smaller_first": sizes, "erase_area": [0.02, 0.12]}})
    assert "| params.smaller\\_first | size 48 epochs 11, size 64 epochs 11 |" in text
    assert "| params.erase\\_area | 0.02, 0.12 |" in text


def test_tables_have_equal_columns_in_every_row() -> None:
    whole = card(metrics=METRICS | {"views": VIEWS}, robustness=ROBUSTNESS)
    for block in re.findall(r"(?:^\|.*\n)+", whole, flags=re.MULTILINE):
        rows = block.strip().splitlines()
        assert {row.count("|") for row in rows} == {rows[0].count("|")}, block
        assert re.fullmatch(r"[|\-: ]+", rows[1]), block


def test_what_was_not_measured_is_left_out() -> None:
    metrics = {name: METRICS[name] for name in METRICS if not name.startswith("ferplus")}
    text = card(metrics=metrics | {"near_twins": {"n": 0}}, per_class=(), lineage={})
    assert "FER+ majority |" not in text
    assert "near copies of training images alone" not in text
    assert "| angry | 0.500 |" in text
    assert "Not recorded." in text
    assert "None" not in text


def test_synthetic_data_is_warned_of() -> None:
    text = card(source={"kind": "synthetic"})
    assert "Trained on drawn faces" in text
    assert "Goodfellow" not in text
    assert "Trained on drawn faces" not in card()


@pytest.mark.parametrize("data", [{}, {"splits": {}}])
def test_a_manifest_without_counts(data: dict[str, Any]) -> None:
    assert "No training image was left out" in card(data=data)


def test_the_page_says_what_the_markdown_says() -> None:
    page = card_page(card())
    assert "<title>fer2013-efficientnetb2</title>" in page
    for words in ("<h2>Intended use</h2>", "Article 5(1)(f)", "<h3>Calibration</h3>"):
        assert words in page
    assert page.count("<table>") == card().count("| --- |")
    # One file, which fetches nothing and runs nothing.
    assert not re.search(r"<(script|link|img|iframe)|src=|href=", page)


def test_no_markup_gets_into_the_page() -> None:
    hostile = "<script>alert(1)</script> [x](javascript:alert(1)) <b>"
    page = card_page(card(name="a<b", description=hostile, lineage={"note": hostile}))
    assert "<script" not in page
    assert "javascript:" not in re.sub(r"\[x\]\(javascript:", "", page)
    assert "<title>a&lt;b</title>" in page
