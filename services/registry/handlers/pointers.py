"""Aliases and stages: moved under If-Match with a reason, read as of any time, rolled back in one call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from services.registry.domain import assets, standing
from services.registry.domain.assets import Stage, Version
from services.registry.domain.standing import Protection
from services.registry.errors import AlreadyYanked, HeldBack, InUse, NothingBefore, PointerProtected
from services.registry.handlers import usage
from services.registry.search.facts import term
from services.registry.search.index import Index
from services.registry.store import Move, Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound, PreconditionFailed, PreconditionRequired
from shared.events.base import Actor
from shared.events.registry import AssetChanged
from shared.http import etag, matches
from shared.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class Expected:
    """The state that a change was decided on: the headers If-Match and If-None-Match."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check(self, current: str, *, exists: bool) -> None:
        """Raises PreconditionRequired without either header, PreconditionFailed when the state is another."""
        if self.if_none_match is not None:
            if self.if_none_match.strip() != "*":
                raise PreconditionFailed("If-None-Match takes * alone here: the pointer must not be there yet")
            if exists:
                raise PreconditionFailed(f"the pointer is there already, in state {current}", etag=current)
            return
        if self.if_match is None:
            raise PreconditionRequired(
                "send If-Match with the ETag that you read, or If-None-Match: * where nothing is there yet",
                etag=current,
            )
        if self.if_match.strip() == "*" and not exists:
            raise PreconditionFailed("If-Match: * wants a pointer that is there, and there is none", etag=current)
        matches(self.if_match, current)


