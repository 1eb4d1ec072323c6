"""One version's figures as a person reads them, from its aggregate."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from services.router.comparison.aggregates import BUSINESS, Aggregate
from services.router.comparison.buckets import quantile, score_of
from services.router.comparison.estimates import area, area_error

SCORE_BINS = 20
CALIBRATION_BINS = 10
MOST_CLASSES_SHOWN = 100


class Shown(BaseModel):
    """A part of a view."""

    model_config = ConfigDict(frozen=True)


class Bin(Shown):
    """Scores from `low` (inclusive) to `high`."""

    low: float
    high: float
    n: int


class Reliability(Shown):
    """Of labelled rows with scores about `predicted`, the share that was positive."""

    predicted: float
    observed: float
    n: int


class Figures(Shown):
    """None where rows say nothing. Latencies are of answered rows, in ms, within 1 %; `auc` is within `auc_error` of
    that of the scores themselves; `calibration_error` is the expected calibration error over ten bins."""

    n: int
    errors: int
    errors_by_class: dict[str, int]
    error_rate: float | None
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    latency_ms_p99: float | None
    tokens_in: float | None
    tokens_out: float | None
    cost: float | None
    cost_total: float
    mean_score: float | None
    scores: list[Bin]
    labelled: int
    accuracy: float | None
    auc: float | None
    auc_error: float | None
    log_loss: float | None
    brier: float | None
    calibration_error: float | None
    calibration: list[Reliability]
    confusion: list[tuple[str, str, int]]
    metrics: dict[str, tuple[int, float]]


def figures(rows: Aggregate) -> Figures:
    """Everything that is shown of a version."""
    latency = rows.histograms.get("latency", {})
    positive, negative = rows.histograms.get("positive", {}), rows.histograms.get("negative", {})
    auc = area(positive, negative)
    curve = reliability(positive, negative)
    labelled = sum(one.n for one in curve)
    errors = rows.moments.get("error_rate")
    cost = rows.moments.get("cost")
    pairs = sorted(rows.confusion.items(), key=lambda one: -one[1])[:MOST_CLASSES_SHOWN]
    return Figures(
        n=rows.n,
        errors=int(errors.total) if errors else 0,
        errors_by_class=dict(sorted(rows.errors.items(), key=lambda one: -one[1])),
        error_rate=_mean(rows, "error_rate"),
        latency_ms_p50=quantile(latency, 0.5),
        latency_ms_p95=quantile(latency, 0.95),
        latency_ms_p99=quantile(latency, 0.99),
        tokens_in=_mean(rows, "tokens_in"),
        tokens_out=_mean(rows, "tokens_out"),
        cost=_mean(rows, "cost"),
        cost_total=cost.total if cost else 0.0,
        mean_score=_mean(rows, "score"),
        scores=binned(rows.histograms.get("score", {})),
        labelled=int(rows.moments["labelled"].n) if "labelled" in rows.moments else 0,
        accuracy=_mean(rows, "accuracy"),
        auc=auc.value if auc else None,
        auc_error=area_error(positive, negative) if auc else None,
        log_loss=_mean(rows, "log_loss"),
        brier=_mean(rows, "brier"),
        calibration_error=sum(one.n * abs(one.predicted - one.observed) for one in curve) / labelled if curve else None,
        calibration=curve,
        confusion=[(*pair, count) for pair, count in pairs],
        metrics={
            name.removeprefix(BUSINESS): (int(one.n), one.mean)
            for name, one in sorted(rows.moments.items())
            if name.startswith(BUSINESS) and one.n > 0
        },
    )


def binned(histogram: Mapping[int, int]) -> list[Bin]:
    """At most SCORE_BINS bins of equal width: over 0 to 1 when all scores lie there, else from least to greatest."""
    counts = {score_of(bucket): count for bucket, count in histogram.items() if count > 0}
    if not counts:
        return []
    low, high = min(counts), max(counts)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    width = (high - low) / SCORE_BINS or 1.0
    found = [0] * SCORE_BINS
    for score, count in counts.items():
        found[min(SCORE_BINS - 1, int((score - low) / width))] += count
    return [Bin(low=low + at * width, high=low + (at + 1) * width, n=count) for at, count in enumerate(found)]


def reliability(positive: Mapping[int, int], negative: Mapping[int, int]) -> list[Reliability]:
    """Predicted against observed in CALIBRATION_BINS bins over 0 to 1; empty ones and other scores are left out."""
    sums = [[0.0, 0.0, 0.0] for _ in range(CALIBRATION_BINS)]
    for bucket in positive.keys() | negative.keys():
        score, ups, downs = score_of(bucket), positive.get(bucket, 0), negative.get(bucket, 0)
        if not 0 <= score <= 1:
            continue
        into = sums[min(CALIBRATION_BINS - 1, int(score * CALIBRATION_BINS))]
        into[0] += ups + downs
        into[1] += score * (ups + downs)
        into[2] += ups
    return [Reliability(predicted=score / n, observed=ups / n, n=int(n)) for n, score, ups in sums if n > 0]


def _mean(rows: Aggregate, metric: str) -> float | None:
    moments = rows.moments.get(metric)
    return moments.mean if moments is not None and moments.n > 0 else None
