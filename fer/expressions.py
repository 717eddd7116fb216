"""The seven expressions of FER2013: their order, names, colours and valence.

This is the only place that defines them. Every file that stores indices stores the names
too, so that a reader can check that both mean the same.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Expression(IntEnum):
    """Index of an expression in every probability vector (FER2013's own order)."""

    ANGRY = 0
    DISGUST = 1
    FEAR = 2
    HAPPY = 3
    SAD = 4
    SURPRISE = 5
    NEUTRAL = 6

    @property
    def label(self) -> str:
        """The lower-case name used in files, folders and columns."""
        return self.name.lower()

    @property
    def colour(self) -> str:
        """Hex colour used for this expression in every plot and overlay."""
        return _COLOURS[self]

    @property
    def valence(self) -> int:
        """Sign of the expression's valence: -1 negative, 0 neither, +1 positive."""
        return _VALENCE[self]


_COLOURS: Final = {
    Expression.ANGRY: "#d1495b",
    Expression.DISGUST: "#6a994e",
    Expression.FEAR: "#7b5ea7",
    Expression.HAPPY: "#f2b134",
    Expression.SAD: "#3d7ea6",
    Expression.SURPRISE: "#ef8a54",
    Expression.NEUTRAL: "#8d99ae",
}
# Surprise is neither pleasant nor unpleasant by itself (Russell 1980).
_VALENCE: Final = {
    Expression.ANGRY: -1,
    Expression.DISGUST: -1,
    Expression.FEAR: -1,
    Expression.HAPPY: 1,
    Expression.SAD: -1,
    Expression.SURPRISE: 0,
    Expression.NEUTRAL: 0,
}

EXPRESSIONS: Final[tuple[str, ...]] = tuple(expression.label for expression in Expression)
"""The seven names, in index order."""
