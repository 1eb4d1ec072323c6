"""f1_score: the harmonic mean of precision and recall."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.evaluator.domain import Finding, Measure, Options, ScoredRows
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import Scorer


def score(rows: ScoredRows, options: Options) -> Sequence[Finding]:
    """Two classes: F1 of the positive class. More: the mean over classes that occur or are predicted (`macro`).

    Two classes: F1 = 2J/(1 + J), where J = TP/(TP + FP + FN) is a proportion (D. J. Hand, P. Christen and N. Kirielle,
    Machine Learning 110 (2021) 451-456), so Wilson's interval of J is carried over; it is exact about the ends 0 and 1.
    More: the delta method on the multinomial counts, as K. Takahashi, K. Yamamoto, A. Kuchiba and T. Koyama, Applied
    Intelligence 52 (2022) 4961-4972. F1 is 0 where nothing is predicted right, as in scikit-learn.
    """
    if rows.positive is not None:
        return [_binary(rows, rows.positive, options)]
    influence, values = np.zeros(rows.n), []
    for c in range(len(rows.classes)):
        actual, predicted = rows.labels == c, rows.predicted == c
        size = int(actual.sum() + predicted.sum())
        if size:
            both = actual & predicted
            values.append(2 * int(both.sum()) / size)
            influence += (2.0 * both - values[-1] * (1.0 * actual + predicted)) * rows.n / size
    value = float(np.mean(values))
    half = intervals.from_influence(influence / len(values), options.level)
    low, high = max(0.0, value - half), min(1.0, value + half)
    return [Measure("f1_score", value, low, high, rows.n, "macro, delta method", level=options.level)]


def _binary(rows: ScoredRows, positive: int, options: Options) -> Measure:
    actual, predicted = rows.labels == positive, rows.predicted == positive
    hit, union = int(np.count_nonzero(actual & predicted)), int(np.count_nonzero(actual | predicted))
    low, high = intervals.wilson(hit, union, options.level)
    value = hit / union if union else 0.0
    f1, f1_low, f1_high = (2 * j / (1 + j) for j in (value, low, high))
    return Measure("f1_score", f1, f1_low, f1_high, rows.n, "Wilson score of TP/(TP+FP+FN)", level=options.level)


SCORER = Scorer("f1_score", ("classification",), score)
