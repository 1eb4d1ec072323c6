"""Submissions: kept as they came in, claimed by the worker, decided once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.db.database import Transaction
from shared.events.base import Actor
from shared.events.upstream import AssetSubmitted


@dataclass(frozen=True, slots=True)
class Submission:
    """A request to register a version, and what became of it. `request` digests what was asked, and by whom."""

    id: UUID
    event_id: str
    request: str
    event: AssetSubmitted
    author: Actor
    state: str
    received_at: datetime
    version: int | None = None
    code: str | None = None
    reason: str | None = None
    attempts: int = 0
    lease: UUID | None = None
    decided_at: datetime | None = None
    workspace: str = ""
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


class Submissions:
    """Tables submission and vouched."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def add(self, tx: Transaction, submission: Submission, due_at: datetime) -> bool:
        """Keep a submission; False when its id was taken before."""
        made = await self._queries.insert_submission(
            tx.connection,
            workspace=tx.workspace,
            submission_id=submission.id,
            event_id=submission.event_id,
            urn=submission.event.urn,
            request=submission.request,
            document=submission.event.model_dump(mode="json"),
            author=submission.author.id,
            author_proven=submission.author.proven,
            state=submission.state,
            due_at=due_at,
            correlation_id=submission.correlation_id,
            causation_id=submission.causation_id,
            traceparent=submission.traceparent,
            received_at=submission.received_at,
        )
        return bool(made)

    async def one(self, tx: Transaction, submission_id: UUID, *, lock: bool = False) -> Submission | None:
        query = self._queries.lock_submission if lock else self._queries.submission
        row = await query(tx.connection, workspace=tx.workspace, submission_id=submission_id)
        return None if row is None else _submission(row)

    async def decide(
        self,
        tx: Transaction,
        submission_id: UUID,
        state: str,
        at: datetime,
        *,
        version: int | None = None,
        code: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Keep what became of a submission."""
        await self._queries.decide_submission(
            tx.connection,
            workspace=tx.workspace,
            submission_id=submission_id,
            state=state,
            version=version,
            code=code,
            reason=reason,
            decided_at=at,
        )

    async def claim(self, tx: Transaction, lease: UUID, until: datetime) -> Submission | None:
        """The submission that is due longest, of any workspace; its state says what is to be done."""
        row = await self._queries.claim_submission(tx.connection, lease=lease, until=until)
        return None if row is None else _submission(row)

    async def renew(self, tx: Transaction, submission: Submission, until: datetime) -> None:
        """Hold a claimed submission longer."""
        await self._queries.renew_lease(
            tx.connection, workspace=tx.workspace, submission_id=submission.id, lease=submission.lease, until=until
        )

    async def postpone(self, tx: Transaction, submission: Submission, until: datetime) -> None:
        """Give a claimed submission back, to be tried again at `until`."""
        await self._queries.postpone_submission(
            tx.connection, workspace=tx.workspace, submission_id=submission.id, lease=submission.lease, until=until
        )

    async def forward(self, tx: Transaction, submission_id: UUID, author: Actor, due_at: datetime) -> None:
        """The author is known now: on to the artefacts."""
        await self._queries.forward_submission(
            tx.connection,
            workspace=tx.workspace,
            submission_id=submission_id,
            author=author.id,
            author_proven=author.proven,
            due_at=due_at,
        )

    async def one_at_a_time(self, tx: Transaction, submission_id: UUID) -> None:
        """Whoever else speaks of this submission waits until this transaction is over."""
        await self._queries.one_at_a_time(tx.connection, workspace=tx.workspace, submission_id=str(submission_id))

    async def vouch(self, tx: Transaction, submission_id: UUID, name: str, version: int, author: Actor) -> None:
        """Who wrote the prompt that a submission carries, and its version there."""
        await self._queries.vouch(
            tx.connection,
            workspace=tx.workspace,
            submission_id=submission_id,
            name=name,
            version=version,
            author=author.id,
            author_proven=author.proven,
        )

    async def vouched(self, tx: Transaction, submission_id: UUID, name: str) -> tuple[Actor, int] | None:
        """Author and prompt version, when the prompts service named them."""
        row = await self._queries.vouched(tx.connection, workspace=tx.workspace, submission_id=submission_id, name=name)
        return None if row is None else (Actor(id=row["author"], proven=row["author_proven"]), row["version"])


def _submission(row: Any) -> Submission:
    return Submission(
        id=row["submission_id"],
        event_id=row["event_id"],
        request=row["request"],
        event=AssetSubmitted.model_validate(row["document"]),
        author=Actor(id=row["author"], proven=row["author_proven"]),
        state=row["state"],
        received_at=row["received_at"],
        version=row["version"],
        code=row["code"],
        reason=row["reason"],
        attempts=row["attempts"],
        lease=row["lease"],
        decided_at=row["decided_at"],
        workspace=row["workspace"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
        traceparent=row["traceparent"],
    )
