"""Ramps: begun, paused, resumed and aborted by people; moved on by the worker, one step a transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from services.router.comparison.aggregates import BY_WEIGHT, Aggregate
from services.router.comparison.differences import Strata
from services.router.comparison.estimates import metric_of
from services.router.comparison.ledger import Ledger, Source, summed
from services.router.domain import Version
from services.router.errors import AlreadyChampion, NoRamp, RampRefused, RampRunning
from services.router.handlers.comparisons import SHADOW, experiment, split, strata
from services.router.handlers.groups import By, Groups, Named
from services.router.ramps import machine
from services.router.ramps.bandit import thompson_weights
from services.router.ramps.machine import (
    NOTHING,
    Action,
    Advanced,
    Evidence,
    Note,
    Phase,
    Promote,
    SetMirror,
    SetWeight,
    SetWeights,
    State,
    TakeBack,
    Why,
)
from services.router.ramps.measure import earned, pooled, readings
from services.router.ramps.plan import Asset, BanditPlan, SteppedPlan
from services.router.ramps.store import Entry, Ramp, RampStore
from services.router.store import Entry as GroupEntry
from services.router.store import Store
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database, Transaction
from shared.errors import Conflict, Refused
from shared.ids import new_id

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=30)
CLAIM_MOST = 20
MOST_ENTRIES = 500


@dataclass(frozen=True, slots=True)
class Told:
    """A ramp and its log, the latest first."""

    ramp: Ramp
    log: list[Entry]


class Ramps:
    """A step's change of the group and the ramp's new state commit together, so that neither is ever without the
    other; the lease only keeps a ramp whose step fails from being tried again at once, and by several."""

    def __init__(
        self, database: Database, store: Store, ledger: Ledger, ramps: RampStore, groups: Groups, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._ledger = ledger
        self._ramps = ramps
        self._groups = groups
        self._clock = clock

    # -- people

    async def start(self, by: By, group: str, plan: SteppedPlan | BanditPlan) -> Ramp:
        """Raises UnknownGroup, RevisionConflict, AlreadyChampion, NotDeployed, NotApproved, RampRunning."""
        named = plan.challengers if isinstance(plan, BanditPlan) else (plan.challenger,)
        try:
            async with self._database.begin(by.workspace) as tx:
                entry = await self._groups.find_current(tx, by, group)
                for asset in named:
                    version = (await self._groups.allowed(tx, _named(asset), entry.group)).version
                    if version == entry.group.champion:
                        raise AlreadyChampion(group, str(version))
                now = self._clock()
                state, revision = State(entered_at=now), entry.group.revision
                ramp = Ramp(new_id(), by.workspace, group, plan, state, revision, revision, by.actor, now, now)
                await self._ramps.add(tx, ramp)
                await self._ramps.log(tx, ramp, now, [Note("started", {"by": by.actor.id, "reason": by.reason})])
                return ramp
        except asyncpg.UniqueViolationError:
            raise RampRunning() from None

    async def told(self, workspace: str, group: str) -> Told:
        """The group's ramp, or the one that it had last. Raises UnknownGroup, NoRamp."""
        async with self._database.begin(workspace) as tx:
            await self._groups.find(tx, group)
            ramp = await self._ramps.latest(tx, group)
            if ramp is None:
                raise NoRamp(f"The group {group!r} has had no ramp yet.")
            return Told(ramp, await self._ramps.entries(tx, ramp, MOST_ENTRIES))

    async def pause(self, by: By, group: str) -> Ramp:
        """Raises UnknownGroup, NoRamp, RampRefused when it is paused already."""
        async with self._database.begin(by.workspace) as tx:
            ramp = await self._running(tx, group)
            if ramp.state.phase is Phase.PAUSED:
                raise RampRefused("The ramp is paused already.")
            return await self._moved(tx, ramp, machine.pause(ramp.state, self._clock(), by.actor.id))

    async def resume(self, by: By, group: str) -> Ramp:
        """Go on from the group as it is now. Raises UnknownGroup, NoRamp, RampRefused when it is not paused."""
        async with self._database.begin(by.workspace) as tx:
            ramp = await self._running(tx, group)
            if ramp.state.phase is not Phase.PAUSED:
                raise RampRefused("The ramp is not paused.")
            entry = await self._groups.find(tx, group)
            now = self._clock()
            resumed = machine.resume(ramp.state, now, by.actor.id)
            ramp = await self._moved(tx, replace(ramp, revision=entry.group.revision), resumed)
            ramp = replace(ramp, next_at=now)
            await self._ramps.save(tx, ramp)
            return ramp

    async def abort(self, by: By, group: str) -> Ramp:
        """End it and take the challenger's traffic back. A bandit's weights stay. Raises UnknownGroup, NoRamp."""
        async with self._database.begin(by.workspace) as tx:
            ramp = await self._running(tx, group)
            return await self._moved(tx, ramp, machine.abort(ramp.state, by.actor.id))

    async def _running(self, tx: Transaction, group: str) -> Ramp:
        await self._groups.find(tx, group)
        ramp = await self._ramps.running(tx, group)
        if ramp is None:
            raise NoRamp(f"The group {group!r} has no ramp that is not over.")
        return ramp

    # -- the worker

    async def claim(self, owner: UUID) -> list[tuple[UUID, str]]:
        """(id, workspace) of ramps with something to do, the owner's for LEASE."""
        now = self._clock()
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            return await self._ramps.claim(tx, owner, now, now + LEASE, CLAIM_MOST)

    async def step(self, ramp_id: UUID, workspace: str, owner: UUID) -> None:
        """Move a claimed ramp on. What the group refuses is told in the ramp's log and tried again, not for ever."""
        try:
            async with self._database.begin(workspace) as tx:
                ramp = await self._ramps.held(tx, ramp_id, owner)
                if ramp is not None:
                    await self._moved(tx, ramp, await self._advanced(tx, ramp))
        except Refused as refused:
            async with self._database.begin(workspace) as tx:
                ramp = await self._ramps.held(tx, ramp_id, owner)
                if ramp is not None:
                    await self._refused(tx, ramp, refused)

    async def _advanced(self, tx: Transaction, ramp: Ramp) -> Advanced:
        now = self._clock()
        entry, weights, first = await experiment(tx, self._store, ramp.group)
        if entry.group.revision != ramp.revision:
            reason = f"{entry.who} changed the group at revision {entry.group.revision}"
            return machine.held(ramp.state, now, Why.CHANGED, reason)
        sums = await asyncio.to_thread(summed, await self._ledger.stored(tx, ramp.group, None, None, now))
        if isinstance(ramp.plan, BanditPlan):
            lasts = ramp.plan.duration
            if lasts is not None and now >= ramp.created_at + lasts:
                return Advanced(ramp.state.model_copy(update={"phase": Phase.COMPLETED}), (Note("completed"),))
            return await asyncio.to_thread(_drawn, ramp, ramp.plan, entry, sums)
        ratio = await asyncio.to_thread(split, sums, weights, max(first, ramp.first_revision))
        mismatch = None
        if ratio.is_mismatch:
            mismatch = f"the versions did not get the shares of traffic that their weights say (p = {ratio.p:.1g})"
        evidence = await self._evidence(tx, ramp, ramp.plan, entry, sums)
        return machine.advance(ramp.plan, ramp.state, now, evidence._replace(mismatch=mismatch))

    async def _evidence(
        self, tx: Transaction, ramp: Ramp, plan: SteppedPlan, entry: GroupEntry, sums: Mapping[Source, Aggregate]
    ) -> Evidence:
        """Readings of the analyses that are due."""
        due = [analysis for _, analysis in machine.due_analyses(plan, ramp.state, self._clock())]
        if not due:
            return NOTHING
        promoted = ramp.state.promoted_revision
        if promoted is None:
            champion, challenger = entry.group.champion, _version_of(entry, plan.challenger)
            route = BY_WEIGHT if ramp.state.weight_bp else SHADOW
            old: Strata = strata(sums, champion, ramp.first_revision)
            new: Strata = strata(sums, challenger, ramp.first_revision, route) if challenger else {}
        else:
            before = await self._store.group_revision(tx, ramp.group, promoted - 1)
            assert before is not None, "revisions stay in the log"
            old = pooled(strata(sums, before.group.champion, ramp.first_revision, last=promoted - 1))
            new = pooled(strata(sums, entry.group.champion, promoted))
        return Evidence(await asyncio.to_thread(readings, due, old, new, plan.alpha))

    async def _moved(self, tx: Transaction, ramp: Ramp, advanced: Advanced) -> Ramp:
        """Apply the actions, write the log, store the state."""
        now = self._clock()
        state, revision = advanced.state.model_copy(update={"errors": 0}), ramp.revision
        notes: list[Note] = []
        for action in advanced.actions:
            if isinstance(action, Note):
                notes.append(action)
                continue
            entry, note = await self._apply(tx, ramp, action)
            notes.append(note)
            if entry is not None:
                revision = entry.group.revision
                if isinstance(action, Promote):
                    state = state.model_copy(update={"promoted_revision": revision})
        next_at = None
        if isinstance(ramp.plan, BanditPlan):
            next_at = now + ramp.plan.interval if state.phase is Phase.RUNNING else None
        else:
            next_at = machine.next_at(ramp.plan, state, now)
        after = replace(ramp, state=state, revision=revision, next_at=next_at)
        await self._ramps.save(tx, after)
        await self._ramps.log(tx, after, now, notes)
        return after

    async def _apply(self, tx: Transaction, ramp: Ramp, action: Action) -> tuple[GroupEntry | None, Note]:
        """Change the group. (None, …) where nothing had to be changed."""
        by = By(ramp.workspace, ramp.actor, f"ramp {ramp.id}")
        if isinstance(ramp.plan, BanditPlan):
            return await self._apply_bandit(tx, by, ramp.group, ramp.plan, action)
        named = _named(ramp.plan.challenger)
        if isinstance(action, SetWeight):
            weighted = await self._weigh(tx, by, ramp.group, named, action.weight_bp)
            return weighted, Note("weighted", {"weight_bp": action.weight_bp, "revision": weighted.group.revision})
        if isinstance(action, SetMirror):
            mirrored = await self._mirror(tx, by, ramp.group, named, action.share_bp)
            return mirrored, Note("mirrored", {"share_bp": action.share_bp, "revision": mirrored.group.revision})
        if isinstance(action, Promote):
            promoted = await self._groups.promote_in(tx, by, ramp.group, named)
            return promoted, Note("promoted", {"revision": promoted.group.revision})
        assert isinstance(action, TakeBack)
        return await self._take_back(
            tx, replace(by, reason=f"ramp {ramp.id}: {action.reason}"), ramp.group, named, action
        )

    async def _apply_bandit(
        self, tx: Transaction, by: By, group: str, plan: BanditPlan, action: Action
    ) -> tuple[GroupEntry | None, Note]:
        """Challengers that are not the plan's are out; at its end the weights stay as they are."""
        if not isinstance(action, SetWeights):
            return None, Note("ended", {"reason": action.reason} if isinstance(action, TakeBack) else {})
        weights = [(_named(asset), weight) for asset, weight in zip(plan.challengers, action.weights_bp, strict=True)]
        entry = await self._groups.weigh_in(tx, by, group, weights)
        return entry, Note("weighted", {"weights_bp": list(action.weights_bp), "revision": entry.group.revision})

    async def _take_back(
        self, tx: Transaction, by: By, group: str, named: Named, action: TakeBack
    ) -> tuple[GroupEntry | None, Note]:
        entry: GroupEntry | None = None
        now = await self._groups.find(tx, group)
        if action.promoted and _is(now.group.champion, named):
            entry = await self._groups.roll_back_in(tx, by, group)
        else:
            if any(_is(one.version, named) for one in now.group.challengers):
                entry = await self._weigh(tx, by, group, named, 0)
            if any(_is(one.version, named) for one in now.group.shadows):
                entry = await self._mirror(tx, by, group, named, 0)
        revision = entry.group.revision if entry else now.group.revision
        return entry, Note("taken back", {"reason": action.reason, "revision": revision})

    async def _weigh(self, tx: Transaction, by: By, group: str, named: Named, weight_bp: int) -> GroupEntry:
        """The others keep their weights; with none the challenger is out."""
        now = (await self._groups.find(tx, group)).group
        others = [(_exactly(one.version), one.weight_bp) for one in now.challengers if not _is(one.version, named)]
        return await self._groups.weigh_in(tx, by, group, [*others, *([(named, weight_bp)] if weight_bp else [])])

    async def _mirror(self, tx: Transaction, by: By, group: str, named: Named, share_bp: int) -> GroupEntry:
        now = (await self._groups.find(tx, group)).group
        others = [(_exactly(one.version), one.share_bp) for one in now.shadows if not _is(one.version, named)]
        return await self._groups.mirror_in(tx, by, group, [*others, *([(named, share_bp)] if share_bp else [])])

    async def _refused(self, tx: Transaction, ramp: Ramp, refused: Refused) -> None:
        now = self._clock()
        errors = ramp.state.errors + 1
        notes = [Note("refused", {"code": refused.code, "reason": refused.message})]
        state = ramp.state.model_copy(update={"errors": errors})
        next_at: datetime | None = now + timedelta(seconds=2**errors)
        # A lost race is nobody's fault; anything else a person has to look at, and soon.
        if errors >= machine.MANY_ERRORS or not isinstance(refused, Conflict):
            paused = machine.held(state, now, Why.ERRORS, refused.message)
            state, next_at = paused.state, None
            notes += [action for action in paused.actions if isinstance(action, Note)]
        await self._ramps.save(tx, replace(ramp, state=state, next_at=next_at))
        await self._ramps.log(tx, ramp, now, notes)


