"""Confidence intervals that several scorers share, each with the source of its formula. All are closed forms: the same
rows give the same interval, with no seed to remember."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from services.evaluator.domain import Floats

Bounds = tuple[float, float]


def z_of(level: float) -> float:
    """Two-sided standard normal quantile, 1.96 for 0.95."""
    return float(stats.norm.ppf((1 + level) / 2))


def wilson(successes: float, n: int, level: float) -> Bounds:
    """Wilson's score interval of a proportion.

    E. B. Wilson, JASA 22 (1927) 209-212; recommended over Wald by Brown, Cai and DasGupta, Statistical Science 16
    (2001) 101-133. Neither end leaves [0, 1], and n of n successes do not give a width of zero. n = 0 gives (0, 1).
    """
    if n == 0:
        return 0.0, 1.0
    z2 = z_of(level) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)


def wilson_of_mean(values: Floats, level: float) -> Bounds:
    """Wilson's interval of the mean of values from 0 to 1, on the wide side.

    A variable in [0, 1] of mean m varies by m(1 - m) at most (Bhatia and Davis, Amer. Math. Monthly 107 (2000)
    353-357), which is the variance that Wilson's interval has in it. Unlike Student's t it has a width where all
    values are the same: ten answers that are all right do not prove that the next one is.
    """
    return wilson(float(values.sum()), len(values), level)


def newcombe(a: int, n_a: int, b: int, n_b: int, level: float) -> Bounds:
    """Hybrid score interval of the difference a/n_a - b/n_b of two independent proportions.

    R. G. Newcombe, Statistics in Medicine 17 (1998) 873-890, method 10.
    """
    p, q = a / n_a, b / n_b
    (p_low, p_high), (q_low, q_high) = wilson(a, n_a, level), wilson(b, n_b, level)
    return p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low)


def widest_gap(families: Sequence[Sequence[tuple[int, int]]], level: float) -> tuple[float, float, float]:
    """Value and interval of the largest difference between two proportions (successes, n) within any of the families.

    Every pair gets Newcombe's interval at the Bonferroni level 1 - (1 - level)/pairs, so that all hold at once with
    probability >= level; then so does [largest lower end of |difference|, largest upper end of |difference|] for the
    largest true difference. Exact for two groups of one family, on the wide side for many. Needs one pair at least.
    """
    pairs = [pair for family in families for pair in combinations(family, 2)]
    shared = 1 - (1 - level) / len(pairs)
    value = low = high = 0.0
    for (a, n_a), (b, n_b) in pairs:
        lower, upper = newcombe(a, n_a, b, n_b, shared)
        value = max(value, abs(a / n_a - b / n_b))
        low = max(low, lower, -upper)  # 0 stays where the interval straddles it
        high = max(high, abs(lower), abs(upper))
    return value, min(low, value), max(min(high, 1.0), value)


def mean(values: Floats, level: float) -> Bounds:
    """Student's t interval of a mean, by the central limit theorem. Needs two values at least."""
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    centre = float(values.mean())
    return centre - half, centre + half


def from_influence(influence: Floats, level: float) -> float:
    """Half width of the delta-method interval of a statistic with these influence values, one a row, mean 0.

    A. van der Vaart, Asymptotic Statistics (1998), chapter 20: the variance is the influence function's, over n.
    """
    return z_of(level) * math.sqrt(float(np.mean(influence**2)) / len(influence))


def quantile(values: Floats, share: float, level: float) -> tuple[float, float, float] | None:
    """Value and distribution-free interval of a quantile, from order statistics; None when there are too few values.

    H. A. David and H. N. Nagaraja, Order Statistics (2003), 7.1: the number of values below the true quantile is
    Binomial(n, share). The value is the smallest one with at least that share at or below it.
    """
    ordered, n = np.sort(values), len(values)
    below = int(stats.binom.ppf((1 - level) / 2, n, share))
    above = int(stats.binom.ppf((1 + level) / 2, n, share)) + 1
    if below < 1 or above > n:
        return None
    return float(ordered[math.ceil(share * n) - 1]), float(ordered[below - 1]), float(ordered[above - 1])


def rows_for_quantile(share: float, level: float) -> int:
    """The fewest values for which `quantile` has both ends: beyond an extreme share, all may lie on one side."""
    extreme = max(share, 1 - share)
    n = max(2, math.floor(math.log((1 - level) / 2) / math.log(extreme)))
    while quantile(np.zeros(n), share, level) is None:
        n += 1
    return n
