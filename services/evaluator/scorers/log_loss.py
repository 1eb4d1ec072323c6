"""log_loss: the mean of -ln P(true class), in nats a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.evaluator.domain import Finding, Measure, Options, ScoredRows
from services.evaluator.errors import MeasureUndefined
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import Scorer


def score(rows: ScoredRows, options: Options) -> Sequence[Finding]:
    """The mean with Student's t interval (central limit theorem); probabilities are clipped to float64's epsilon and
    rescaled to add up to 1, as scikit-learn does, so that a sure and wrong row costs 36 nats and not infinity."""
    if rows.n < 2:
        raise MeasureUndefined(f"log_loss needs 2 rows for its interval and has {rows.n}; add rows to the golden set")
    epsilon = float(np.finfo(np.float64).eps)
    clipped = np.clip(rows.outputs, epsilon, 1 - epsilon)
    losses = np.log(clipped.sum(axis=1)) - np.log(clipped[np.arange(rows.n), rows.labels])
    low, high = intervals.mean(losses, options.level)
    value = float(losses.mean())
    return [
        Measure(
            "log_loss",
            value,
            max(0.0, low),
            high,
            rows.n,
            "Student's t",
            "nats",
            higher_is_better=False,
            level=options.level,
        )
    ]


SCORER = Scorer("log_loss", ("classification",), score)
