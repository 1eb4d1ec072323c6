"""Where a number falls in a histogram whose buckets are the same everywhere, so that histograms add up.

Two scales. Latencies: DDSketch's (Masson, Rim, Lee: "DDSketch", VLDB 2019), where bucket i holds (g^(i-1), g^i] with
g = (1 + a) / (1 - a), so that a quantile read from it is within a = 1 % of the true one. Scores: log-odds inside
(0, 1), logarithmic outside; monotone over all numbers, so that ranks between different buckets are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float64]
    Ints: TypeAlias = npt.NDArray[np.int64]

Histogram = Mapping[int, int]

RELATIVE_ERROR = 0.01
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
LEAST_MS = 1e-3
"""Durations below one microsecond share a bucket."""

LOGIT_STEP = 0.02
"""A score's bucket is at most 0.005 wide (at 0.5) and narrower to both ends."""
_LOGIT_EDGE = 1_800
_OUTSIDE = 2_000
_OUTSIDE_STEP = 0.02
_OUTSIDE_UNIT = 1e-6
_OUTSIDE_EDGE = 4_000


def latency_buckets(milliseconds: Floats) -> Ints:
    """[n] durations in ms to [n] bucket numbers."""
    import numpy as np  # in the functions, because quantiles are read where nothing is counted; see `aggregates`

    return np.ceil(np.log(np.maximum(milliseconds, LEAST_MS)) / _LOG_GAMMA).astype(np.int64)


def latency_of(bucket: int) -> float:
    """The duration in ms that is at most RELATIVE_ERROR off from everything in the bucket."""
    return float(2 * _GAMMA**bucket / (_GAMMA + 1))


def score_buckets(scores: Floats) -> Ints:
    """[n] scores to [n] bucket numbers; 0, 1 and what lies beyond them have buckets outside of those of (0, 1)."""
    import numpy as np

    inside = (scores > 0) & (scores < 1)
    p = np.where(inside, scores, 0.5)
    logits = np.clip(np.rint(np.log(p / (1 - p)) / LOGIT_STEP), -_LOGIT_EDGE, _LOGIT_EDGE)
    beyond = np.where(scores <= 0, -scores, scores - 1)
    beyond = np.where(inside, 0.0, beyond)
    steps = np.minimum(np.ceil(np.log1p(beyond / _OUTSIDE_UNIT) / _OUTSIDE_STEP), _OUTSIDE_EDGE)
    outside = np.where(scores <= 0, -_OUTSIDE - steps, _OUTSIDE + steps)
    return np.where(inside, logits, outside).astype(np.int64)


def score_of(bucket: int) -> float:
    """The middle of a score's bucket."""
    if abs(bucket) < _OUTSIDE:
        return 1 / (1 + math.exp(-bucket * LOGIT_STEP))
    steps = abs(bucket) - _OUTSIDE
    beyond = math.expm1(max(0.0, steps - 0.5) * _OUTSIDE_STEP) * _OUTSIDE_UNIT
    return 1 + beyond if bucket > 0 else -beyond


def counted(buckets: Ints) -> dict[int, int]:
    """How many fell into each bucket."""
    import numpy as np

    found, counts = np.unique(buckets, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def quantile(histogram: Histogram, share: float) -> float | None:
    """The latency in ms below which `share` (0 to 1) of the histogram lies, within RELATIVE_ERROR; None when empty.

    The rank is DDSketch's: floor(share x (n - 1)), the lower of the two neighbours that others interpolate between.
    """
    total = sum(histogram.values())
    if total <= 0:
        return None
    rank = int(share * (total - 1))
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen > rank:
            return latency_of(bucket)
    return latency_of(max(histogram))
