from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.evaluation.calibration import expected_calibration_error
from fer.evaluation.intervals import (
    bootstrap_calibration,
    bootstrap_confusion,
    paired_difference,
    wilson,
)
from fer.evaluation.metrics import accuracy, confusion_matrix, f1_scores, macro_f1


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_values(successes: int, n: int, low: float, high: float) -> None:
    found = wilson(successes, n)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


@given(st.integers(0, 500), st.integers(1, 500), st.floats(0.5, 0.999))
def test_wilson_holds_the_share_and_is_symmetric(hits: int, n: int, level: float) -> None:
    hits = min(hits, n)
    low, high = wilson(hits, n, level)
    assert 0 <= low <= hits / n <= high <= 1
    mirrored = wilson(n - hits, n, level)
    assert mirrored.low == pytest.approx(1 - high, abs=1e-9)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("hits", "n", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_wilson_refuses_nonsense(hits: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"successes|confidence"):
        wilson(hits, n, level)


def some_confusion(n: int = 2000, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    actual = rng.integers(0, 7, n)
    predicted = np.where(rng.random(n) < 0.65, actual, rng.integers(0, 7, n))
    return confusion_matrix(actual, predicted)


def test_bootstrap_of_accuracy_agrees_with_wilson() -> None:
    matrix = some_confusion()

    def share(stack: np.ndarray) -> np.ndarray:
        return np.trace(stack, axis1=1, axis2=2) / stack.sum(axis=(1, 2))

    low, high = bootstrap_confusion(matrix, share, resamples=4000, seed=1)
    n = int(matrix.sum())
    assert (low, high) == pytest.approx(wilson(round(accuracy(matrix) * n), n), abs=0.002)


def test_bootstrap_is_seeded_and_holds_the_figure() -> None:
    matrix = some_confusion()
    first = bootstrap_confusion(matrix, macro_f1, resamples=500, seed=7)
    again = bootstrap_confusion(matrix, macro_f1, resamples=500, seed=7)
    other = bootstrap_confusion(matrix, macro_f1, resamples=500, seed=8)
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
    assert first[0] < float(macro_f1(matrix)) < first[1]


def test_more_confidence_is_a_wider_interval() -> None:
    matrix = some_confusion()
    narrow = bootstrap_confusion(matrix, macro_f1, resamples=500, seed=7, confidence=0.8)
    wide = bootstrap_confusion(matrix, macro_f1, resamples=500, seed=7, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_bootstrap_per_class_says_nan_of_absent_classes() -> None:
    matrix = confusion_matrix([0] * 30 + [3] * 30, [0] * 20 + [3] * 40)
    bounds = bootstrap_confusion(matrix, f1_scores, resamples=200, seed=1)
    assert bounds.shape == (2, 7)
    assert np.isnan(bounds[:, 1]).all()
    assert (bounds[0, [0, 3]] < bounds[1, [0, 3]]).all()


def test_bootstrap_needs_images() -> None:
    with pytest.raises(ValueError, match="no image"):
        bootstrap_confusion(np.zeros((7, 7), int), macro_f1, resamples=10, seed=0)
    with pytest.raises(ValueError, match="no image"):
        bootstrap_calibration(np.array([]), np.array([], bool), bins=5, resamples=10, seed=0)


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_calibration_interval_holds_its_figure(offset: float) -> None:
    rng = np.random.default_rng(3)
    true = rng.uniform(0.3, 0.9, 3000)
    correct = rng.random(3000) < true
    stated = true + offset
    figure = expected_calibration_error(stated, correct, 15)
    low, high = bootstrap_calibration(stated, correct, bins=15, resamples=500, seed=1)
    assert low <= figure <= high
    assert high - low < 0.05
    if offset:
        # The true error is the offset: the interval must not miss it.
        assert low <= offset <= high


def test_calibration_interval_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    stated, correct = rng.uniform(0.2, 1, 400), rng.random(400) < 0.6
    whole = bootstrap_calibration(stated, correct, bins=10, resamples=100, seed=5)
    monkeypatch.setattr("fer.evaluation.intervals._CELLS", 1000)
    assert bootstrap_calibration(stated, correct, bins=10, resamples=100, seed=5) == whole


def test_paired_difference_by_hand() -> None:
    # (10 + 1) / 102 up and (4 + 1) / 102 down, after Bonett and Price 2012.
    low, high = paired_difference(10, 4, 100)
    up, down = 11 / 102, 5 / 102
    half = 1.959964 * ((up + down - (up - down) ** 2) / 102) ** 0.5
    assert low == pytest.approx(up - down - half)
    assert high == pytest.approx(up - down + half)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (100, 0), (0, 100), (50, 50), (7, 3)])
def test_paired_difference_holds_its_figure(gained: int, lost: int) -> None:
    low, high = paired_difference(gained, lost, 100)
    assert -1 <= low <= (gained - lost) / 100 <= high <= 1
    assert low < high


def test_paired_difference_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    draws = rng.multinomial(300, [0.06, 0.11, 0.83], size=2000)
    inside = [
        low <= -0.05 <= high for low, high in (paired_difference(g, s, 300) for g, s, _ in draws)
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("gained", "lost"), [(-1, 0), (0, -1), (60, 41)])
def test_paired_difference_refuses_counts_that_cannot_be(gained: int, lost: int) -> None:
    with pytest.raises(ValueError, match="of 100"):
        paired_difference(gained, lost, 100)
