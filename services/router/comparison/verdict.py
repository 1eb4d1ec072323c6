"""One sentence about a challenger: promote it, take it back, wait for so many rows, or trust nothing of this."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from services.router.comparison.differences import OUT_OF_SIGHT, Difference, Strata, difference
from services.router.comparison.estimates import Metric
from services.router.comparison.ratio import Ratio


class Kind(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"
    MISMATCH = "mismatch"


class Standing(StrEnum):
    """Of a guard: its whole interval is within the margin, beyond it, or neither yet."""

    HELD = "held"
    VIOLATED = "violated"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Guard:
    """A metric that may not get worse by `margin`, in the metric's own unit; a relative one's is a logarithm."""

    metric: Metric
    margin: float


@dataclass(frozen=True, slots=True)
class Objective:
    """What decides. With the goal `not-worse` the primary metric need only stay within its own margin."""

    primary: Metric
    guards: tuple[Guard, ...] = ()
    alpha: float = 0.05
    goal: Literal["better", "not-worse"] = "better"


@dataclass(frozen=True, slots=True)
class Held:
    """A guard and how it stands; `difference` is None while there is nothing to compare."""

    guard: Guard
    standing: Standing
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`more_rows` would settle it if differences and split stay as they are; None when settled, or out of sight."""

    kind: Kind
    sentence: str
    primary: Difference | None
    guards: tuple[Held, ...]
    more_rows: int | None
    ratio: Ratio


def judge(champion: Strata, challenger: Strata, objective: Objective, ratio: Ratio) -> Verdict:
    """Weigh a challenger's rows against the champion's.

    BETTER needs the primary metric's interval beyond its threshold and every guard held: all of several conditions, so
    that the chance of a false BETTER is at most alpha / 2 however many guards there are (an intersection-union test).
    WORSE needs one of several, so its intervals are wider: alpha is shared between primary and guards (Bonferroni).
    """
    alpha, shared = objective.alpha, objective.alpha / (len(objective.guards) + 1)
    primary = difference(objective.primary, champion, challenger)
    guards = tuple(_held(guard, champion, challenger, alpha, shared) for guard in objective.guards)
    threshold = 0.0 if objective.goal == "better" else -objective.primary.margin

    def verdict(kind: Kind, sentence: str, more_rows: int | None = None) -> Verdict:
        return Verdict(kind, sentence, primary, guards, more_rows, ratio)

    if ratio.is_mismatch:
        return verdict(
            Kind.MISMATCH,
            f"The versions did not get the shares of traffic that their weights say (p = {ratio.p:.1g}), "
            "so no figure of this comparison can be trusted: find out what else chooses the version.",
        )
    for held in guards:
        if held.standing is Standing.VIOLATED and held.difference is not None:
            return verdict(Kind.WORSE, f"Take it back: {told(held.difference, shared)}, beyond the margin of a guard.")
    if primary is None:
        return verdict(Kind.OPEN, f"Nothing to compare yet: {objective.primary.name} is not known of both versions.")
    if primary.gains(shared)[1] < threshold:
        return verdict(Kind.WORSE, f"Take it back: {told(primary, shared)}.")
    is_better = primary.gains(alpha)[0] > threshold
    if is_better and all(held.standing is Standing.HELD for held in guards):
        how = "every guard held" if guards else "no guard declared"
        return verdict(Kind.BETTER, f"Promote it: {told(primary, alpha)}, {how}.")
    open_guards = [held for held in guards if held.standing is Standing.OPEN]
    needed = [0 if is_better else primary.rows_to(threshold, alpha)]
    needed += [held.difference.rows_to(-held.guard.margin, alpha) for held in open_guards if held.difference]
    unknown = [held.guard.metric.name for held in open_guards if held.difference is None]
    return verdict(*_waiting(told(primary, alpha), max(needed), unknown))


def _waiting(seen: str, rows: int, unknown: list[str]) -> tuple[Kind, str, int | None]:
    if unknown:
        return Kind.OPEN, f"Not settled: {seen}; {' and '.join(unknown)} is not known of both versions yet.", None
    if rows >= OUT_OF_SIGHT:
        return Kind.OPEN, f"Not settled: {seen}; too close for any number of rows in sight.", None
    more = f"about {_rounded(rows):,} more rows would settle it if nothing changes"
    return Kind.OPEN, f"Not settled: {seen}; {more}.", rows


def _held(guard: Guard, champion: Strata, challenger: Strata, alpha: float, shared: float) -> Held:
    found = difference(guard.metric, champion, challenger)
    if found is None:
        return Held(guard, Standing.OPEN, None)
    if found.gains(shared)[1] < -guard.margin:
        return Held(guard, Standing.VIOLATED, found)
    return Held(guard, Standing.HELD if found.gains(alpha)[0] > -guard.margin else Standing.OPEN, found)


def told(found: Difference, alpha: float) -> str:
    """`accuracy is 0.012 higher (95 % interval 0.004 to 0.020)`; of a relative metric in percent."""

    def shown(value: float) -> str:
        return f"{math.expm1(value):+.1%}" if found.metric.relative else f"{value:+.4g}"

    interval = found.interval(alpha)
    name = found.metric.name.removeprefix("metric:")
    n = f"{found.n_champion:,} against {found.n_challenger:,} rows"
    if interval is None:
        return f"{name} differs by {shown(found.value)} so far, of {n}"
    level = f"{(1 - alpha) * 100:.3g} %"
    return (
        f"{name} differs by {shown(found.value)} ({level} interval {shown(interval[0])} to {shown(interval[1])}; {n})"
    )


def _rounded(rows: int) -> int:
    """Two digits: the number is a guess."""
    if rows < 100:
        return max(1, rows)
    step = int(10 ** (math.floor(math.log10(rows)) - 1))
    return math.ceil(rows / step) * step
