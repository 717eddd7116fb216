from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer.evaluation.metrics import (
    accuracy,
    class_figures,
    confusion_matrix,
    confusions,
    f1_scores,
    macro_f1,
)

labels = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=200)


def matrix_of(pairs: list[tuple[int, int]]) -> np.ndarray:
    return confusion_matrix([one for one, _ in pairs], [other for _, other in pairs])


def test_counts_land_in_row_actual_column_predicted() -> None:
    matrix = confusion_matrix([0, 0, 3, 6], [0, 1, 3, 2])
    assert matrix.sum() == 4
    assert (matrix[0, 0], matrix[0, 1], matrix[3, 3], matrix[6, 2]) == (1, 1, 1, 1)


@given(labels)
def test_figures_stay_in_their_bounds(pairs: list[tuple[int, int]]) -> None:
    matrix = matrix_of(pairs)
    assert matrix.sum() == len(pairs)
    assert accuracy(matrix) == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert 0 <= float(macro_f1(matrix)) <= 1
    for one in class_figures(matrix):
        assert 0 <= one.precision <= 1
        assert 0 <= one.recall <= 1
        # A mean lies between what it is the mean of.
        assert min(one.precision, one.recall) - 1e-12 <= one.f1
        assert one.f1 <= max(one.precision, one.recall) + 1e-12


@given(st.lists(st.integers(0, 6), min_size=1, max_size=100))
def test_a_perfect_prediction_has_macro_f1_one(actual: list[int]) -> None:
    assert float(macro_f1(confusion_matrix(actual, actual))) == 1.0


@given(labels, st.permutations(range(7)))
def test_names_of_classes_do_not_matter(pairs: list[tuple[int, int]], order: list[int]) -> None:
    renamed = [(order[a], order[b]) for a, b in pairs]
    assert float(macro_f1(matrix_of(renamed))) == pytest.approx(float(macro_f1(matrix_of(pairs))))


@given(labels)
def test_a_stack_gives_what_each_matrix_gives(pairs: list[tuple[int, int]]) -> None:
    one = matrix_of(pairs)
    stack = np.stack([one, one.T])
    assert macro_f1(stack)[0] == macro_f1(one)
    assert np.array_equal(f1_scores(stack)[1], f1_scores(one.T), equal_nan=True)


def test_macro_f1_by_hand_leaves_out_classes_that_do_not_occur() -> None:
    # angry: 2 of 3 found, 1 false alarm; happy: 1 of 2 found, 1 false alarm; others absent.
    matrix = confusion_matrix([0, 0, 0, 3, 3], [0, 0, 3, 3, 0])
    assert float(macro_f1(matrix)) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert math.isnan(f1_scores(matrix)[1])


def test_no_image_is_no_accuracy() -> None:
    empty = confusion_matrix(np.array([], int), np.array([], int))
    assert accuracy(empty) == 0.0
    assert float(macro_f1(empty)) == 0.0


def test_commonest_mistakes_come_first() -> None:
    matrix = confusion_matrix([0, 0, 0, 2, 2, 2, 2], [1, 1, 0, 4, 4, 4, 2])
    assert confusions(matrix, 2) == [("fear", "sad", 3, 0.75), ("angry", "disgust", 2, 2 / 3)]


@pytest.mark.parametrize(
    ("actual", "predicted", "message"),
    [
        ([0, 1], [0], "2 actual labels beside 1"),
        ([7], [0], "from 7 to 7"),
        ([-1], [0], "from -1 to -1"),
        ([0.5], [0], "whole numbers"),
        ([[0]], [0], "one dimension"),
    ],
)
def test_labels_that_are_none(actual: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(actual, predicted)
