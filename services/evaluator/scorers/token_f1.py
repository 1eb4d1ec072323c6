"""token_f1: words that answer and expected answer have in common, as SQuAD's F1 (see words), averaged over rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from services.evaluator.domain import AnsweredRows, Finding, Measure, Options
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import AnswerScorer


def score(rows: AnsweredRows, options: Options) -> Sequence[Finding]:
    """The mean with Wilson's interval, on the wide side (Bhatia and Davis 2000; see intervals.wilson_of_mean)."""
    value = math.fsum(rows.f1) / rows.n
    low, high = intervals.wilson_of_mean(rows.f1, options.level)
    low, high = min(low, value), max(high, value)  # the last bit of a sum
    return [Measure(SCORER.name, value, low, high, rows.n, "Wilson score of a mean", level=options.level)]


SCORER = AnswerScorer("token_f1", score)
