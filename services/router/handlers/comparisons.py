"""A group's versions side by side, from aggregates: figures, differences from the champion, and a verdict on each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.router.comparison.aggregates import BY_WEIGHT, CHARGED, DRAWS, EXPERIMENT, SLICES, Aggregate, merge
from services.router.comparison.differences import Strata
from services.router.comparison.estimates import METRICS
from services.router.comparison.figures import Figures, figures
from services.router.comparison.ledger import Ledger, Row, Source, summed
from services.router.comparison.ratio import Arm, Ratio, sample_ratio
from services.router.comparison.verdict import Guard, Objective, Verdict, judge
from services.router.domain import Group, Version
from services.router.errors import UnknownGroup
from services.router.store import Entry, Store
from shared.clock import Clock
from shared.db.database import Database, Transaction

SHADOW = "shadow"
LOOK_S = 0.5
DEFAULT_GUARDS = (Guard(METRICS["error_rate"], 0.005), Guard(METRICS["latency"], METRICS["latency"].margin))


@dataclass(frozen=True, slots=True)
class Question:
    """Which rows, and what decides. Without a primary metric it is accuracy where there are labels, else error rate."""

    since: datetime | None = None
    until: datetime | None = None
    objective: Objective | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One version's figures. `role` is what it is in the group now: champion, challenger, shadow, former, none."""

    version: Version | None
    role: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Judged:
    """A challenger or shadow, and the verdict on it."""

    version: Version
    role: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """`first_revision` is where the experiment began, at the latest change of champion: figures are of all rows asked
    for, differences only of rows from there on."""

    group: Group
    stamp: int
    first_revision: int
    n: int
    """Requests, each once: where it was answered, not where it was shadowed or failed over from."""
    sides: tuple[Side, ...]
    judged: tuple[Judged, ...]
    ratio: Ratio