def _drawn(ramp: Ramp, plan: BanditPlan, entry: GroupEntry, sums: Mapping[Source, Aggregate]) -> Advanced:
    """A bandit's next weights, or its end; pure."""
    now_at, state = entry.group, ramp.state
    metric = metric_of(plan.metric, plan.better)
    assert metric is not None, "the plan was validated"
    arms: list[Version | None] = [now_at.champion, *(_version_of(entry, asset) for asset in plan.challengers)]
    results = [earned(metric, strata(sums, arm, ramp.first_revision) if arm else {}) for arm in arms]
    weights = thompson_weights(
        results,
        floor_bp=round(plan.floor * 100),
        higher_is_better=metric.sign > 0,
        seed=ramp.id.int % 2**32 + state.rounds,
    )
    note = Note(
        "drawn", {"n": [round(one.n) for one in results], "mean": [one.mean if one.n else None for one in results]}
    )
    after = state.model_copy(update={"rounds": state.rounds + 1})
    return Advanced(after, (note, SetWeights(tuple(weights[1:]))))


def _named(asset: Asset) -> Named:
    return Named(asset.urn, asset.version, asset.digest)


def _exactly(version: Version) -> Named:
    return Named(version.urn, version.version, version.digest)


def _is(version: Version, named: Named) -> bool:
    return (version.urn, version.version) == (named.urn, named.version)


def _version_of(entry: GroupEntry, asset: Asset) -> Version | None:
    """The version as the group has it, None while it gets no traffic."""
    group = entry.group
    there = [*group.versions, *(shadow.version for shadow in group.shadows)]
    return next((version for version in there if _is(version, _named(asset))), None)
