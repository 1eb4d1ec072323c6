"""Proposals with their steps, and what was sent to be measured for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.db.database import Transaction


@dataclass(frozen=True, slots=True)
class Proposal:
    """`head_version` is the newest candidate, `base_version` what the label pointed at when it was made."""

    proposal_id: UUID
    name: str
    label: str
    summary: str
    base_version: int | None
    head_version: int
    authors: list[str]
    state: str
    decision: str | None
    decided_by: str | None
    opened_at: datetime
    merged_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a proposal."""

    what: str
    version: int | None
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate and what it would replace, on the same rows; without a base the candidate alone."""

    head_version: int
    head_request: UUID
    base_version: int | None
    base_request: UUID | None
    golden_set: str
    task: str
    actor: str
    at: datetime


class Proposals:
    """Tables proposal, proposal_step and comparison."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def open(self, tx: Transaction, proposal: Proposal) -> None:
        fields = {name: getattr(proposal, name) for name in Proposal.__slots__}
        for name in ("state", "decision", "decided_by", "merged_at"):
            del fields[name]
        await self._queries.open_proposal(tx.connection, workspace=tx.workspace, **fields)

    async def revise(self, tx: Transaction, proposal_id: UUID, base: int | None, head: int, author: str) -> None:
        await self._queries.revise_proposal(
            tx.connection,
            workspace=tx.workspace,
            proposal_id=proposal_id,
            base_version=base,
            head_version=head,
            author=author,
        )

    async def decide(self, tx: Transaction, proposal_id: UUID, decision: str, by: str) -> None:
        await self._queries.decide_proposal(
            tx.connection, workspace=tx.workspace, proposal_id=proposal_id, decision=decision, decided_by=by
        )

    async def end(self, tx: Transaction, proposal_id: UUID, state: str, merged_at: datetime | None) -> None:
        await self._queries.end_proposal(
            tx.connection, workspace=tx.workspace, proposal_id=proposal_id, state=state, merged_at=merged_at
        )

    async def one(self, tx: Transaction, proposal_id: UUID, *, lock: bool) -> Proposal | None:
        """One proposal; locked until commit if so wished."""
        find = self._queries.proposal_locked if lock else self._queries.proposal
        row = await find(tx.connection, workspace=tx.workspace, proposal_id=proposal_id)
        return None if row is None else Proposal(**{name: row[name] for name in Proposal.__slots__})

    async def of(self, tx: Transaction, name: str | None, state: str | None, most: int) -> list[Proposal]:
        rows = self._queries.proposals(tx.connection, workspace=tx.workspace, name=name, state=state, most=most)
        return [Proposal(**{field: row[field] for field in Proposal.__slots__}) async for row in rows]

    async def add_step(self, tx: Transaction, proposal_id: UUID, step: Step) -> None:
        fields = {name: getattr(step, name) for name in Step.__slots__}
        await self._queries.add_proposal_step(tx.connection, workspace=tx.workspace, proposal_id=proposal_id, **fields)

    async def steps(self, tx: Transaction, proposal_id: UUID) -> list[Step]:
        rows = self._queries.proposal_steps(tx.connection, workspace=tx.workspace, proposal_id=proposal_id)
        return [Step(**{name: row[name] for name in Step.__slots__}) async for row in rows]

    async def compare(self, tx: Transaction, proposal_id: UUID, comparison: Comparison) -> None:
        fields = {name: getattr(comparison, name) for name in Comparison.__slots__}
        await self._queries.add_comparison(tx.connection, workspace=tx.workspace, proposal_id=proposal_id, **fields)

    async def comparisons(self, tx: Transaction, proposal_id: UUID) -> list[Comparison]:
        rows = self._queries.comparisons(tx.connection, workspace=tx.workspace, proposal_id=proposal_id)
        return [Comparison(**{name: row[name] for name in Comparison.__slots__}) async for row in rows]
