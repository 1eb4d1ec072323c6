"""Rows of ramps and of their logs as values, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import TypeAdapter

from services.router.ramps.machine import Note, State
from services.router.ramps.plan import BanditPlan, Plan, SteppedPlan
from shared.db.database import Transaction
from shared.events.base import Actor

_PLAN: TypeAdapter[SteppedPlan | BanditPlan] = TypeAdapter(Plan)


@dataclass(frozen=True, slots=True)
class Ramp:
    """A plan, how far it is, who answers for it, and which revisions of the group are its own."""

    id: UUID
    workspace: str
    group: str
    plan: SteppedPlan | BanditPlan
    state: State
    revision: int
    first_revision: int
    actor: Actor
    created_at: datetime
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a ramp's log."""

    at: datetime
    what: str
    details: dict[str, Any]


class RampStore:
    """Reads and writes in a transaction that it is given; `queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    async def add(self, tx: Transaction, ramp: Ramp) -> None:
        """A group that has a ramp already is a UniqueViolationError."""
        await self._sql.insert_ramp(
            tx.connection, id=ramp.id, workspace=tx.workspace, group_name=ramp.group, plan=_json(ramp.plan),
            state=_json(ramp.state), phase=ramp.state.phase.value, revision=ramp.revision, who=ramp.actor.id,
            who_proven=ramp.actor.proven, created_at=ramp.created_at, next_at=ramp.next_at,
        )  # fmt: skip

    async def save(self, tx: Transaction, ramp: Ramp) -> None:
        """State, revision and what is next; the lease is given back."""
        await self._sql.save_ramp(
            tx.connection, id=ramp.id, state=_json(ramp.state), phase=ramp.state.phase.value, revision=ramp.revision,
            next_at=ramp.next_at,
        )  # fmt: skip

    async def latest(self, tx: Transaction, group: str) -> Ramp | None:
        row = await self._sql.latest_ramp(tx.connection, group_name=group)
        return None if row is None else _ramp(row)

    async def running(self, tx: Transaction, group: str) -> Ramp | None:
        """The one that is not over, locked until the transaction ends."""
        row = await self._sql.lock_running_ramp(tx.connection, group_name=group)
        return None if row is None else _ramp(row)

    async def claim(
        self, tx: Transaction, owner: UUID, now: datetime, lease_until: datetime, most: int
    ) -> list[tuple[UUID, str]]:
        """(id, workspace) of ramps that are now the owner's; for a transaction that sees every workspace."""
        rows = self._sql.claim_ramps(tx.connection, owner=owner, now=now, lease_until=lease_until, most=most)
        return [(row["id"], row["workspace"]) async for row in rows]

    async def held(self, tx: Transaction, ramp_id: UUID, owner: UUID) -> Ramp | None:
        """None when the lease went to somebody else."""
        row = await self._sql.held_ramp(tx.connection, id=ramp_id, owner=owner)
        return None if row is None else _ramp(row)

    async def log(self, tx: Transaction, ramp: Ramp, at: datetime, notes: Sequence[Note]) -> None:
        if notes:
            await self._sql.add_entries(
                tx.connection, workspace=tx.workspace, ramp_id=ramp.id, at=at, whats=[note.what for note in notes],
                details=[orjson.dumps(note.details, default=str).decode() for note in notes],
            )  # fmt: skip

    async def entries(self, tx: Transaction, ramp: Ramp, most: int) -> list[Entry]:
        """Latest first."""
        rows = self._sql.entries_of(tx.connection, ramp_id=ramp.id, most=most)
        return [Entry(row["at"], row["what"], row["details"]) async for row in rows]


def _json(value: SteppedPlan | BanditPlan | State) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def _ramp(row: Mapping[str, Any]) -> Ramp:
    return Ramp(
        id=row["id"],
        workspace=row["workspace"],
        group=row["group_name"],
        plan=_PLAN.validate_python(row["plan"]),
        state=State.model_validate(row["state"]),
        revision=row["revision"],
        first_revision=row["first_revision"],
        actor=Actor(id=row["who"], proven=row["who_proven"]),
        created_at=row["created_at"],
        next_at=row["next_at"],
    )
