"""What an aggregate estimates, and how uncertain that is: means, rates, and the area under the ROC curve.

Uncertainty allows for units that send many requests: their requests are alike, and a version's n rows then say less
than n independent ones. How much less is read from the sums by slice of units (the delete-a-group estimate of a
ratio's variance; Wolter, "Introduction to Variance Estimation", 2007, chapter 4), and only ever widens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from services.router.comparison.aggregates import BUSINESS, SLICES, Aggregate, Moments


class Estimate(NamedTuple):
    """A value from n rows, and the variance of that value (not of one row)."""

    n: int
    value: float
    variance: float


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric reads. `relative` ones are means of logarithms: a difference d is a factor of exp(d)."""

    name: str
    better: Literal["higher", "lower"]
    margin: float
    """By how much it may be worse before that counts as worse, where nothing else is said."""
    relative: bool = False

    @property
    def sign(self) -> int:
        """Multiplies a difference so that more is better."""
        return 1 if self.better == "higher" else -1


_METRICS = (
    Metric("error_rate", "lower", 0.005),
    Metric("latency", "lower", math.log(1.1), relative=True),
    Metric("accuracy", "higher", 0.01),
    Metric("auc", "higher", 0.01),
    Metric("log_loss", "lower", 0.01),
    Metric("brier", "lower", 0.005),
    Metric("tokens_in", "lower", 0.0),
    Metric("tokens_out", "lower", 0.0),
    Metric("cost", "lower", 0.0),
    Metric("score", "higher", 0.0),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _METRICS}
MOST_METRIC_NAME = 100


def metric_of(name: str, better: Literal["higher", "lower"] | None = None) -> Metric | None:
    """A metric by its name, a business metric as `metric:<name>` (more is better unless said); None if unknown."""
    found = METRICS.get(name)
    if found is None and name.startswith(BUSINESS) and len(BUSINESS) < len(name) <= len(BUSINESS) + MOST_METRIC_NAME:
        found = Metric(name, "higher", 0.0)
    if found is None or better is None or better == found.better:
        return found
    return Metric(found.name, better, found.margin, found.relative)


def estimate(metric: str, rows: Aggregate, alike: float = 1.0) -> Estimate | None:
    """The metric's value on these rows; None where they say nothing of it. `alike` is the rows' design effect."""
    if metric == "auc":
        return area(rows.histograms.get("positive", {}), rows.histograms.get("negative", {}))
    moments = rows.moments.get(metric)
    if moments is None or moments.n < 1:
        return None
    return Estimate(int(moments.n), moments.mean, alike * _variance(moments) / moments.n)


def design_effect(metric: str, rows: Aggregate) -> float:
    """How many times the variance of the metric's mean exceeds that of independent rows; at least 1.

    From the slices' residuals total - mean x n, of which there are SLICES; by itself it is uncertain by about a
    quarter, which is why it never narrows an interval. The area under the curve has no such sums: its is taken to be 1.
    """
    moments, slices = rows.moments.get(metric), rows.slices.get(metric)
    if moments is None or slices is None or moments.n < SLICES:
        return 1.0
    naive = moments.n * _variance(moments)
    residuals = (total - moments.mean * n for n, total in zip(slices.n, slices.total, strict=True))
    between = SLICES / (SLICES - 1) * sum(residual**2 for residual in residuals)
    return max(1.0, between / naive) if naive > 0 else 1.0


def _variance(moments: Moments) -> float:
    """Of one row. A rate's is taken at (k + 1) / (n + 2), so that no failure yet is not certainty of none."""
    is_rate = abs(moments.total - moments.squares) <= 1e-9 * moments.n
    if is_rate:
        rate = (moments.total + 1) / (moments.n + 2)
        return max(rate * (1 - rate), 0.0)
    return moments.variance


def area(positive: Mapping[int, int], negative: Mapping[int, int]) -> Estimate | None:
    """AUC with its variance after DeLong, DeLong and Clarke-Pearson (1988), from scores in buckets.

    Two scores in one bucket count as a tie, half. The AUC of the scores themselves is at most `area_error` away.
    """
    positives, negatives = sum(positive.values()), sum(negative.values())
    if positives < 1 or negatives < 1:
        return None
    below = seen = 0.0
    wins = squares_positive = squares_negative = 0.0
    for bucket in sorted(positive.keys() | negative.keys()):
        ups, downs = positive.get(bucket, 0), negative.get(bucket, 0)
        placed = (below + downs / 2) / negatives  # of these positives: the share of negatives that they beat
        beaten = 1 - (seen + ups / 2) / positives  # of these negatives: the share of positives that beat them
        wins += ups * placed
        squares_positive += ups * placed**2
        squares_negative += downs * beaten**2
        below += downs
        seen += ups
    value = wins / positives
    spread = 0.0
    for count, squares in ((positives, squares_positive), (negatives, squares_negative)):
        if count > 1:
            spread += max(0.0, squares / count - value**2) / (count - 1)
    # A perfect ranking has no spread of its own; Hanley and McNeil's bound for one more, contrary pair stands in.
    floor = 1 / (4 * (min(positives, negatives) + 1) ** 2)
    return Estimate(positives + negatives, value, max(spread, floor))


def area_error(positive: Mapping[int, int], negative: Mapping[int, int]) -> float:
    """How far AUC from buckets can be from AUC of the scores: half of the pairs that share a bucket."""
    pairs = sum(positive.values()) * sum(negative.values())
    shared = sum(count * negative.get(bucket, 0) for bucket, count in positive.items())
    return 0.5 * shared / pairs if pairs else 0.0
