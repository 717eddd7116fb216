"""How far two sets of observations lie apart, and whether chance alone would do it.

Each measure is an effect size with a scale of its own: with thousands of faces any difference is
significant, and with a hundred any effect may be chance, so `fer.monitoring.compare` asks for
both. The probabilities take observations for independent. Several faces of one photograph, or
photographs of one afternoon, are not: they are optimistic, and the effect size is what guards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Added to every count, so that a class that nobody showed does not make the index infinite
# (Jeffreys' prior of a multinomial).
_PRIOR = 0.5


def stability_index(baseline: Sequence[int], now: Sequence[int]) -> float:
    """Population stability index of two rows of counts: 0 where the shares are the same.

    The sum of (share now - share before) x ln(share now / share before), which is Jeffreys'
    divergence. Symmetric. By the custom of credit scoring, where it comes from, below 0.1 is
    steady and above 0.25 is another population (Siddiqi 2006, "Credit Risk Scorecards"). Where
    nothing changed, its mean is about (classes - 1) x (1/n + 1/m): 0.06 for seven classes and
    200 observations on each side.

    Raises:
        ValueError: the rows differ in length, are empty, or hold a negative count.
    """
    before, after = _counts(baseline, now)
    shares = [(one + _PRIOR) / (one + _PRIOR).sum() for one in (before, after)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def shares_probability(baseline: Sequence[int], now: Sequence[int]) -> float:
    """Probability of two rows of counts as different as these from one population.

    Pearson's chi-squared test of homogeneity; a class that is in neither row is left out.

    Raises:
        ValueError: as `stability_index`.
    """
    from scipy.stats import chi2_contingency

    counts = np.stack(_counts(baseline, now))
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2 or not counts.sum(axis=1).all():
        return 1.0
    return float(chi2_contingency(counts, correction=False).pvalue)


def share_effect(baseline: float, now: float) -> float:
    """Cohen's h of two shares, 0 to pi: the distance of their arcsine-transformed values.

    0.2 is small, 0.5 medium, 0.8 large (Cohen 1988, "Statistical Power Analysis", chapter 6).
    Small shares weigh more: 0 to 1 %, 10 to 17 % and 50 to 60 % are 0.2 each.

    Raises:
        ValueError: a share is outside 0 to 1.
    """
    if not (0 <= baseline <= 1 and 0 <= now <= 1):
        raise ValueError(f"shares lie in 0 to 1, not {baseline} and {now}")
    return abs(2 * math.asin(math.sqrt(now)) - 2 * math.asin(math.sqrt(baseline)))


def share_probability(effect: float, n: int, m: int) -> float:
    """Probability of an h of at least `effect` where nothing changed, two-sided.

    Args:
        effect: from `share_effect`.
        n: observations on one side.
        m: on the other.
    """
    if not (n and m):
        return 1.0
    # The transform's variance is 1/n whatever the share is.
    return math.erfc(effect / math.sqrt(1 / n + 1 / m) / math.sqrt(2))


def largest_gap(baseline: ArrayLike, now: ArrayLike) -> float:
    """The Kolmogorov-Smirnov statistic of two samples, 0 to 1.

    The largest gap between their cumulative distributions. Of two normal distributions whose
    means are 0.2, 0.5 or 0.8 standard deviations apart it is 0.08, 0.20 or 0.31.

    Raises:
        ValueError: a sample is empty or holds what is not finite.
    """
    from scipy.stats import ks_2samp

    one, other = (np.asarray(sample, dtype=float) for sample in (baseline, now))
    if not (one.size and other.size):
        raise ValueError("a sample is empty")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("a sample holds what is no number")
    # Its probability has no use here: the exact one takes seconds, the other divides by zero
    # where a sample is a single value.
    with np.errstate(all="ignore"):
        return float(ks_2samp(one, other, method="asymp").statistic)


def gap_probability(gap: float, n: int, m: int) -> float:
    """Probability of a gap of at least `gap` where nothing changed, by Kolmogorov's limit.

    Args:
        gap: from `largest_gap`.
        n: observations on one side. Of a baseline that was summarised, as many as it had.
        m: on the other.
    """
    from scipy.stats import kstwobign

    if not (n and m):
        return 1.0
    return float(kstwobign.sf(gap * math.sqrt(n * m / (n + m))))


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """How undecided each row is: 0 where one class has it all, 1 where all have the same.

    Shannon's entropy divided by its largest value.

    Args:
        probabilities: (n, classes), at least two classes.
    """
    clipped = np.clip(probabilities, 1e-12, 1.0)
    bits = -(probabilities * np.log(clipped)).sum(axis=1)
    share: NDArray[np.float64] = bits / math.log(probabilities.shape[1])
    return share


def _counts(
    baseline: Sequence[int], now: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    before, after = (np.asarray(row, dtype=float) for row in (baseline, now))
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise ValueError(f"counts of shape {before.shape} beside {after.shape}")
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise ValueError("a count is no number")
    if before.min() < 0 or after.min() < 0:
        raise ValueError("a count is negative")
    return before, after
