"""Confidence intervals: Wilson's for shares, a seeded bootstrap for everything else."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.evaluation.calibration import bin_index

# Rows of the resampling matrix drawn at once: bounds memory at about 8 MB per million cells.
_CELLS = 1_000_000


class Interval(NamedTuple):
    """Lower and upper bound of a confidence interval."""

    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927): right where the share is near 0 or 1.

    With n = 0 nothing is known: (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it lies between 0 and 1")
    if n == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5 / scale
    # The bounds at 0 and n are exact; rounding would leave them a hair off.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


def paired_difference(gained: int, lost: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of a share's change where the same images were judged twice.

    What was right both times or wrong both times says nothing of the change, so the interval is
    far narrower than the two shares' own. Bonett and Price 2012: Wald's after one image is added
    to either side, which covers where few or no images changed.

    Args:
        gained: images wrong before and right after.
        lost: images right before and wrong after.
        n: all images.
        confidence: level of the interval.
    """
    if gained < 0 or lost < 0 or gained + lost > n:
        raise ValueError(f"{gained} gained and {lost} lost of {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z * ((up + down - (up - down) ** 2) / (n + 2)) ** 0.5
    return Interval(max(-1.0, up - down - half), min(1.0, up - down + half))


def bootstrap_confusion(
    confusion: NDArray[np.int64],
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    *,
    resamples: int,
    seed: int,
    confidence: float = 0.95,
) -> NDArray[np.float64]:
    """Percentile bootstrap of a figure of the confusion matrix (Efron 1979).

    Drawing n images with replacement and counting them is one multinomial draw over the 49
    cells, so the images themselves are not needed.

    Args:
        confusion: (7, 7) counts.
        statistic: maps a stack (r, 7, 7) to (r,) or (r, k); nan where a resample has no value.
        resamples: number of draws.
        seed: equal seeds give equal intervals.
        confidence: level of the interval.

    Returns:
        (2,) or (2, k): lower and upper bounds; nan where no resample had a value.
    """
    total = int(confusion.sum())
    if total == 0:
        raise ValueError("no image to resample")
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(total, confusion.ravel() / total, size=resamples)
    values = statistic(draws.reshape(resamples, *confusion.shape))
    return _percentiles(values, confidence)


def bootstrap_calibration(
    confidences: NDArray[np.float64],
    correct: NDArray[np.bool_],
    *,
    bins: int,
    resamples: int,
    seed: int,
    confidence: float = 0.95,
) -> Interval:
    """Bootstrap of the expected calibration error, images drawn with replacement.

    A calibration error is a sum of absolute values: every resample adds noise to it, and the
    plain percentile interval lies too high, at times wholly above the figure it belongs to. The
    interval is therefore shifted by the bootstrap's own estimate of that bias (mean of the
    resamples less the figure) and cut at 0.
    """
    n = len(confidences)
    if n == 0:
        raise ValueError("no image to resample")
    index = bin_index(confidences, bins)
    gaps = confidences - correct
    figure = float(np.abs(np.bincount(index, gaps, bins)).sum() / n)
    rng = np.random.default_rng(seed)
    rows = max(1, min(resamples, _CELLS // n))
    values = np.empty(resamples)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(0, n, size=(count, n))
        cells = index[drawn] + np.arange(count)[:, None] * bins
        sums = np.bincount(cells.ravel(), gaps[drawn].ravel(), count * bins)
        values[start : start + count] = np.abs(sums.reshape(count, bins)).sum(axis=1) / n
    low, high = _percentiles(values - (values.mean() - figure), confidence)
    return Interval(max(0.0, float(low)), min(1.0, float(high)))


def _percentiles(values: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    tail = (1 - confidence) / 2 * 100
    bounds = np.full((2, *values.shape[1:]), np.nan)
    # A class with no image has nan throughout, and numpy warns of that: leave it out.
    some = ~np.isnan(values).all(axis=0)
    if values.ndim == 1:
        return np.nanpercentile(values, [tail, 100 - tail]) if some else bounds
    bounds[:, some] = np.nanpercentile(values[:, some], [tail, 100 - tail], axis=0)
    return bounds
