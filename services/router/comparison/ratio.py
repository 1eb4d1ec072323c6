"""Sample-ratio mismatch: do the versions get the shares of traffic that the weights in force said?

If not, something other than chance chose the versions, and no difference between them means what it seems to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.router.comparison.aggregates import SLICES
from services.router.domain import BUCKETS

BLOCKS_BELOW = 0.001
MIN_EXPECTED = 5.0

Arm = tuple[str, int]
"""URN and version."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """`p` is None while there is too little to say. `alike` is the design effect: how alike a unit's requests made
    the counts; `revisions` are those that were looked at."""

    p: float | None
    chi_square: float
    degrees: int
    alike: float
    revisions: tuple[int, ...]

    @property
    def is_mismatch(self) -> bool:
        return self.p is not None and self.p < BLOCKS_BELOW


def sample_ratio(
    counts: Mapping[int, Mapping[Arm, tuple[float, ...]]], weights_bp: Mapping[int, Mapping[Arm, int]]
) -> Ratio:
    """Compare rows by revision, version and slice of units with the weights of each revision, in basis points.

    Pearson's chi-square, summed over revisions, since a ramp changes the weights. Requests of one sticky unit all go
    one way, so counts vary more than a multinomial's: the statistic is divided by the design effect (Rao and Scott
    1984, first order), estimated from the slices, and read against F instead of chi-square because it is estimated.
    """
    from scipy.special import chdtrc, fdtrc  # half a second, and numpy with it; callers are in a thread

    statistic, degrees, inflation = 0.0, 0, 0.0
    looked_at = []
    for revision, by_arm in sorted(counts.items()):
        shares = {arm: weight / BUCKETS for arm, weight in weights_bp.get(revision, {}).items()}
        by_slice = [sum(column) for column in zip(*by_arm.values(), strict=True)]
        total = sum(by_slice)
        tested = {arm: share for arm, share in shares.items() if share > 0}
        if len(tested) < 2 or any(share * total < MIN_EXPECTED for share in tested.values()):
            continue
        looked_at.append(revision)
        degrees += len(tested) - 1
        for arm, share in tested.items():
            seen = by_arm.get(arm, (0.0,) * SLICES)
            statistic += (sum(seen) - share * total) ** 2 / (share * total)
            inflation += _spread(seen, share, by_slice) / (share * total)
    if not degrees:
        return Ratio(None, 0.0, 0, 1.0, ())
    alike = inflation / degrees
    if alike > 1:
        p = float(fdtrc(degrees, SLICES - 1, statistic / alike / degrees))
    else:
        p, alike = float(chdtrc(degrees, statistic)), 1.0
    return Ratio(p, statistic, degrees, alike, tuple(looked_at))


def _spread(seen: tuple[float, ...], share: float, by_slice: list[float]) -> float:
    """The variance of the arm's count as the slices show it; a constant lean to one side is no part of it."""
    total = sum(by_slice)
    lean = sum(seen) / total
    residuals = [count - lean * of for count, of in zip(seen, by_slice, strict=True)]
    return SLICES / (SLICES - 1) * sum(residual**2 for residual in residuals)
