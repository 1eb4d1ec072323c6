"""Intents, their outcomes, and bindings: rows as values, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from services.registry.reuse.wishes import Candidate, Wish
from shared.db.database import Transaction
from shared.events.base import Actor


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an intent ended: by a binding, or by a build with what each candidate lacks."""

    outcome: Literal["reuse", "build"]
    binding_id: UUID | None
    why_not: dict[str, str]
    reason: str
    who: Actor
    at: datetime


@dataclass(frozen=True, slots=True)
class Intent:
    """What a team described, what it was answered then, and how it ended."""

    id: UUID
    wish: Wish
    candidates: tuple[Candidate, ...]
    who: Actor
    created_at: datetime
    expires_at: datetime
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """A consumer uses a version; no longer where `released_at` is set."""

    id: UUID
    urn: str
    version: int
    consumer: str
    purpose: str
    intent_id: UUID | None
    who: Actor
    at: datetime
    released_at: datetime | None = None
    release_reason: str | None = None
    released_by: str | None = None


@dataclass(frozen=True, slots=True)
class BindingsAsked:
    """Which bindings: of an asset or a version, of a consumer; those that hold alone where `active`."""

    urn: str | None = None
    version: int | None = None
    consumer: str | None = None
    active: bool = True


Place = tuple[datetime, UUID] | None
"""What a page continues below: the time and id of its last row."""


class Reuse:
    """Tables intent, intent_outcome, binding, binding_release. `queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def stand_ins(self, tx: Transaction, numbers: Sequence[int]) -> dict[str, int]:
        """Of the assets that some versions are of, the version that is best taken."""
        rows = self._queries.stand_ins(tx.connection, workspace=tx.workspace, numbers=list(numbers))
        return {row["urn"]: row["version"] async for row in rows}

    async def assets_of(self, tx: Transaction, numbers: Sequence[int]) -> dict[int, str]:
        rows = self._queries.assets_of(tx.connection, workspace=tx.workspace, numbers=list(numbers))
        return {row["number"]: row["urn"] async for row in rows}

    async def add_intent(self, tx: Transaction, intent: Intent) -> None:
        await self._queries.insert_intent(
            tx.connection,
            workspace=tx.workspace,
            intent_id=intent.id,
            team=intent.wish.team,
            kind=intent.wish.kind,
            task=intent.wish.task,
            wish=intent.wish.model_dump(mode="json"),
            candidates=[candidate.model_dump(mode="json") for candidate in intent.candidates],
            who=intent.who.id,
            who_proven=intent.who.proven,
            created_at=intent.created_at,
            expires_at=intent.expires_at,
        )

    async def intent(self, tx: Transaction, intent_id: UUID, *, hold: bool = False) -> Intent | None:
        """One intent; with `hold` nobody else ends it until commit."""
        if hold:
            await self._queries.hold_intent(tx.connection, workspace=tx.workspace, intent_id=str(intent_id))
        row = await self._queries.intent(tx.connection, workspace=tx.workspace, intent_id=intent_id)
        return None if row is None else _intent(row)

    async def intents(self, tx: Transaction, team: str | None, below: Place, most: int) -> list[Intent]:
        """Newest first."""
        before, before_id = below or (None, None)
        rows = self._queries.intents(
            tx.connection, workspace=tx.workspace, team=team, before=before, before_id=before_id, most=most
        )
        return [_intent(row) async for row in rows]

    async def decide(self, tx: Transaction, intent_id: UUID, outcome: Outcome) -> None:
        await self._queries.decide_intent(
            tx.connection,
            workspace=tx.workspace,
            intent_id=intent_id,
            outcome=outcome.outcome,
            binding_id=outcome.binding_id,
            why_not=outcome.why_not,
            reason=outcome.reason,
            who=outcome.who.id,
            who_proven=outcome.who.proven,
            at=outcome.at,
        )

    async def add_binding(self, tx: Transaction, binding: Binding) -> None:
        await self._queries.insert_binding(
            tx.connection,
            workspace=tx.workspace,
            binding_id=binding.id,
            urn=binding.urn,
            version=binding.version,
            consumer=binding.consumer,
            purpose=binding.purpose,
            intent_id=binding.intent_id,
            who=binding.who.id,
            who_proven=binding.who.proven,
            at=binding.at,
        )

    async def binding(self, tx: Transaction, binding_id: UUID) -> Binding | None:
        row = await self._queries.binding(tx.connection, workspace=tx.workspace, binding_id=binding_id)
        return None if row is None else _binding(row)

    async def bound(self, tx: Transaction, urn: str, version: int, consumer: str) -> Binding | None:
        """The binding of a consumer to a version, where one holds."""
        row = await self._queries.bound(
            tx.connection, workspace=tx.workspace, urn=urn, version=version, consumer=consumer
        )
        return None if row is None else _binding(row)

    async def bindings(self, tx: Transaction, asked: BindingsAsked, below: Place, most: int) -> list[Binding]:
        """Newest first."""
        before, before_id = below or (None, None)
        rows = self._queries.bindings(
            tx.connection,
            workspace=tx.workspace,
            urn=asked.urn,
            version=asked.version,
            consumer=asked.consumer,
            active=asked.active,
            before=before,
            before_id=before_id,
            most=most,
        )
        return [_binding(row) async for row in rows]

    async def release(self, tx: Transaction, binding_id: UUID, reason: str, who: Actor, at: datetime) -> bool:
        """False when it was released before."""
        made = await self._queries.release(
            tx.connection,
            workspace=tx.workspace,
            binding_id=binding_id,
            reason=reason,
            who=who.id,
            who_proven=who.proven,
            at=at,
        )
        return bool(made)

    async def figures(self, tx: Transaction, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """Intents of a period by team and task, with how they ended."""
        rows = self._queries.figures(tx.connection, workspace=tx.workspace, since=since, until=until)
        return [dict(row) async for row in rows]

    async def reused_most(self, tx: Transaction, since: datetime, until: datetime, most: int) -> list[dict[str, Any]]:
        rows = self._queries.reused_most(tx.connection, workspace=tx.workspace, since=since, until=until, most=most)
        return [dict(row) async for row in rows]


def _intent(row: Any) -> Intent:
    outcome = None
    if row["outcome"] is not None:
        who = Actor(id=row["decided_by"], proven=row["decided_by_proven"])
        outcome = Outcome(row["outcome"], row["binding_id"], row["why_not"], row["reason"], who, row["decided_at"])
    return Intent(
        id=row["intent_id"],
        wish=Wish.model_validate(row["wish"]),
        candidates=tuple(Candidate.model_validate(one) for one in row["candidates"]),
        who=Actor(id=row["who"], proven=row["who_proven"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        outcome=outcome,
    )


def _binding(row: Any) -> Binding:
    return Binding(
        id=row["binding_id"],
        urn=row["urn"],
        version=row["version"],
        consumer=row["consumer"],
        purpose=row["purpose"],
        intent_id=row["intent_id"],
        who=Actor(id=row["who"], proven=row["who_proven"]),
        at=row["at"],
        released_at=row["released_at"],
        release_reason=row["release_reason"],
        released_by=row["released_by"],
    )
