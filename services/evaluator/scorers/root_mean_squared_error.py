"""root_mean_squared_error: the root of the mean squared error, in the target's unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from services.evaluator.domain import Finding, Measure, Options, ScoredRows
from services.evaluator.errors import MeasureUndefined
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import Scorer


def score(rows: ScoredRows, options: Options) -> Sequence[Finding]:
    """The root of the ends of Student's t interval of the mean squared error; monotone, so the level carries over."""
    if rows.n < 2:
        raise MeasureUndefined(f"root_mean_squared_error needs 2 rows for its interval and has {rows.n}; add rows")
    squares = rows.errors**2
    low, high = (math.sqrt(max(0.0, end)) for end in intervals.mean(squares, options.level))
    value = math.sqrt(float(squares.mean()))
    method = "root of Student's t of the squared error"
    return [
        Measure(SCORER.name, value, low, high, rows.n, method, "target", higher_is_better=False, level=options.level)
    ]


SCORER = Scorer("root_mean_squared_error", ("regression",), score)
