"""Aliases and stages: moved under If-Match with a reason, read as of any time, rolled back in one call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from services.registry.domain import assets
from services.registry.domain.assets import Stage, Version
from services.registry.errors import NothingBefore
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

    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock

    @asynccontextmanager
    async def _holding(self, caller: Principal, urn: str) -> AsyncIterator[Transaction]:
        async with self._database.begin(caller.workspace) as tx:
            if not await self._store.versions.hold(tx, urn):
                raise NotFound(f"there is no {urn}")
            yield tx

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
            await self._newest(tx, urn)
            return await self._store.pointers.aliases(tx, urn, at or self._clock())

    async def alias_history(self, caller: Principal, urn: str, alias: str, before: int, most: int) -> list[Move]:
        async with self._database.begin(caller.workspace) as tx:
            await self._newest(tx, urn)
            return await self._store.pointers.alias_history(tx, urn, alias, before, most)

    async def set_alias(
        self, caller: Principal, urn: str, alias: str, version: int, reason: str, expected: Expected
    ) -> Move:
        """Point an alias at a version; where it points there already nothing is logged."""
        assets.check_alias(alias)
        async with self._holding(caller, urn) as tx:
            last = await self._store.pointers.alias(tx, urn, alias, self._clock())
            expected.check(alias_etag(urn, alias, last), exists=last is not None and last.after is not None)
            await self._one(tx, urn, version)
            if last is not None and last.after == version:
                return last
            return await self._move_alias(tx, urn, alias, last, version, caller.actor, reason)

    async def remove_alias(self, caller: Principal, urn: str, alias: str, reason: str, expected: Expected) -> Move:
        async with self._holding(caller, urn) as tx:
            last = await self._store.pointers.alias(tx, urn, alias, self._clock())
            if last is None or last.after is None:
                raise NotFound(f"{urn} has no alias {alias!r}")
            expected.check(alias_etag(urn, alias, last), exists=True)
            return await self._move_alias(tx, urn, alias, last, None, caller.actor, reason)

    async def roll_back_alias(self, caller: Principal, urn: str, alias: str, reason: str) -> Move:
        """Back to where the alias pointed before its last move. Raises NothingBefore."""
        async with self._holding(caller, urn) as tx:
            last = await self._store.pointers.alias(tx, urn, alias, self._clock())
            if last is None or last.before is None:
                raise NothingBefore(f"alias {alias!r} of {urn} pointed nowhere before its last move")
            return await self._move_alias(tx, urn, alias, last, last.before, caller.actor, reason)

    async def _move_alias(
        self, tx: Transaction, urn: str, alias: str, last: Move | None, after: int | None, who: Actor, reason: str
    ) -> Move:
        before = last.after if last else None
        revision = last.revision + 1 if last else 1
        move = Move(alias, after, revision, before, after, who, reason, self._after(last))
        await self._store.pointers.move(tx, urn, move)
        self._say(tx, urn, move, "alias")
        return move

    # Stages

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
            await self._one(tx, urn, version)
            last = await self._store.pointers.stage(tx, urn, version, self._clock())
            expected.check(stage_etag(urn, version, last), exists=True)
            return await self._enter(tx, urn, version, last, stage, caller.actor, reason)

    async def production(self, caller: Principal, urn: str, at: datetime | None) -> Move:
        """The move by which the version that is (or at a moment was) in production came there. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            await self._newest(tx, urn)
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
            last = await self._store.pointers.stage(tx, urn, earlier.version, self._clock())
            return await self._enter(tx, urn, earlier.version, last, "production", caller.actor, reason)

    async def _enter(
        self, tx: Transaction, urn: str, version: int, last: Move | None, stage: str, who: Actor, reason: str
    ) -> Move:
        assets.check_stage_move(last.after if last else "development", stage)
        if stage == "production":
            for there in await self._store.pointers.in_stage(tx, urn, "production", self._clock()):
                if there.version is not None:
                    why = f"version {version} took its place: {reason}"[:4000]
                    await self._move_stage(tx, urn, there.version, there, "monitoring", who, why)
        return await self._move_stage(tx, urn, version, last, stage, who, reason)

    async def _move_stage(
        self, tx: Transaction, urn: str, version: int, last: Move | None, after: str, who: Actor, reason: str
    ) -> Move:
        before = last.after if last else "development"
        revision = last.revision + 1 if last else 1
        move = Move(None, version, revision, before, after, who, reason, self._after(last))
        await self._store.pointers.move(tx, urn, move)
        await self._store.versions.swap_term(tx, await self._one(tx, urn, version), f"stage:{before}", f"stage:{after}")
        self._say(tx, urn, move, "stage")
        return move

    def _after(self, last: Move | None) -> datetime:
        """Now, but never before the last move: two machines' clocks may differ."""
        return max(self._clock(), last.at) if last else self._clock()

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

    async def _newest(self, tx: Transaction, urn: str) -> None:
        if not await self._store.versions.before(tx, urn, 2**31 - 1, 1):
            raise NotFound(f"there is no {urn}")


def alias_etag(urn: str, alias: str, last: Move | None) -> str:
    """The ETag of an alias as it stands; there is one where it was never set, too."""
    return etag(["alias", urn, alias, last.revision if last else 0])


def stage_etag(urn: str, version: int, last: Move | None) -> str:
    """The ETag of a version's stage as it stands."""
    return etag(["stage", urn, version, last.revision if last else 0])
