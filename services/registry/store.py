"""Rows of the registry's schema as domain values, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.registry.domain import Content, Version
from shared.db.database import Transaction
from shared.events.base import Actor, AssetRef
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
    decided_at: datetime | None = None
    workspace: str = ""
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


class Store:
    """Every query of the service. Methods take the transaction, whose workspace they stay in."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def lock_asset(self, tx: Transaction, event: AssetSubmitted, at: datetime) -> None:
        """Hold the asset until commit, made if need be."""
        await self._queries.lock_asset(
            tx.connection, workspace=tx.workspace, urn=event.urn, kind=event.kind, name=event.name, at=at
        )

    async def version_by_digest(self, tx: Transaction, urn: str, digest: str) -> Version | None:
        return _version(
            await self._queries.version_by_digest(tx.connection, workspace=tx.workspace, urn=urn, digest=digest)
        )

    async def version(self, tx: Transaction, urn: str, version: int) -> Version | None:
        return _version(await self._queries.version(tx.connection, workspace=tx.workspace, urn=urn, version=version))

    async def versions_before(self, tx: Transaction, urn: str, before: int, most: int) -> list[Version]:
        rows = self._queries.versions_before(
            tx.connection, workspace=tx.workspace, urn=urn, before=before, most=most
        )
        return [_read(row) async for row in rows]

    async def add_version(
        self,
        tx: Transaction,
        content: Content,
        digest: str,
        author: Actor,
        at: datetime,
        terms: Iterable[str],
        text: str,
    ) -> Version:
        """The next version of a locked asset."""
        event = content.submitted
        number = await self._queries.take_number(tx.connection, workspace=tx.workspace, urn=event.urn)
        document = content.document
        order = await self._queries.insert_version(
            tx.connection,
            workspace=tx.workspace,
            urn=event.urn,
            version=number,
            digest=digest,
            content=document,
            artefact_digest=event.artefact.digest if event.artefact else None,
            artefact_size=content.artefact_size,
            tags=event.tags,
            description=event.description,
            metrics=event.metrics,
            author=author.id,
            author_proven=author.proven,
            submission_id=event.submission_id,
            registered_at=at,
        )
        await self._queries.insert_terms(
            tx.connection, workspace=tx.workspace, number=order, terms=list(terms), text=text
        )
        return Version(
            AssetRef(urn=event.urn, version=number, digest=digest), order, document, content.artefact_size,
            event.tags, event.description, event.metrics, author, event.submission_id, at,
        )  # fmt: skip

    async def add_submission(self, tx: Transaction, submission: Submission, due_at: datetime) -> bool:
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

    async def submission(self, tx: Transaction, submission_id: UUID, *, lock: bool = False) -> Submission | None:
        query = self._queries.lock_submission if lock else self._queries.submission
        row = await query(tx.connection, workspace=tx.workspace, submission_id=submission_id)
        return None if row is None else _submission(row)

    async def decide(
        self, tx: Transaction, submission_id: UUID, state: str, at: datetime | None,
        *, version: int | None = None, code: str | None = None, reason: str | None = None,
    ) -> None:  # fmt: skip
        """Keep what became of a submission."""
        await self._queries.decide_submission(
            tx.connection, workspace=tx.workspace, submission_id=submission_id, state=state,
            version=version, code=code, reason=reason, decided_at=at,
        )  # fmt: skip

    async def hold_artefacts(self, tx: Transaction, sizes: Sequence[tuple[str, int]], at: datetime) -> None:
        """From now on this workspace holds these bytes (digest, size)."""
        for digest, size in sorted(sizes):
            await self._queries.hold_artefact(tx.connection, workspace=tx.workspace, digest=digest, size=size, since=at)

    async def artefact_size(self, tx: Transaction, digest: str) -> int | None:
        """Size of bytes that this workspace holds; None when it does not."""
        row = await self._queries.artefact(tx.connection, workspace=tx.workspace, digest=digest)
        return None if row is None else int(row["size"])


def _version(row: Any) -> Version | None:
    return None if row is None else _read(row)


def _read(row: Any) -> Version:
    return Version(
        ref=AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"]),
        number=row["number"],
        content=row["content"],
        artefact_size=row["artefact_size"],
        tags=row["tags"],
        description=row["description"],
        metrics=row["metrics"],
        author=Actor(id=row["author"], proven=row["author_proven"]),
        submission_id=row["submission_id"],
        registered_at=row["registered_at"],
    )


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
        decided_at=row["decided_at"],
        workspace=row["workspace"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
        traceparent=row["traceparent"],
    )
