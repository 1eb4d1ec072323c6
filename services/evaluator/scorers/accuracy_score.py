"""accuracy_score: the share of rows whose most probable class is the true one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.evaluator.domain import Finding, Measure, Options, ScoredRows
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import Scorer


def score(rows: ScoredRows, options: Options) -> Sequence[Finding]:
    """Correct / n with Wilson's score interval (Wilson 1927; see intervals.wilson)."""
    correct = int(np.count_nonzero(rows.predicted == rows.labels))
    low, high = intervals.wilson(correct, rows.n, options.level)
    return [Measure("accuracy_score", correct / rows.n, low, high, rows.n, "Wilson score", level=options.level)]


SCORER = Scorer("accuracy_score", ("classification",), score)
