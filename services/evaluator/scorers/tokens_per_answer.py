"""tokens_per_answer: how many tokens an answer takes, where whoever answered says so (`usage`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.evaluator.domain import AnsweredRows, Finding, Insufficient, Measure, Options
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import AnswerScorer


def score(rows: AnsweredRows, options: Options) -> Sequence[Finding]:
    """The mean with Student's t interval (central limit theorem) of the rows that have a figure."""
    tokens = rows.tokens[~np.isnan(rows.tokens)]
    if len(tokens) < 2:
        return [Insufficient(SCORER.name, len(tokens), 2, f"{len(tokens)} answers told their tokens; it needs two")]
    low, high = intervals.mean(tokens, options.level)
    value, n = float(tokens.mean()), len(tokens)
    method = "Student's t"
    return [
        Measure(
            SCORER.name, value, max(0.0, low), high, n, method, "tokens", higher_is_better=False, level=options.level
        )
    ]


SCORER = AnswerScorer("tokens_per_answer", score)
