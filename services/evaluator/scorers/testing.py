"""Scored rows for tests of scorers: from arrays given, or drawn from a population whose true figures are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from services.evaluator.domain import ScoredRows, Timings


def timings(calls: int = 600, batches: int = 8, seed: int = 0) -> Timings:
    """Made-up times: exponential around 0.1 ms a call, about 1 ms a batch of 512."""
    random = np.random.default_rng(seed)
    return Timings(
        single_ms=random.exponential(0.1, calls),
        batch_ms=random.normal(1.0, 0.05, batches),
        batch_rows=np.full(batches, 512, dtype=np.int64),
    )


def classified(
    truth: npt.ArrayLike,
    outputs: npt.ArrayLike,
    *,
    sensitive: Mapping[str, Sequence[str]] | None = None,
    positive: int | None = 1,
    rows: int | None = None,
) -> ScoredRows:
    """Rows of a classifier. `outputs` is [n, k], or [n] as P(class 1); `positive` is kept for two classes only."""
    given = np.asarray(outputs, dtype=np.float64)
    probabilities = np.column_stack([1 - given, given]) if given.ndim == 1 else given
    k = probabilities.shape[1]
    return ScoredRows(
        task="classification",
        truth=np.asarray(truth, dtype=np.float64),
        outputs=probabilities,
        rows=len(probabilities) if rows is None else rows,
        timings=timings(),
        classes=tuple(str(c) for c in range(k)),
        positive=positive if k == 2 else None,
        sensitive={name: np.array(values, dtype=np.str_) for name, values in (sensitive or {}).items()},
    )


def regressed(truth: npt.ArrayLike, predictions: npt.ArrayLike) -> ScoredRows:
    """Rows of a regression."""
    outputs = np.asarray(predictions, dtype=np.float64).reshape(-1, 1)
    return ScoredRows("regression", np.asarray(truth, dtype=np.float64), outputs, len(outputs), timings())


def some_binary(n: int = 600, seed: int = 1) -> ScoredRows:
    """A fair classifier with two groups in SEX, ties among its scores."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, n)
    scores = np.round(np.clip(0.5 + 0.2 * (truth - 0.5) + random.normal(0, 0.2, n), 0.01, 0.99), 2)
    return classified(truth, scores, sensitive={"SEX": random.choice(["1", "2"], n).tolist()})


def some_multiclass(n: int = 600, k: int = 3, seed: int = 2) -> ScoredRows:
    """A fair classifier of k classes."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, k, n)
    weights = random.gamma(1.0, 1.0, (n, k))
    weights[np.arange(n), truth] += 0.7
    return classified(
        truth, weights / weights.sum(axis=1, keepdims=True), sensitive={"SEX": random.choice(["1", "2"], n).tolist()}
    )


def some_regression(n: int = 600, seed: int = 3) -> ScoredRows:
    """Predictions with errors of standard deviation 0.5 on a target of standard deviation 1."""
    random = np.random.default_rng(seed)
    truth = random.normal(0, 1, n)
    return regressed(truth, truth + random.normal(0, 0.5, n))


def reordered(rows: ScoredRows, order: npt.NDArray[Any]) -> ScoredRows:
    """The same rows in another order."""
    return ScoredRows(
        task=rows.task,
        truth=rows.truth[order],
        outputs=rows.outputs[order],
        rows=rows.rows,
        timings=rows.timings,
        classes=rows.classes,
        positive=rows.positive,
        sensitive={name: values[order] for name, values in rows.sensitive.items()},
    )
