"""latency_ms: how long the model takes for one row, and how many rows a second it does in batches.

Measured in the evaluating process on one thread, so it is the model's own cost: no network, no queue, no server.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.evaluator.domain import Finding, Floats, Insufficient, Measure, Options, ScoredRows
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import Scorer

QUANTILES = {"p50": 0.50, "p99": 0.99}


def score(rows: ScoredRows, options: Options) -> Sequence[Finding]:
    """latency_ms.p50, latency_ms.p99 and latency_ms.rows_per_second (higher is better, unlike the others).

    Quantiles with the distribution-free interval of order statistics (David and Nagaraja 2003, 7.1). Throughput is
    1000/mean milliseconds a row over batches, with the ends of Student's t interval of that mean.
    """
    single = quantiles(SCORER.name, rows.timings.single_ms, options.level, "single-row calls")
    return [*single, _throughput(rows, options)]


def quantiles(name: str, took_ms: Floats, level: float, what: str) -> list[Finding]:
    """`name`.p50 and `name`.p99 of times; `what` was timed. Insufficient where they are too few for an interval."""
    findings: list[Finding] = []
    n = len(took_ms)
    for short, share in QUANTILES.items():
        found = intervals.quantile(took_ms, share, level) if n else None
        if found is None:
            needed = intervals.rows_for_quantile(share, level)
            reason = f"{n} {what} were timed; both ends of the interval need {needed}"
            findings.append(Insufficient(f"{name}.{short}", n, needed, reason))
            continue
        value, low, high = found
        findings.append(
            Measure(
                f"{name}.{short}", value, low, high, n, "order statistics", "ms", higher_is_better=False, level=level
            )
        )
    return findings


def _throughput(rows: ScoredRows, options: Options) -> Finding:
    name, timings = f"{SCORER.name}.rows_per_second", rows.timings
    per_row = timings.batch_ms / np.maximum(timings.batch_rows, 1)
    if len(per_row) < 2:
        return Insufficient(name, len(per_row), 2, f"{len(per_row)} batches were timed; an interval needs two")
    low_ms, high_ms = intervals.mean(per_row, options.level)
    mean_ms = float(per_row.mean())
    if low_ms <= 0:
        reason = f"{len(per_row)} batches differ too much in time for an interval; use a larger golden set"
        return Insufficient(name, len(per_row), len(per_row) + 1, reason)
    value, low, high = 1000 / mean_ms, 1000 / high_ms, 1000 / low_ms
    n = int(timings.batch_rows.sum())
    return Measure(name, value, low, high, n, "Student's t of ms a row", "rows/s", level=options.level)


SCORER = Scorer("latency_ms", ("classification", "regression"), score)
