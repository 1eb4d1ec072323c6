"""coverage: the share of golden rows that could be scored at all."""

from __future__ import annotations

from collections.abc import Sequence

from services.evaluator.domain import Finding, Measure, Options, ScoredRows
from services.evaluator.scorers.scorer import Scorer


def score(rows: ScoredRows, options: Options) -> Sequence[Finding]:
    """Scored rows / rows. A count, not an estimate, so its interval has no width."""
    share = rows.n / rows.rows if rows.rows else 0.0
    return [Measure("coverage", share, share, share, rows.rows, "exact count", level=options.level)]


SCORER = Scorer("coverage", ("classification", "regression"), score)
