"""The measures: what must hold of every pair of observations, and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.monitoring.statistics import (
    entropy,
    gap_probability,
    largest_gap,
    share_effect,
    share_probability,
    shares_probability,
    stability_index,
)

counts = st.lists(st.integers(0, 100_000), min_size=7, max_size=7)
shares = st.floats(0, 1)
samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(counts, counts)
def test_the_index_is_a_symmetric_distance(one: list[int], other: list[int]) -> None:
    index = stability_index(one, other)
    assert index >= 0
    assert math.isfinite(index)
    assert stability_index(other, one) == pytest.approx(index)
    assert stability_index(one, one) == 0
    assert 0 <= shares_probability(one, other) <= 1


@given(counts, st.permutations(range(7)))
def test_the_index_knows_no_order_of_classes(one: list[int], order: list[int]) -> None:
    other = one[::-1]
    mixed = stability_index([one[k] for k in order], [other[k] for k in order])
    assert mixed == pytest.approx(stability_index(one, other), abs=1e-9)


def test_the_index_of_known_shares() -> None:
    # 0.1 x ln(0.6 / 0.5) - 0.1 x ln(0.4 / 0.5)
    expected = 0.1 * math.log(1.2) - 0.1 * math.log(0.8)
    assert stability_index([500_000, 500_000], [600_000, 400_000]) == pytest.approx(expected, 1e-4)
    # A class that vanishes is finite, and more so the more faces say so.
    few, many = ([100 * k, 100 * k] for k in (1, 100))
    assert stability_index(few, [200, 0]) < stability_index(many, [20_000, 0]) < 20


def test_the_index_of_samples_has_the_mean_that_is_stated() -> None:
    rng = np.random.default_rng(7)
    shares = [0.12, 0.05, 0.10, 0.30, 0.14, 0.10, 0.19]
    drawn = [
        stability_index(rng.multinomial(400, shares), rng.multinomial(800, shares))
        for _ in range(400)
    ]
    assert np.mean(drawn) == pytest.approx(6 * (1 / 400 + 1 / 800), rel=0.1)


def test_chance_of_shares_is_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    shares = [0.12, 0.05, 0.10, 0.30, 0.14, 0.10, 0.19]
    found = [
        shares_probability(rng.multinomial(300, shares), rng.multinomial(900, shares))
        for _ in range(600)
    ]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert shares_probability([0, 0, 5], [0, 0, 9]) == 1.0
    assert shares_probability([1, 2, 3], [0, 0, 0]) == 1.0


@given(shares, shares)
def test_h_is_a_distance_of_shares(one: float, other: float) -> None:
    effect = share_effect(one, other)
    assert 0 <= effect <= math.pi + 1e-9
    assert share_effect(other, one) == effect
    assert share_effect(one, one) == 0
    # Faces with and faces without are the same question.
    assert share_effect(1 - one, 1 - other) == pytest.approx(effect, abs=1e-6)


@given(shares, shares, shares)
def test_h_grows_with_the_change(one: float, two: float, three: float) -> None:
    low, middle, high = sorted((one, two, three))
    assert share_effect(low, middle) <= share_effect(low, high) + 1e-12


def test_h_of_known_shares() -> None:
    assert share_effect(0.0, 1.0) == pytest.approx(math.pi)
    # What params.yaml says of 0.2.
    for before, after in ((0.10, 0.168), (0.50, 0.599), (0.0, 0.00997)):
        assert share_effect(before, after) == pytest.approx(0.2, abs=0.002)


def test_chance_of_a_share_is_as_often_as_it_says() -> None:
    rng = np.random.default_rng(9)
    found = [
        share_probability(
            share_effect(rng.binomial(400, 0.2) / 400, rng.binomial(700, 0.2) / 700), 400, 700
        )
        for _ in range(800)
    ]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert share_probability(0.0, 10, 10) == 1.0
    assert share_probability(1.0, 0, 10) == 1.0


@given(samples, samples)
def test_the_gap_is_a_symmetric_distance(one: list[float], other: list[float]) -> None:
    gap = largest_gap(one, other)
    assert 0 <= gap <= 1
    assert largest_gap(other, one) == pytest.approx(gap)
    assert largest_gap(one, one) == 0
    assert largest_gap([*one, *one], other) == pytest.approx(gap)


@given(samples, samples)
def test_the_gap_is_what_the_definition_says(one: list[float], other: list[float]) -> None:
    def below(sample: list[float], value: float) -> float:
        return sum(element <= value for element in sample) / len(sample)

    expected = max(abs(below(one, x) - below(other, x)) for x in (*one, *other))
    assert largest_gap(one, other) == pytest.approx(expected)


def test_the_gap_of_samples_far_apart_and_of_shifted_normals() -> None:
    assert largest_gap([1, 2], [3, 4]) == 1
    rng = np.random.default_rng(3)
    for shift, gap in ((0.2, 0.08), (0.4, 0.16), (0.5, 0.20), (0.8, 0.31)):
        found = largest_gap(rng.normal(0, 1, 40_000), rng.normal(shift, 1, 40_000))
        assert found == pytest.approx(gap, abs=0.012)


def test_chance_of_a_gap_is_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    found = [
        gap_probability(largest_gap(rng.normal(size=300), rng.normal(size=500)), 300, 500)
        for _ in range(300)
    ]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.035)
    assert gap_probability(0.5, 0, 10) == 1.0


@given(st.lists(st.lists(st.floats(0.001, 1), min_size=7, max_size=7), min_size=1, max_size=9))
def test_entropy_lies_between_sure_and_undecided(rows: list[list[float]]) -> None:
    scores = np.array(rows)
    found = entropy(scores / scores.sum(axis=1, keepdims=True))
    assert ((found >= 0) & (found <= 1 + 1e-9)).all()
    assert entropy(np.eye(7)) == pytest.approx(np.zeros(7), abs=1e-9)
    assert entropy(np.full((1, 7), 1 / 7)) == pytest.approx([1.0])


def test_what_cannot_be_measured_is_refused() -> None:
    for one, other in (([1], [1, 2]), ([], []), ([-1, 2], [1, 2]), ([math.nan, 1], [1, 1])):
        with pytest.raises(ValueError, match="count"):
            stability_index(one, other)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 to 1"):
        share_effect(0.5, 1.5)
    with pytest.raises(ValueError, match="empty"):
        largest_gap([], [1.0])
    with pytest.raises(ValueError, match="no number"):
        largest_gap([math.inf], [1.0])
