"""The seven expressions are FER2013's, in its order."""

from __future__ import annotations

import re

from fer.expressions import EXPRESSIONS, Expression


def test_the_order_is_that_of_the_competition() -> None:
    # "0=Angry, 1=Disgust, 2=Fear, 3=Happy, 4=Sad, 5=Surprise, 6=Neutral"
    assert EXPRESSIONS == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert [int(one) for one in Expression] == list(range(7))
    assert [Expression(index).label for index in range(7)] == list(EXPRESSIONS)


def test_each_has_a_colour_of_its_own() -> None:
    colours = [one.colour for one in Expression]
    assert len(set(colours)) == 7
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


def test_only_happiness_is_pleasant_and_two_are_neither() -> None:
    signs = {one.label: one.valence for one in Expression}
    assert {label for label, sign in signs.items() if sign > 0} == {"happy"}
    assert {label for label, sign in signs.items() if sign == 0} == {"surprise", "neutral"}
    assert {label for label, sign in signs.items() if sign < 0} == {
        "angry", "disgust", "fear", "sad",
    }  # fmt: skip
