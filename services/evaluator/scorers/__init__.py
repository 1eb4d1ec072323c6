"""The table of scorers. A new one is one file and one line here; the conformance tests pick it up by themselves."""

from __future__ import annotations

from collections.abc import Mapping

from services.evaluator.scorers import (
    accuracy_score,
    answer_latency,
    coverage,
    exact_match,
    f1_score,
    fairness,
    latency,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc,
    root_mean_squared_error,
    token_f1,
    tokens_per_answer,
)
from services.evaluator.scorers.scorer import AnswerScorer, Scorer

SCORERS: Mapping[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        coverage.SCORER,
        accuracy_score.SCORER,
        roc_auc.SCORER,
        f1_score.SCORER,
        log_loss.SCORER,
        fairness.SCORER,
        root_mean_squared_error.SCORER,
        mean_absolute_error.SCORER,
        r2_score.SCORER,
        latency.SCORER,
    )
}

ANSWER_SCORERS: Mapping[str, AnswerScorer] = {
    scorer.name: scorer
    for scorer in (exact_match.SCORER, token_f1.SCORER, answer_latency.SCORER, tokens_per_answer.SCORER)
}
"""The same for prompts."""

__all__ = ["ANSWER_SCORERS", "SCORERS", "AnswerScorer", "Scorer"]
