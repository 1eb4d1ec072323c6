"""Thompson sampling: each arm gets the share of traffic that is the chance of it being the best, never below a floor.

W. R. Thompson, "On the likelihood that one unknown probability exceeds another", Biometrika 1933. Many draws a round
instead of one a request: the weights of sticky units must stay for a while, and every gateway must have the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.router.comparison.aggregates import Moments
from services.router.domain import BUCKETS

if TYPE_CHECKING:
    import numpy as np

DRAWS = 20_000
WEAK_N = 2


def thompson_weights(
    arms: Sequence[Moments], *, floor_bp: int, higher_is_better: bool = True, seed: int = 0
) -> list[int]:
    """Basis points for each arm, adding up to 10,000; every arm has at least `floor_bp`.

    An arm's mean is drawn from Beta(1 + successes, 1 + failures) where all its values are 0 or 1, else from a normal
    around its mean. Arms of which nothing is known yet are as likely to be best as any other. The same arms and seed
    give the same weights. Raises ValueError when the floors do not fit.
    """
    import numpy as np  # only an installation with a bandit needs it

    if floor_bp * len(arms) > BUCKETS:
        raise ValueError(f"{len(arms)} arms cannot have {floor_bp} of {BUCKETS} basis points each")
    random = np.random.default_rng(seed)
    known = [arm for arm in arms if arm.n >= WEAK_N]
    if len(known) < len(arms):
        chances = np.full(len(arms), 1 / len(arms))
    else:
        is_rate = all(abs(arm.total - arm.squares) <= 1e-9 * arm.n for arm in arms)
        draws = np.stack([_drawn(random, arm, is_rate=is_rate) for arm in arms])
        best = (draws if higher_is_better else -draws).argmax(axis=0)
        chances = np.bincount(best, minlength=len(arms)) / DRAWS
    return _rounded(floor_bp + chances * (BUCKETS - floor_bp * len(arms)))


def _drawn(random: np.random.Generator, arm: Moments, *, is_rate: bool) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    import numpy as np

    if is_rate:
        return random.beta(1 + max(0.0, arm.total), 1 + max(0.0, arm.n - arm.total), DRAWS)
    return random.normal(arm.mean, np.sqrt(arm.variance / arm.n), DRAWS)


def _rounded(shares: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    """Whole numbers with the same sum: what is lost by rounding down goes to the largest remainders."""
    import numpy as np

    whole = np.floor(shares + 1e-9).astype(int)
    missing = BUCKETS - int(whole.sum())
    for arm in np.argsort(whole - shares)[:missing]:
        whole[arm] += 1
    return [int(value) for value in whole]
