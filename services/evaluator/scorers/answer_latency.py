"""answer_latency_ms: how long an answer takes from where the evaluator runs: network, gateway and model together."""

from __future__ import annotations

from collections.abc import Sequence

from services.evaluator.domain import AnsweredRows, Finding, Options
from services.evaluator.scorers import latency
from services.evaluator.scorers.scorer import AnswerScorer


def score(rows: AnsweredRows, options: Options) -> Sequence[Finding]:
    """answer_latency_ms.p50 and answer_latency_ms.p99, as latency_ms has them (David and Nagaraja 2003, 7.1)."""
    return latency.quantiles(SCORER.name, rows.latency_ms, options.level, "answers")


SCORER = AnswerScorer("answer_latency_ms", score)
