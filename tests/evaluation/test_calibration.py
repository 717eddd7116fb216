from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.evaluation.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    Calibration,
    expected_calibration_error,
    fit_calibration,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
    softmax,
)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from exactly the probabilities those logits state."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.6, size=(n, 7))
    return logits, (logits + rng.gumbel(size=(n, 7))).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7, 4.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    logits, labels = drawn(60_000)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.02)


def test_the_fit_is_the_minimum() -> None:
    logits, labels = drawn(500)
    fitted = fit_temperature(logits * 2.5, labels)
    best = negative_log_likelihood(logits * 2.5, labels, Calibration(fitted))
    for other in (fitted * 0.99, fitted * 1.01):
        assert negative_log_likelihood(logits * 2.5, labels, Calibration(other)) > best


def bent(logits: np.ndarray, temperature: float, curvature: float) -> np.ndarray:
    """Logits that `Calibration(temperature, curvature)` makes `logits` of, but for a constant."""
    below = logits.max(axis=1, keepdims=True) - logits
    linear = 1 / temperature
    return (linear - np.sqrt(linear**2 + 4 * curvature * below)) / (2 * curvature)


@pytest.mark.parametrize(("temperature", "curvature"), [(3.0, 0.16), (0.8, 0.05)])
def test_a_known_curvature_is_recovered(temperature: float, curvature: float) -> None:
    logits, labels = drawn(60_000)
    trained = bent(logits, temperature, curvature)
    known = Calibration(temperature, curvature)
    np.testing.assert_allclose(softmax(trained, known), softmax(logits), atol=1e-9)
    found = fit_calibration(trained, labels)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.curvature == pytest.approx(curvature, abs=0.015)
    shares = softmax(trained, found)
    correct = shares.argmax(axis=1) == labels
    alone = softmax(trained, Calibration(fit_temperature(trained, labels)))
    error = expected_calibration_error(shares.max(axis=1), correct)
    assert error < 0.008
    if curvature > 0.1:
        # What no temperature can put right.
        assert expected_calibration_error(alone.max(axis=1), correct) > 2 * error


def test_the_fit_of_both_is_the_minimum() -> None:
    logits, labels = drawn(4000)
    trained = bent(logits, 3.0, 0.16)
    fitted = fit_calibration(trained, labels)
    best = negative_log_likelihood(trained, labels, fitted)
    for other in (
        Calibration(fitted.temperature * 1.02, fitted.curvature),
        Calibration(fitted.temperature * 0.98, fitted.curvature),
        Calibration(fitted.temperature, fitted.curvature * 1.02),
        Calibration(fitted.temperature, fitted.curvature * 0.98),
    ):
        assert negative_log_likelihood(trained, labels, other) > best


@pytest.mark.parametrize("n", [100, 20_000])
def test_a_temperature_alone_stays_alone(n: int) -> None:
    logits, labels = drawn(n)
    fitted = fit_calibration(logits * 1.7, labels)
    assert fitted == Calibration(fit_temperature(logits * 1.7, labels))


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 30), st.integers(1, 40))
def test_fitting_both_never_does_harm(seed: int, scale: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, 7)) * scale, rng.integers(0, 7, n)
    fitted = fit_calibration(logits, labels)
    assert LOWEST_TEMPERATURE * 0.999 <= fitted.temperature <= HIGHEST_TEMPERATURE * 1.001
    assert fitted.curvature >= 0
    alone = Calibration(fit_temperature(logits, labels))
    best = negative_log_likelihood(logits, labels, alone)
    assert negative_log_likelihood(logits, labels, fitted) <= best + 1e-9


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 30), st.integers(1, 40))
def test_the_fit_never_leaves_its_range_or_does_harm(seed: int, scale: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, 7)) * scale, rng.integers(0, 7, n)
    fitted = fit_temperature(logits, labels)
    assert LOWEST_TEMPERATURE <= fitted <= HIGHEST_TEMPERATURE
    as_trained = negative_log_likelihood(logits, labels)
    scaled = negative_log_likelihood(logits, labels, Calibration(fitted))
    assert scaled <= as_trained + 1e-9


def test_the_limits_answer_where_there_is_no_optimum() -> None:
    sure = np.eye(7) * 3
    assert fit_temperature(sure, np.arange(7)) == LOWEST_TEMPERATURE
    assert fit_temperature(sure, (np.arange(7) + 1) % 7) == HIGHEST_TEMPERATURE
    assert fit_temperature(np.zeros((5, 7)), np.zeros(5, int)) == HIGHEST_TEMPERATURE


def test_huge_logits_overflow_nothing() -> None:
    logits, labels = drawn(2000)
    assert fit_temperature(logits * 10 + 1e4, labels) == pytest.approx(10, rel=0.1)
    assert np.isfinite(negative_log_likelihood(logits * 1e4, labels))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    logits, labels = drawn(10)
    logits[3, 3] = bad
    with pytest.raises(ValueError, match="finite"):
        fit_temperature(logits, labels)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="beside"):
        fit_temperature(np.zeros((3, 7)), np.zeros(2, int))
    with pytest.raises(ValueError, match="no image"):
        negative_log_likelihood(np.zeros((0, 7)), np.zeros(0, int))


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20), st.floats(0, 5))
def test_softmax_gives_shares_and_keeps_the_order(
    seed: int, temperature: float, curvature: float
) -> None:
    logits = np.random.default_rng(seed).normal(size=(5, 7))
    shares = softmax(logits, Calibration(temperature, curvature))
    assert shares.sum(axis=1) == pytest.approx(np.ones(5))
    assert (shares >= 0).all()
    assert (shares.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_perfect_calibration_has_an_error_near_zero() -> None:
    logits, labels = drawn(60_000)
    shares = softmax(logits)
    correct = shares.argmax(axis=1) == labels
    assert expected_calibration_error(shares.max(axis=1), correct, 15) < 0.008
    sharper = softmax(logits * 2.5)
    assert expected_calibration_error(sharper.max(axis=1), correct, 15) > 0.1


def test_the_error_by_hand() -> None:
    # Bin (0.5, 0.6]: said 0.6, true 0.5. Bin (0.9, 1]: said 1.0, true 1.0.
    stated, correct = [0.6, 0.6, 1.0, 1.0], [True, False, True, True]
    assert expected_calibration_error(stated, correct, 10) == pytest.approx(0.5 * 0.1)


def test_bins_hold_every_image_once_and_are_closed_above() -> None:
    bins = reliability_bins([0.0, 0.1, 0.1000001, 0.5, 1.0], [1, 0, 1, 1, 0], 10)
    assert [one.count for one in bins] == [2, 1, 0, 0, 1, 0, 0, 0, 0, 1]
    assert bins[0].accuracy == 0.5
    assert bins[2].confidence == 0.0
    assert (bins[0].low, bins[-1].high) == (0.0, 1.0)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60),
    st.integers(2, 40),
)
def test_the_error_is_a_share(pairs: list[tuple[float, bool]], bins: int) -> None:
    stated, correct = [one for one, _ in pairs], [hit for _, hit in pairs]
    assert 0 <= expected_calibration_error(stated, correct, bins) <= 1
    assert sum(one.count for one in reliability_bins(stated, correct, bins)) == len(pairs)


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="beside"):
        reliability_bins([0.5], [True, False])
