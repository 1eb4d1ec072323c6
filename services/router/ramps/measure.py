"""What a ramp's analyses read from a group's aggregates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from services.router.comparison.aggregates import Aggregate, Moments, merge
from services.router.comparison.buckets import quantile
from services.router.comparison.differences import MIN_ARM, Strata, difference
from services.router.comparison.estimates import Metric, design_effect, metric_of
from services.router.comparison.live import own
from services.router.ramps.machine import Reading
from services.router.ramps.plan import QUANTILES, Analysis


def readings(
    analyses: Iterable[Analysis], champion: Strata, challenger: Strata, alpha: float
) -> Mapping[Analysis, Reading | None]:
    """A reading an analysis, None where there are too few rows (MIN_ARM an arm) or none that say anything."""
    return {one: _reading(one, champion, challenger, alpha) for one in analyses}


def pooled(strata: Strata) -> Strata:
    """All revisions as one: for rows of different times, which share no revision to be compared within."""
    return {0: merge(*strata.values())} if strata else {}


def earned(metric: Metric, strata: Strata) -> Moments:
    """What an arm earned, for Thompson sampling; counted down where a unit's requests are alike."""
    rows = merge(*strata.values())
    moments = rows.moments.get(metric.name, Moments())
    alike = design_effect(metric.name, rows)
    return Moments(moments.n / alike, moments.total / alike, moments.squares / alike)


def _reading(analysis: Analysis, champion: Strata, challenger: Strata, alpha: float) -> Reading | None:
    if analysis.metric in QUANTILES:
        return _quantile(QUANTILES[analysis.metric], merge(*challenger.values()))
    metric = metric_of(analysis.metric)
    assert metric is not None, "the plan was validated"
    if analysis.of == "challenger":
        alone = own(metric, merge(*challenger.values()), alpha)
        return None if alone is None else Reading(*alone)
    found = difference(metric, champion, challenger)
    interval = found.interval(alpha) if found is not None else None
    if found is None or interval is None:
        return None
    low, high = interval
    if metric.relative:
        return Reading(math.expm1(low), math.expm1(found.value), math.expm1(high), found.n)
    return Reading(low, found.value, high, found.n)


def _quantile(share: float, rows: Aggregate) -> Reading | None:
    """A quantile of latency has no interval here: it is its own low and high."""
    histogram = rows.histograms.get("latency", {})
    n = sum(histogram.values())
    value = quantile(histogram, share)
    return None if value is None or n < MIN_ARM else Reading(value, value, value, n)