class Pointers:
    """Every move holds the asset's row, so that moves of one asset are one after the other."""

    def __init__(self, database: Database, store: Store, index: Index, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._index = index
        self._clock = clock

    @asynccontextmanager
    async def _holding(self, caller: Principal, urn: str) -> AsyncIterator[Transaction]:
        async with self._database.begin(caller.workspace) as tx:
            if await self._store.versions.hold(tx, urn) is None:
                raise NotFound(f"there is no {urn}")
            yield tx

    async def protection(self, caller: Principal) -> Protection:
        """What policy protects, as it was last heard."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._store.pointers.protection(tx)

    # Aliases

    async def alias(self, caller: Principal, urn: str, alias: str, at: datetime | None) -> Move:
        """Where an alias points, or pointed at a moment. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            move = await self._store.pointers.alias(tx, urn, alias, at or self._clock())
        if move is None or move.after is None:
            raise NotFound(f"{urn} has no alias {alias!r}" + (f" at {at.isoformat()}" if at else ""))
        return move

    async def aliases(self, caller: Principal, urn: str, at: datetime | None) -> list[Move]:
        async with self._database.begin(caller.workspace) as tx:
            await self._there(tx, urn)
            return await self._store.pointers.aliases(tx, urn, at or self._clock())

    async def alias_history(self, caller: Principal, urn: str, alias: str, before: int, most: int) -> list[Move]:
        async with self._database.begin(caller.workspace) as tx:
            await self._there(tx, urn)
            return await self._store.pointers.alias_history(tx, urn, alias, before, most)

    async def set_alias(
        self, caller: Principal, urn: str, alias: str, version: int, reason: str, expected: Expected
    ) -> Move:
        """Point an alias at a version; where it points there already nothing is logged."""
        assets.check_alias(alias)
        async with self._holding(caller, urn) as tx:
            last = await self._store.pointers.alias(tx, urn, alias, self._clock())
            expected.check(alias_etag(urn, alias, last), exists=last is not None and last.after is not None)
            wanted = await self._seen(tx, urn, version)
            if last is not None and last.after == version:
                return last
            await self._guard_alias(tx, alias, wanted)
            return await self._move_alias(tx, urn, alias, last, version, caller.actor, reason)

    async def remove_alias(self, caller: Principal, urn: str, alias: str, reason: str, expected: Expected) -> Move:
        async with self._holding(caller, urn) as tx:
            last = await self._store.pointers.alias(tx, urn, alias, self._clock())
            if last is None or last.after is None:
                raise NotFound(f"{urn} has no alias {alias!r}")
            expected.check(alias_etag(urn, alias, last), exists=True)
            await self._keep_protected(tx, alias)
            return await self._move_alias(tx, urn, alias, last, None, caller.actor, reason)

    async def roll_back_alias(self, caller: Principal, urn: str, alias: str, reason: str) -> Move:
        """Back to where the alias pointed before its last move. Raises NothingBefore."""
        async with self._holding(caller, urn) as tx:
            last = await self._store.pointers.alias(tx, urn, alias, self._clock())
            if last is None or last.before is None:
                raise NothingBefore(f"alias {alias!r} of {urn} pointed nowhere before its last move")
            await self._guard_alias(tx, alias, await self._seen(tx, urn, last.before))
            return await self._move_alias(tx, urn, alias, last, last.before, caller.actor, reason)

    async def _keep_protected(self, tx: Transaction, alias: str) -> None:
        """Raises PointerProtected for an alias that is protected, where one wants to remove it."""
        if alias in (await self._store.pointers.protection(tx)).aliases:
            raise PointerProtected(f"alias {alias!r} is protected: it moves to another version, and is never removed")

    async def _guard_alias(self, tx: Transaction, alias: str, version: Version) -> None:
        """Raises PointerProtected where the alias is protected and the version was not let through, or HeldBack."""
        await self._require_free(tx, version)
        if alias in (await self._store.pointers.protection(tx)).aliases:
            await self._require_let_through(tx, f"alias {alias!r}", version)

    async def _require_free(self, tx: Transaction, version: Version) -> None:
        """Raises HeldBack for a version in a format that two people have to sign for."""
        artefact, now = version.content["artefact"], self._clock()
        if standing.why_held_back(artefact, (), now) is not None:
            findings = await self._store.graph.findings(tx, version.ref.urn, version.ref.version)
            why = standing.why_held_back(artefact, findings, now)
            if why is not None:
                raise HeldBack(f"{version.ref} is held back: {why}")

    async def _require_let_through(self, tx: Transaction, pointer: str, version: Version) -> None:
        findings = await self._store.graph.findings(tx, version.ref.urn, version.ref.version)
        why_not = standing.why_not_let_through(version.content["kind"], findings, self._clock())
        if why_not is not None:
            raise PointerProtected(f"{pointer} is protected, and {version.ref} was not let through: {why_not}")

    async def _move_alias(
        self, tx: Transaction, urn: str, alias: str, last: Move | None, after: int | None, who: Actor, reason: str
    ) -> Move:
        before = last.after if last else None
        revision = last.revision + 1 if last else 1
        move = Move(alias, after, revision, before, after, who, reason, self._after(last))
        await self._store.pointers.move(tx, urn, move)
        for version, gone, come in ((before, [alias], []), (after, [], [alias])):
            if version is not None:
                moved = await self._one(tx, urn, version)
                await self._index.change(
                    tx, moved.number,
                    gone=[term("alias", name) for name in gone], come=[term("alias", name) for name in come],
                    at=move.at,
                )  # fmt: skip
        self._say(tx, urn, move, "alias")
        return move

    async def move_alias(
        self, tx: Transaction, urn: str, alias: str, after: int | None, who: Actor, reason: str
    ) -> None:
        """The same for an asset that is held, whatever state the alias is in; None removes it."""
        last = await self._store.pointers.alias(tx, urn, alias, self._clock())
        if (last.after if last else None) == after:
            return
        if after is None:
            await self._keep_protected(tx, alias)
        else:
            await self._guard_alias(tx, alias, await self._seen(tx, urn, after))
        await self._move_alias(tx, urn, alias, last, after, who, reason)

    # Stages

    async def move_stage(self, tx: Transaction, urn: str, version: int, stage: str, who: Actor, reason: str) -> None:
        """Move a version of an asset that is held, whatever stage it is in; a retired one by way of staging."""
        last = await self._store.pointers.stage(tx, urn, version, self._clock())
        if (last.after if last else "development") == stage:
            return
        moving = await self._one(tx, urn, version)
        if last is not None and last.after == "retired" and stage not in ("development", "staging"):
            last = await self._enter(tx, moving, last, "staging", who, reason)
        await self._enter(tx, moving, last, stage, who, reason)

    async def came_to_stage(
        self, tx: Transaction, urn: str, version: int, stage: str, at: datetime, who: Actor, reason: str
    ) -> None:
        """The same for a move that another registry made at a moment. Who was in production later stays there."""
        last = await self._store.pointers.stage(tx, urn, version, self._clock())
        if (last.after if last else "development") == stage:
            return
        moving = await self._one(tx, urn, version)
        later = await self._store.pointers.in_stage(tx, urn, stage, self._clock()) if stage == "production" else []
        if last is not None and last.after == "retired" and stage not in ("development", "staging"):
            last = await self._enter(tx, moving, last, "staging", who, reason, at)
        if later and later[0].at > at:
            await self._guard_stage(tx, stage, moving)
            last = await self._move_stage(tx, moving, last, stage, who, reason, at)
            why = f"version {later[0].version} took its place: {reason}"[:4000]
            await self._enter(tx, moving, last, "monitoring", who, why, later[0].at)
            return
        await self._enter(tx, moving, last, stage, who, reason, at)

    async def stage(self, caller: Principal, urn: str, version: int) -> Move | None:
        """The last move of a version; None while it is in development."""
        async with self._database.begin(caller.workspace) as tx:
            await self._one(tx, urn, version)
            return await self._store.pointers.stage(tx, urn, version, self._clock())

    async def stage_history(self, caller: Principal, urn: str, version: int, before: int, most: int) -> list[Move]:
        async with self._database.begin(caller.workspace) as tx:
            await self._one(tx, urn, version)
            return await self._store.pointers.stage_history(tx, urn, version, before, most)

    async def set_stage(
        self, caller: Principal, urn: str, version: int, stage: Stage, reason: str, expected: Expected
    ) -> Move:
        """Move a version to a stage. One that enters production sends the one that was there to monitoring."""
        async with self._holding(caller, urn) as tx:
            moving = await self._seen(tx, urn, version)
            last = await self._store.pointers.stage(tx, urn, version, self._clock())
            expected.check(stage_etag(urn, version, last), exists=True)
            return await self._enter(tx, moving, last, stage, caller.actor, reason)

    async def production(self, caller: Principal, urn: str, at: datetime | None) -> Move:
        """The move by which the version that is (or at a moment was) in production came there. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            await self._there(tx, urn)
            found = await self._store.pointers.in_stage(tx, urn, "production", at or self._clock())
        if not found:
            raise NotFound(
                f"no version of {urn} " + (f"was in production at {at.isoformat()}" if at else "is in production")
            )
        return found[0]

    async def roll_back_production(self, caller: Principal, urn: str, reason: str) -> Move:
        """The version that was in production before the present one is there again. Raises NothingBefore."""
        async with self._holding(caller, urn) as tx:
            present = await self._store.pointers.in_stage(tx, urn, "production", self._clock())
            current = present[0].version if present else None
            earlier = await self._store.pointers.left_stage(tx, urn, "production", current or 0)
            if earlier is None or earlier.version is None:
                raise NothingBefore(f"no other version of {urn} was in production before")
            moving = await self._seen(tx, urn, earlier.version)
            last = await self._store.pointers.stage(tx, urn, earlier.version, self._clock())
            return await self._enter(tx, moving, last, "production", caller.actor, reason)

    async def _enter(
        self,
        tx: Transaction,
        moving: Version,
        last: Move | None,
        stage: str,
        who: Actor,
        reason: str,
        at: datetime | None = None,
    ) -> Move:
        assets.check_stage_move(last.after if last else "development", stage)
        if stage not in ("development", "retired"):
            await self._require_free(tx, moving)
        await self._guard_stage(tx, stage, moving)
        if stage == "retired":
            needing = await usage.users(self._store, tx, moving, self._clock())
            if needing:
                raise InUse(f"{moving.ref} is used by {', '.join(needing[:20])}", used_by=needing)
        if stage == "production":
            for there in await self._store.pointers.in_stage(tx, moving.ref.urn, "production", self._clock()):
                if there.version is not None:
                    why = f"version {moving.ref.version} took its place: {reason}"[:4000]
                    leaving = await self._one(tx, moving.ref.urn, there.version)
                    await self._move_stage(tx, leaving, there, "monitoring", who, why, at)
        return await self._move_stage(tx, moving, last, stage, who, reason, at)

    async def _guard_stage(self, tx: Transaction, stage: str, version: Version) -> None:
        """Raises PointerProtected where the stage is protected and the version was not let through."""
        if stage in (await self._store.pointers.protection(tx)).stages:
            await self._require_let_through(tx, f"stage {stage}", version)

    async def _move_stage(
        self,
        tx: Transaction,
        moved: Version,
        last: Move | None,
        after: str,
        who: Actor,
        reason: str,
        at: datetime | None = None,
    ) -> Move:
        before = last.after if last else "development"
        revision = last.revision + 1 if last else 1
        move = Move(None, moved.ref.version, revision, before, after, who, reason, self._after(last, at))
        await self._store.pointers.move(tx, moved.ref.urn, move)
        await self._index.change(
            tx, moved.number, gone=[term("stage", before)], come=[term("stage", after)], at=move.at
        )
        self._say(tx, moved.ref.urn, move, "stage")
        return move

    def _after(self, last: Move | None, at: datetime | None = None) -> datetime:
        """Now or at a moment, but never before the last move: two machines' clocks may differ."""
        moment = at or self._clock()
        return max(moment, last.at) if last else moment

    def _say(self, tx: Transaction, urn: str, move: Move, change: Literal["alias", "stage"]) -> None:
        tx.emit(
            AssetChanged(
                urn=urn,
                change=change,
                version=move.version,
                name=move.name,
                before=move.before,
                after=move.after,
                reason=move.reason,
                actor=move.who,
                at=move.at,
            )
        )

    async def _one(self, tx: Transaction, urn: str, version: int) -> Version:
        found = await self._store.versions.one(tx, urn, version)
        if found is None:
            raise NotFound(f"there is no {urn}@{version}")
        return found

    async def _seen(self, tx: Transaction, urn: str, version: int) -> Version:
        """A version that pointers may move to. Raises NotFound or AlreadyYanked."""
        found = await self._one(tx, urn, version)
        if found.yanked_at is not None:
            raise AlreadyYanked(f"{found.ref} was yanked at {found.yanked_at.isoformat()}")
        return found

    async def _there(self, tx: Transaction, urn: str) -> None:
        if await self._store.versions.asset(tx, urn) is None:
            raise NotFound(f"there is no {urn}")


def alias_etag(urn: str, alias: str, last: Move | None) -> str:
    """The ETag of an alias as it stands; there is one where it was never set, too."""
    return etag(["alias", urn, alias, last.revision if last else 0])


def stage_etag(urn: str, version: int, last: Move | None) -> str:
    """The ETag of a version's stage as it stands."""
    return etag(["stage", urn, version, last.revision if last else 0])
