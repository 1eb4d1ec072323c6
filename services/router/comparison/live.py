"""One version's own figures with intervals: what analyses read and what other services are told.

The interval is the confidence sequence of `differences`, of one arm: figures are said again and again, and whoever
reads them looks whenever they like. As there, none before MIN_ARM rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from services.router.comparison.aggregates import BUSINESS, Aggregate
from services.router.comparison.differences import MIN_ARM, half_width
from services.router.comparison.estimates import METRICS, Metric, area_error, design_effect, estimate, metric_of
from services.router.comparison.figures import Figures
from shared.events.base import Interval

ALPHA = 0.05
MOST_BUSINESS = 20
"""Business metrics that are said of a version, those with most rows: an event must stay well below Kafka's 1 MB."""
SEQUENCE = "confidence sequence (Waudby-Smith and others 2024, theorem 2.2), valid at every look"
METHODS = {
    "auc": f"DeLong's variance on scores in buckets, widened by how far those may be off; {SEQUENCE}",
    "latency": f"geometric mean of answered requests; {SEQUENCE}",
}
SHARES = ("error_rate", "accuracy", "auc", "brier")
"""Never outside of 0 to 1."""
SIGNED = ("score",)
"""May be below 0, as business metrics may; no other can."""
UNITS = {"latency": "ms", "cost": "USD"}


class Own(NamedTuple):
    """A metric's value on one version's rows and its interval; of a relative metric in its own unit, no logarithm."""

    low: float
    value: float
    high: float
    n: int


def own(metric: Metric, rows: Aggregate, alpha: float) -> Own | None:
    """None below MIN_ARM rows that say something of the metric."""
    found = estimate(metric.name, rows, design_effect(metric.name, rows))
    if found is None or found.n < MIN_ARM:
        return None
    half = half_width(math.sqrt(found.variance), found.n, alpha)
    low, value, high = found.value - half, found.value, found.value + half
    if metric.relative:
        return Own(math.exp(low), math.exp(value), math.exp(high), found.n)
    return Own(low, value, high, found.n)


def measures(rows: Aggregate) -> dict[str, Interval]:
    """Every metric that these rows are enough for, by its name in the comparative view."""
    business = [name for name in rows.moments if name.startswith(BUSINESS) and rows.moments[name].n >= MIN_ARM]
    said = sorted(business, key=lambda name: (-rows.moments[name].n, name))[:MOST_BUSINESS]
    metrics = [*METRICS.values(), *(metric for name in said if (metric := metric_of(name)) is not None)]
    return {one.name: interval for one in metrics if (interval := _interval(one, rows)) is not None}


def latencies(shown: Figures) -> dict[str, float]:
    """Quantiles of answered requests in ms, as the view shows them. They have no interval here."""
    found = {"p50": shown.latency_ms_p50, "p95": shown.latency_ms_p95, "p99": shown.latency_ms_p99}
    return {name: value for name, value in found.items() if value is not None}


def _interval(metric: Metric, rows: Aggregate) -> Interval | None:
    found = own(metric, rows, ALPHA)
    if found is None:
        return None
    low, value, high, n = found
    if metric.name == "auc":
        off = area_error(rows.histograms.get("positive", {}), rows.histograms.get("negative", {}))
        low, high = low - off, high + off
    if metric.name not in SIGNED and not metric.name.startswith(BUSINESS):
        low = max(low, 0.0)
    if metric.name in SHARES:
        high = min(high, 1.0)
    if not all(math.isfinite(bound) for bound in (low, value, high)):
        return None
    return Interval(
        value=value, low=low, high=high, n=n, level=1 - ALPHA, method=METHODS.get(metric.name, f"mean; {SEQUENCE}"),
        unit=UNITS.get(metric.name, ""), higher_is_better=metric.better == "higher",
    )  # fmt: skip
