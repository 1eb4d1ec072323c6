"""r2_score: the share of the target's variance that the predictions account for; below 0 when the mean does better."""

from __future__ import annotations

from collections.abc import Sequence

from services.evaluator.domain import Finding, Measure, Options, ScoredRows
from services.evaluator.errors import MeasureUndefined
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import Scorer


def score(rows: ScoredRows, options: Options) -> Sequence[Finding]:
    """1 - MSE/Var with the delta-method interval of that ratio of means (van der Vaart 1998, chapter 3)."""
    squares, spread = rows.errors**2, (rows.truth - rows.truth.mean()) ** 2
    variance = float(spread.mean())
    if variance == 0:
        raise MeasureUndefined("r2_score is not defined: every target in the golden set is the same; add other rows")
    ratio = float(squares.mean()) / variance
    half = intervals.from_influence((squares - ratio * spread) / variance, options.level)
    value = 1 - ratio
    return [
        Measure(SCORER.name, value, value - half, min(1.0, value + half), rows.n, "delta method", level=options.level)
    ]


SCORER = Scorer("r2_score", ("regression",), score)