class Comparisons:
    """Reads; one transaction a view. Adding up happens in a thread, since a long span takes tens of milliseconds."""

    def __init__(self, database: Database, store: Store, ledger: Ledger, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._ledger = ledger
        self._clock = clock

    async def view(self, workspace: str, group: str, question: Question) -> Comparison:
        """Raises UnknownGroup."""
        async with self._database.begin(workspace) as tx:
            entry, weights, first = await experiment(tx, self._store, group)
            stamp = await self._ledger.stamp(tx, group)
            rows = await self._ledger.stored(tx, group, question.since, question.until, self._clock())
        return await asyncio.to_thread(compared, entry.group, stamp, first, rows, weights, question.objective)

    async def stream(self, workspace: str, group: str, question: Question) -> AsyncGenerator[Comparison | None]:
        """A view whenever something was added or the group changed; None when for LOOK_S seconds nothing was.

        Ends when the group does. Raises UnknownGroup before the first view.
        """
        seen: tuple[int, int] | None = None
        while True:
            async with self._database.begin(workspace) as tx:
                entry = await self._store.group(tx, group)
                now = (await self._ledger.stamp(tx, group), entry.group.revision) if entry else None
            if now is None and seen is not None:
                return
            if now != seen or now is None:
                found = await self.view(workspace, group, question)
                seen = found.stamp, found.group.revision
                yield found
            else:
                yield None
            await asyncio.sleep(LOOK_S)


async def experiment(tx: Transaction, store: Store, group: str) -> tuple[Entry, dict[int, dict[Arm, int]], int]:
    """The group now, the weights of each revision since the latest change of champion, and that revision.

    Raises UnknownGroup.
    """
    entry = await store.group(tx, group)
    if entry is None:
        raise UnknownGroup(group)
    first = await store.first_of_champion(tx, group)
    history = await store.history_since(tx, group, first)
    return entry, {one.group.revision: weights_of(one.group) for one in history}, first


async def ratio_now(tx: Transaction, store: Store, ledger: Ledger, group: str, now: datetime) -> Ratio:
    """Whether the split of the running experiment is as promised. Raises UnknownGroup."""
    _, weights, first = await experiment(tx, store, group)
    sums = await asyncio.to_thread(summed, await ledger.stored(tx, group, None, None, now))
    return await asyncio.to_thread(split, sums, weights, first)


def compared(
    group: Group,
    stamp: int,
    first: int,
    rows: Sequence[Row],
    weights: Mapping[int, Mapping[Arm, int]],
    objective: Objective | None,
) -> Comparison:
    """Everything that is shown of these stored rows; pure, and slow enough for a thread."""
    sums = summed(rows)
    ratio = split(sums, weights, first)
    champion = strata(sums, group.champion, first)
    objective = objective or default_objective(champion)
    judged = []
    for role, versions in _rivals(group):
        for version in versions:
            route = SHADOW if role == SHADOW else BY_WEIGHT
            fair = ratio if role != SHADOW else Ratio(None, 0.0, 0, 1.0, ())
            theirs = strata(sums, version, first, route)
            judged.append(Judged(version, role, judge(champion, theirs, objective, fair)))
    n = sum(part.n for source, part in sums.items() if source.route not in (SHADOW, CHARGED))
    return Comparison(group, stamp, first, n, _sides(group, sums), tuple(judged), ratio)


def default_objective(champion: Strata) -> Objective:
    """Accuracy where the champion has labels, else the error rate."""
    is_labelled = any("accuracy" in part.moments for part in champion.values())
    return Objective(METRICS["accuracy" if is_labelled else "error_rate"], DEFAULT_GUARDS)


def strata(
    sums: Mapping[Source, Aggregate], version: Version, first: int, route: str = BY_WEIGHT, last: int | None = None
) -> dict[int, Aggregate]:
    """A version's rows by revision, from revision `first` to `last` (both inclusive), chosen by one route.

    By weight, that is with the requests that were failed over from it: else who fails would look perfect.
    """
    routes = EXPERIMENT if route == BY_WEIGHT else (route,)
    found: dict[int, Aggregate] = {}
    for source, part in sums.items():
        if (
            (source.asset, source.version, source.digest) == (version.urn, version.version, version.digest)
            and source.route in routes
            and first <= source.revision
            and (last is None or source.revision <= last)
        ):
            found[source.revision] = merge(found[source.revision], part) if source.revision in found else part
    return found


def split(sums: Mapping[Source, Aggregate], weights: Mapping[int, Mapping[Arm, int]], first: int) -> Ratio:
    """The sample-ratio check over revisions from `first` on: whom the weights drew, whoever answered."""
    counts: dict[int, dict[Arm, tuple[float, ...]]] = {}
    for source, part in sums.items():
        if source.route in DRAWS and source.asset and source.revision >= first:
            slices = part.slices.get("error_rate")  # of every row there is one
            of_revision = counts.setdefault(source.revision, {})
            arm = (source.asset, source.version)
            before = of_revision.get(arm, (0.0,) * SLICES)
            of_revision[arm] = tuple(map(sum, zip(before, slices.n if slices else before, strict=True)))
    return sample_ratio(counts, weights)


def weights_of(group: Group) -> dict[Arm, int]:
    """Basis points by version, the champion's included."""
    found = {(one.version.urn, one.version.version): one.weight_bp for one in group.challengers}
    return {(group.champion.urn, group.champion.version): group.champion_weight_bp, **found}


def _rivals(group: Group) -> list[tuple[str, list[Version]]]:
    challengers = [one.version for one in group.challengers]
    return [("challenger", challengers), (SHADOW, [one.version for one in group.shadows])]


def by_side(group: Group, sums: Mapping[Source, Aggregate]) -> list[tuple[Version | None, str, Aggregate]]:
    """Each version's rows whatever routed them, with its role now; those that it was sent as a shadow stand apart.

    A request that was failed over is here twice: as a failure of who was drawn, and where it was answered.
    """
    found: dict[tuple[str, int, str, bool], list[Aggregate]] = {}
    for source, part in sums.items():
        key = (source.asset, source.version, source.digest, source.route == SHADOW)
        found.setdefault(key, []).append(part)
    sides = []
    for (asset, number, digest, is_shadow), parts in sorted(found.items()):
        version = Version(asset, number, digest) if asset else None
        sides.append((version, SHADOW if is_shadow else _role(group, version), merge(*parts)))
    return sides


def _sides(group: Group, sums: Mapping[Source, Aggregate]) -> tuple[Side, ...]:
    return tuple(Side(version, role, figures(rows)) for version, role, rows in by_side(group, sums))


def _role(group: Group, version: Version | None) -> str:
    if version is None:
        return "none"
    if version == group.champion:
        return "champion"
    return "challenger" if version in group.versions else "former"
