"""roc_auc: the probability that a row of the class gets a higher score than a row that is not of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from services.evaluator.domain import Finding, Floats, Measure, Options, ScoredRows
from services.evaluator.scorers import intervals
from services.evaluator.scorers.scorer import Scorer


def score(rows: ScoredRows, options: Options) -> Sequence[Finding]:
    """Two classes: the AUC with DeLong's interval. More: the mean over the classes that occur, one against the rest.

    Variance: E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, Biometrics 44 (1988) 837-845, by midranks as in
    X. Sun and W. Xu, IEEE Signal Processing Letters 21 (2014) 1389-1393. The interval is made on the logit scale
    (M. S. Pepe, The Statistical Evaluation of Medical Tests, 2003, 5.2.4), so that it stays within [0, 1]. Where the
    classes are wholly apart DeLong's variance is 0, which claims too much: there the interval is R. G. Newcombe's
    method 5, Statistics in Medicine 25 (2006) 559-573. Of many classes, rows' terms are averaged over the classes.
    """
    present = [c for c in range(len(rows.classes)) if np.any(rows.labels == c)]
    judged = present if len(rows.classes) > 2 else [1 if rows.positive is None else rows.positive]
    parts = [_delong(rows.labels == c, rows.outputs[:, c]) for c in judged]
    auc = float(np.mean([value for value, _ in parts]))
    deviation = math.sqrt(float(np.sum(np.mean([influence for _, influence in parts], axis=0) ** 2)))
    if deviation > 0 and 0 < auc < 1:
        low, high = _on_logit_scale(auc, intervals.z_of(options.level) * deviation)
        method = "DeLong, logit scale"
    else:
        fewest = min(int(np.count_nonzero(rows.labels == c)) for c in judged)
        low, high = _newcombe_5(auc, fewest, rows.n - fewest, options.level)
        method = "Newcombe method 5 (DeLong's variance is 0)"
    if len(rows.classes) > 2:
        method += ", mean of one class against the rest"
    return [Measure("roc_auc", auc, low, high, rows.n, method, level=options.level)]


def _delong(positive: npt.NDArray[np.bool_], scores: Floats) -> tuple[float, Floats]:
    """The AUC, and [n] terms whose sum of squares is DeLong's variance S10/m + S01/n (ranks of equals are averaged)."""
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores)
    above = (ranks[positive] - rankdata(scores[positive])) / n  # share of negatives below each positive
    below = 1 - (ranks[~positive] - rankdata(scores[~positive])) / m  # share of positives above each negative
    auc = float(above.mean())
    terms = np.empty(m + n)
    terms[positive] = (above - auc) / math.sqrt(m * max(m - 1, 1))
    terms[~positive] = (below - auc) / math.sqrt(n * max(n - 1, 1))
    return auc, terms


def _on_logit_scale(auc: float, half: float) -> tuple[float, float]:
    centre, half = math.log(auc / (1 - auc)), half / (auc * (1 - auc))

    def back(logit: float) -> float:
        # Written for either sign, as exp overflows beyond 709.
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))

    return min(back(centre - half), auc), max(back(centre + half), auc)


def _newcombe_5(auc: float, m: int, n: int, level: float) -> tuple[float, float]:
    """All t in [0, 1] with |auc - t| <= z·sqrt(var(t)); var is Hanley and McNeil's, with (m+n)/2 for both sizes."""
    z, size = intervals.z_of(level), (m + n) / 2

    def beyond(t: float) -> bool:
        variance = t * (1 - t) * (1 + (size - 1) * ((1 - t) / (2 - t) + t / (1 + t))) / (m * n)
        return abs(auc - t) > z * math.sqrt(max(variance, 0.0))

    def edge(outside: float) -> float:
        inside = auc
        if not beyond(outside):
            return outside
        for _ in range(60):  # halves [0, 1] to below the last bit
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
        return inside

    return min(edge(0.0), auc), max(edge(1.0), auc)


SCORER = Scorer("roc_auc", ("classification",), score)
