"""Exact Shapley values against one reference row: by enumeration for any model, in closed form for linear ones.

The game is v(S) = model(x on S, reference elsewhere): the single-reference form of Sundararajan and Najmi, "The many
Shapley values for model explanation" (2020). For a linear model its value of feature i is w_i (x_i - reference_i)
(Lundberg and Lee 2017, Corollary 1, with the reference in place of the mean).
"""

from collections.abc import Callable
from math import factorial
from typing import Final

import numpy as np

from services.deployer.model_server.models import Explanation, Floats

MAX_FEATURES: Final = 10
"""2^10 = 1,024 evaluations a row, one batched call; each feature more doubles them."""
_MAX_EVALUATIONS: Final = 1 << 16
"""Rows handed to the model at once: 5 MiB of float64 at ten features."""


class Enumeration:
    """All 2^f coalitions of f features, and the weights that turn their values into Shapley values."""

    def __init__(self, reference: Floats) -> None:
        features = len(reference)
        if features > MAX_FEATURES:
            raise ValueError(f"{features} features are too many to enumerate")
        numbers = np.arange(1 << features)
        self._reference = reference
        self._inside = (numbers[:, None] >> np.arange(features)) & 1 == 1  # [2^f, f]
        size = self._inside.sum(axis=1)
        # joining[s] = s! (f - s - 1)! / f!: the weight of "i joins a coalition of s others"
        joining = np.array([factorial(s) * factorial(features - s - 1) / factorial(features) for s in range(features)])
        gained = joining[np.maximum(size - 1, 0)]
        lost = -joining[np.minimum(size, features - 1)]
        self._weights = np.where(self._inside, gained[:, None], lost[:, None]).T  # [f, 2^f]

    def explain(self, rows: Floats, score: Callable[[Floats], Floats]) -> Explanation:
        """`score` maps [m, f] to [m] or [m, k]; rows [n, f]."""
        coalitions, features = self._inside.shape
        step = max(1, _MAX_EVALUATIONS // coalitions)
        worth = []
        for start in range(0, len(rows), step):
            mixed = np.where(self._inside, rows[start : start + step, None, :], self._reference)
            values = score(mixed.reshape(-1, features))
            worth.append(values.reshape(-1, coalitions, *values.shape[1:]))
        v = np.concatenate(worth)  # [n, 2^f] or [n, 2^f, k]
        if v.ndim == 2:
            return Explanation(v @ self._weights.T, v[:, 0], v[:, -1])
        return Explanation(np.einsum("nck,fc->nkf", v, self._weights), v[:, 0], v[:, -1])


def linear(columns: Floats, reference: Floats, weights: Floats, intercept: Floats) -> Explanation:
    """Columns [n, f] and reference [f] as the linear part sees them; weights [f] and a number, or [k, f] and [k]."""
    if weights.ndim == 1:
        values = (columns - reference) * weights
        base = np.full(len(columns), reference @ weights + intercept)
        return Explanation(values, base, columns @ weights + intercept)
    values = (columns - reference)[:, None, :] * weights
    base = np.tile(weights @ reference + intercept, (len(columns), 1))
    return Explanation(values, base, columns @ weights.T + intercept)
