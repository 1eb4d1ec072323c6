"""exact_match: the share of rows whose answer is the expected one, after SQuAD's normalization (see words)."""

from __future__ import annotations

from collections.abc import Sequence

from services.evaluator.domain import AnsweredRows, Finding, Measure, Options
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import AnswerScorer


def score(rows: AnsweredRows, options: Options) -> Sequence[Finding]:
    """Right / n with Wilson's score interval (Wilson 1927; see intervals.wilson)."""
    right = int(rows.exact.sum())
    low, high = intervals.wilson(right, rows.n, options.level)
    return [Measure(SCORER.name, right / rows.n, low, high, rows.n, "Wilson score", level=options.level)]


SCORER = AnswerScorer("exact_match", score)
