"""mean_absolute_error: how far off a prediction is on average, in the target's unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.evaluator.domain import Finding, Measure, Options, ScoredRows
from services.evaluator.errors import MeasureUndefined
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import Scorer


def score(rows: ScoredRows, options: Options) -> Sequence[Finding]:
    """The mean with Student's t interval (central limit theorem)."""
    if rows.n < 2:
        raise MeasureUndefined(f"mean_absolute_error needs 2 rows for its interval and has {rows.n}; add rows")
    sizes = np.abs(rows.errors)
    low, high = intervals.mean(sizes, options.level)
    value, low = float(sizes.mean()), max(0.0, low)
    return [
        Measure(
            SCORER.name, value, low, high, rows.n, "Student's t", "target", higher_is_better=False, level=options.level
        )
    ]


SCORER = Scorer("mean_absolute_error", ("regression",), score)
