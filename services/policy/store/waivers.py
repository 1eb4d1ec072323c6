"""Waivers and what is protected, as values, and back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from services.policy.store.decisions import Row
from shared.db.database import Transaction
from shared.events.base import Actor, AssetRef
from shared.events.policy import Envelope as Statement

Status = Literal["proposed", "signed", "refused", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Waiver:
    """A proposal and what became of it; `signer` is the second person, once there is one."""

    id: int
    waiver_id: UUID
    asset: AssetRef
    measure: str
    observed: float | None
    reason: str
    proposer: Actor
    proposed_at: datetime
    expires_at: datetime
    status: Status
    signer: Actor | None
    decider: Actor | None
    decision_reason: str | None
    decided_at: datetime | None
    statement: dict[str, Any] | None


class WaiverStore:
    """Tables waiver, waiver_decision and protection."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    async def propose(self, tx: Transaction, waiver: Waiver) -> None:
        await self._sql.add_waiver(
            tx.connection,
            workspace=tx.workspace,
            waiver_id=waiver.waiver_id,
            urn=waiver.asset.urn,
            version=waiver.asset.version,
            digest=waiver.asset.digest,
            measure=waiver.measure,
            observed=waiver.observed,
            reason=waiver.reason,
            proposer=waiver.proposer.model_dump(),
            proposed_at=waiver.proposed_at,
            expires_at=waiver.expires_at,
        )

    async def one(self, tx: Transaction, waiver_id: UUID, *, lock: bool = False) -> Waiver | None:
        """A waiver, or None; nobody else decides about it until the transaction ends, when asked."""
        if lock:
            await self._sql.lock_waiver(tx.connection, workspace=tx.workspace, waiver_id=str(waiver_id))
        row = await self._sql.waiver(tx.connection, workspace=tx.workspace, waiver_id=waiver_id)
        return None if row is None else _waiver(row)

    async def listed(
        self, tx: Transaction, urn: str | None, status: str | None, now: datetime, after: int | None, most: int
    ) -> list[Waiver]:
        rows = self._sql.waivers(
            tx.connection, workspace=tx.workspace, urn=urn, status=status, now=now, after=after, most=most
        )
        return [_waiver(row) async for row in rows]

    async def in_force(self, tx: Transaction, asset: AssetRef, now: datetime) -> list[Row]:
        """Rows of signed waivers of this very version (its digest too), the longest first."""
        rows = self._sql.waivers_in_force(
            tx.connection, workspace=tx.workspace, urn=asset.urn, version=asset.version, now=now
        )
        return [row async for row in rows if row["digest"] == asset.digest]

    async def decide(
        self,
        tx: Transaction,
        waiver_id: UUID,
        decision: Status,
        actor: Actor,
        reason: str,
        statement: Statement | None,
        at: datetime,
    ) -> None:
        await self._sql.add_waiver_decision(
            tx.connection,
            workspace=tx.workspace,
            waiver_id=waiver_id,
            decision=decision,
            actor=actor.model_dump(),
            reason=reason,
            statement=statement.model_dump(by_alias=True) if statement else None,
            decided_at=at,
        )

    async def lock_protection(self, tx: Transaction) -> None:
        await self._sql.lock_protection(tx.connection, workspace=tx.workspace)

    async def protection(self, tx: Transaction, at: datetime | None = None) -> Row | None:
        row: Row | None = await self._sql.protection(tx.connection, workspace=tx.workspace, at=at)
        return row

    async def protections(self, tx: Transaction) -> list[Row]:
        return [row async for row in self._sql.protections(tx.connection, workspace=tx.workspace)]

    async def protect(
        self,
        tx: Transaction,
        number: int,
        document: dict[str, Any],
        digest: str,
        actor: Actor,
        reason: str,
        at: datetime,
    ) -> None:
        await self._sql.add_protection(
            tx.connection,
            workspace=tx.workspace,
            number=number,
            document=document,
            digest=digest,
            actor=actor.model_dump(),
            reason=reason,
            published_at=at,
        )


def _waiver(row: Row) -> Waiver:
    def actor(column: str) -> Actor | None:
        return Actor.model_validate(row[column]) if row[column] else None

    return Waiver(
        id=row["id"],
        waiver_id=row["waiver_id"],
        asset=AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"]),
        measure=row["measure"],
        observed=row["observed"],
        reason=row["reason"],
        proposer=Actor.model_validate(row["proposer"]),
        proposed_at=row["proposed_at"],
        expires_at=row["expires_at"],
        status=row["decision"] or "proposed",
        signer=actor("signer"),
        decider=actor("decider"),
        decision_reason=row["decision_reason"],
        decided_at=row["decided_at"],
        statement=row["statement"],
    )
