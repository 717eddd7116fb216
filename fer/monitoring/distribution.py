"""The distribution of a watched value, in a form that a small file can keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

_STEPS: Final = 200  # a baseline file keeps every half per cent
_POINTS: Final = 1000  # so fine that the steps' own gap, 0.001, does not count


@dataclass(frozen=True)
class Distribution:
    """Values in ascending order that stand for `count` observations.

    Attributes:
        count: observations.
        values: the observations themselves, or equally weighted points of their distribution.
        mean: of the observations; None where only quantiles are known.
    """

    count: int
    values: NDArray[np.float64]
    mean: float | None

    @classmethod
    def of(cls, sample: ArrayLike) -> Distribution:
        """Of observations; what is missing (null, not a number) is left out."""
        values = np.asarray(sample, dtype=np.float64)
        values = np.sort(values[np.isfinite(values)])
        return cls(len(values), values, float(values.mean()) if len(values) else None)

    @classmethod
    def from_quantiles(
        cls, count: int, quantiles: Sequence[float], mean: float | None = None
    ) -> Distribution:
        """From quantiles at equal steps from the smallest value to the largest.

        Raises:
            ValueError: fewer than two, not ascending, or not finite.
        """
        levels = np.asarray(quantiles, dtype=np.float64)
        if levels.ndim != 1 or len(levels) < 2:
            raise ValueError("at least two quantiles are wanted")
        if not np.isfinite(levels).all() or (np.diff(levels) < 0).any():
            raise ValueError("the quantiles do not ascend")
        if count < 1:
            raise ValueError(f"{count} observations have no quantiles")
        # At the middle of each of the equal shares: linear between the steps, and a value that
        # fills several steps keeps its weight.
        at = (np.arange(_POINTS) + 0.5) / _POINTS
        points = np.interp(at, np.linspace(0, 1, len(levels)), levels)
        return cls(count, points, mean)

    @property
    def median(self) -> float | None:
        """None without observations."""
        return float(np.median(self.values)) if len(self.values) else None

    def document(self) -> dict[str, Any]:
        """For JSON: count, mean and 201 quantiles (none without observations)."""
        quantiles: list[float] = []
        if len(self.values):
            quantiles = np.quantile(self.values, np.linspace(0, 1, _STEPS + 1)).tolist()
        return {
            "count": self.count,
            "mean": None if self.mean is None else float(f"{self.mean:.7g}"),
            "quantiles": [float(f"{value:.7g}") for value in quantiles],
        }

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Distribution:
        """From `document()`.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        mean = document["mean"]
        if not document["quantiles"]:
            return cls.of([])
        return cls.from_quantiles(
            int(document["count"]), document["quantiles"], None if mean is None else float(mean)
        )
