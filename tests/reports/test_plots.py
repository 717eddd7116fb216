from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fer.evaluation.calibration import Calibration, reliability_bins
from fer.evaluation.metrics import class_figures, confusion_matrix
from fer.expressions import EXPRESSIONS, Expression
from fer.reports.plots import BLUE, ORANGE, plot_confusion, plot_per_class, plot_reliability
from fer.reports.robustness_plot import plot_robustness


def pixels(path: Path) -> np.ndarray:
    """Colours of a PNG, (h, w, 3), 0 to 255."""
    import cv2

    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image[:, :, ::-1])


def has_colour(image: np.ndarray, colour: str) -> bool:
    wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    return bool((np.abs(image.astype(int) - wanted).max(axis=2) <= 2).sum() > 50)


@pytest.fixture
def confusion() -> np.ndarray:
    rng = np.random.default_rng(0)
    actual = rng.integers(0, 7, 700)
    return confusion_matrix(actual, np.where(rng.random(700) < 0.6, actual, rng.integers(0, 7)))


def rows(confusion: np.ndarray) -> list[dict[str, object]]:
    return [
        {
            "expression": one.expression,
            "support": one.support,
            **{name: getattr(one, name) for name in ("precision", "recall")},
            **{f"{name}_low": 0.1 for name in ("precision", "recall")},
            **{f"{name}_high": 0.9 for name in ("precision", "recall")},
        }
        for one in class_figures(confusion)
    ]


def test_confusion_shows_every_class_in_its_colour(confusion: np.ndarray, tmp_path: Path) -> None:
    plot_confusion(confusion, tmp_path / "confusion.png")
    image = pixels(tmp_path / "confusion.png")
    assert image.shape[0] > 600
    assert all(has_colour(image, expression.colour) for expression in Expression)


def test_per_class_shows_every_class_in_its_colour(confusion: np.ndarray, tmp_path: Path) -> None:
    plot_per_class(rows(confusion), tmp_path / "per_class.png")
    image = pixels(tmp_path / "per_class.png")
    assert all(has_colour(image, Expression[name.upper()].colour) for name in EXPRESSIONS)


def test_equal_input_gives_equal_bytes(confusion: np.ndarray, tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        plot_confusion(confusion, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    plot_confusion(confusion.T, tmp_path / "other.png")
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "one.png").read_bytes()


def test_classes_and_bins_without_images_draw(tmp_path: Path) -> None:
    single = confusion_matrix([3], [3])
    plot_confusion(single, tmp_path / "confusion.png")
    plot_per_class(rows(single), tmp_path / "per_class.png")
    bins = reliability_bins([0.7], [True], 15)
    plot_reliability(
        bins,
        bins,
        tmp_path / "reliability.png",
        ece_before=0.3,
        ece_after=0.3,
        calibration=Calibration(),
    )
    assert len(list(tmp_path.glob("*.png"))) == 3


def worse(n: int) -> dict[str, object]:
    """A robustness.json of two kinds; `n` images in the clean subset."""
    figures = {
        "n": 70,
        **{f"accuracy{end}": 0.6 for end in ("", "_low", "_high")},
        **{f"difference{end}": -0.1 for end in ("", "_low", "_high")},
    }
    clean = figures | {"n": n} if n else {"n": 0}
    kinds = [("blur", "sigma 1 px"), ("blur", "sigma 2 px"), ("noise", "5 %")]
    rows = [{"kind": one, "level": two, "test": figures, "clean": clean} for one, two in kinds]
    return {"untouched": {"test": figures}, "conditions": rows}


def test_robustness_shows_all_images_and_the_clean_subset(tmp_path: Path) -> None:
    plot_robustness(worse(50), tmp_path / "both.png")
    plot_robustness(worse(0), tmp_path / "all.png")
    # Bars let a little of the page through.
    blue = "#{:02x}{:02x}{:02x}".format(
        *(round(0.85 * int(BLUE[at : at + 2], 16) + 0.15 * 255) for at in (1, 3, 5))
    )
    both, alone = pixels(tmp_path / "both.png"), pixels(tmp_path / "all.png")
    assert has_colour(both, blue)
    assert has_colour(alone, blue)
    marks = [(np.abs(one - _colour(ORANGE)).max(axis=2) <= 2).sum() for one in (both, alone)]
    assert marks[0] > marks[1] + 30  # the legend has one either way


def _colour(name: str) -> np.ndarray:
    return np.array([int(name[at : at + 2], 16) for at in (1, 3, 5)])


def test_no_pyplot_state_is_left(confusion: np.ndarray, tmp_path: Path) -> None:
    import sys

    before = "matplotlib.pyplot" in sys.modules
    plot_confusion(confusion, tmp_path / "confusion.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
    if before:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_a_folder_that_cannot_be_written_leaves_nothing(
    confusion: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        plot_confusion(confusion, tmp_path / "file" / "confusion.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
