"""How much a challenger differs from the champion, with an interval that may be looked at as often as one likes.

The interval is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas ("Time-uniform
central limit theory and asymptotic confidence sequences", Annals of Statistics 2024, theorem 2.2; Robbins' normal
mixture), which GrowthBook's sequential testing uses too. With N rows, standard error s and level a:

    difference ± s * sqrt(2 (N r² + 1) / (N r²) * ln(sqrt(N r² + 1) / a))

It covers the truth at all times at once with probability 1 - a, so that peeking costs nothing. It is asymptotic: below
MIN_ARM rows an arm there is no interval (a burn-in, as in Bibaut, Kallus and Lindon 2022).

Rows are compared within the same revision of the group only. A ramp changes the weights while hours and days pass; if
morning rows were mostly the champion's and evening rows mostly the challenger's, plain means would compare mornings
with evenings. Revisions are weighted as Cochran and Mantel-Haenszel weight strata: n1 n2 / (n1 + n2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from services.router.comparison.aggregates import Aggregate, merge
from services.router.comparison.estimates import Estimate, Metric, design_effect, estimate

MIN_ARM = 100
MIN_STRATUM = 30
TUNED_FOR = 5_000
"""The interval is narrowest, relative to a fixed-size one, around so many rows."""
OUT_OF_SIGHT = 10**9

Strata = Mapping[int, Aggregate]
"""One version's rows by the revision that routed them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Challenger minus champion. `error` is the standard error; `left_out` rows were in revisions too small to compare.

    A relative metric's value is a difference of logarithms.
    """

    metric: Metric
    value: float
    error: float
    n_champion: int
    n_challenger: int
    left_out: int

    @property
    def n(self) -> int:
        return self.n_champion + self.n_challenger

    @property
    def gain(self) -> float:
        """The value, turned so that more is better."""
        return self.metric.sign * self.value

    @property
    def is_settled_enough(self) -> bool:
        """Both arms are past the burn-in, so that there is an interval."""
        return min(self.n_champion, self.n_challenger) >= MIN_ARM

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """(low, high) of the value, valid at all times together; None during the burn-in."""
        if not self.is_settled_enough:
            return None
        half = half_width(self.error, self.n, alpha)
        return self.value - half, self.value + half

    def gains(self, alpha: float) -> tuple[float, float]:
        """The interval of the gain; everything is possible during the burn-in."""
        found = self.interval(alpha)
        if found is None:
            return -math.inf, math.inf
        return found if self.metric.sign > 0 else (-found[1], -found[0])

    def rows_to(self, threshold: float, alpha: float) -> int:
        """How many more rows would move the gain's interval off `threshold`, if the gain and the split stay.

        OUT_OF_SIGHT when that many would not do.
        """
        distance = abs(self.gain - threshold)

        def is_off(n: float) -> bool:
            return distance > half_width(self.error * math.sqrt(self.n / n), n, alpha)

        burn_in = self.n * MIN_ARM / max(1, min(self.n_champion, self.n_challenger))
        low = float(max(self.n, burn_in))
        if is_off(low):
            return max(0, math.ceil(low - self.n))
        high = low * 2
        while not is_off(high):
            if high > OUT_OF_SIGHT:
                return OUT_OF_SIGHT
            low, high = high, high * 2
        while high - low > max(1.0, 0.005 * high):
            middle = (low + high) / 2
            low, high = (low, middle) if is_off(middle) else (middle, high)
        return math.ceil(high - self.n)


def half_width(error: float, n: float, alpha: float) -> float:
    """Half of the confidence sequence's width at n rows; see the module's formula. `rho` minimises it at TUNED_FOR."""
    rho_squared = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / TUNED_FOR
    grown = n * rho_squared
    return error * math.sqrt(2 * (grown + 1) / grown * math.log(math.sqrt(grown + 1) / alpha))


def difference(metric: Metric, champion: Strata, challenger: Strata) -> Difference | None:
    """Challenger minus champion over the revisions that both were in; None where nothing can be compared.

    Rows that leave out the metric do not count. Raises nothing for empty strata.
    """
    alike = [design_effect(metric.name, merge(*strata.values())) for strata in (champion, challenger)]
    pairs: list[tuple[Estimate, Estimate]] = []
    left_out = 0
    for revision in champion.keys() | challenger.keys():
        found = [
            estimate(metric.name, strata[revision], effect) if revision in strata else None
            for strata, effect in zip((champion, challenger), alike, strict=True)
        ]
        old, new = found
        if old is not None and new is not None and min(old.n, new.n) >= MIN_STRATUM:
            pairs.append((old, new))
        else:
            left_out += sum(one.n for one in found if one is not None)
    if not pairs:
        return None
    weights = [old.n * new.n / (old.n + new.n) for old, new in pairs]
    whole = sum(weights)
    value = sum(weight * (new.value - old.value) for weight, (old, new) in zip(weights, pairs, strict=True)) / whole
    variance = sum(
        (weight / whole) ** 2 * (old.variance + new.variance) for weight, (old, new) in zip(weights, pairs, strict=True)
    )
    n_champion, n_challenger = (sum(pair[side].n for pair in pairs) for side in (0, 1))
    return Difference(metric, value, math.sqrt(variance), n_champion, n_challenger, left_out)
