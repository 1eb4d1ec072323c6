"""Rows of the policy schema as values, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from services.policy.domain import Decision, Gate, Judgement
from shared.clock import Clock
from shared.db.database import Transaction
from shared.events.base import Actor, AssetRef
from shared.events.envelope import Envelope, Origin
from shared.events.policy import Envelope as Statement
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import DatasetVersion

Row = Mapping[str, Any]

TRACE_ID = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")


@dataclass(frozen=True, slots=True)
class Asset:
    """What policy knows of a registered version."""

    ref: AssetRef
    kind: str
    task: str | None
    artefact: str | None
    prompts: tuple[str, ...]
    golden_set: DatasetVersion | None
    author: Actor
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Dataset:
    ref: AssetRef
    sensitive: tuple[str, ...]
    author: Actor


@dataclass(frozen=True, slots=True)
class Verdict:
    """A kept gate decision; `rules` are RuleOutcome documents."""

    id: int
    gate_id: UUID
    evaluation_id: UUID
    verdict: str
    rules: tuple[dict[str, Any], ...]
    reason: str
    policy: str
    policy_version: int
    binding: str
    report: str | None
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """A kept decision about a version."""

    id: int
    approval_id: UUID
    gate_id: UUID
    urn: str
    version: int
    decision: Decision
    approver: Actor
    author: Actor
    reason: str
    binding: str
    statement: dict[str, Any] | None
    expires_at: datetime | None
    decided_at: datetime


class Store:
    """Reads and writes in a transaction that it is given."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    async def add_asset(self, tx: Transaction, event: AssetRegistered) -> None:
        await self._sql.add_asset(
            tx.connection,
            workspace=tx.workspace,
            urn=event.asset.urn,
            version=event.asset.version,
            digest=event.asset.digest,
            kind=event.kind,
            task=event.task,
            artefact_digest=event.artefact.digest if event.artefact else None,
            prompts=[prompt.digest for prompt in event.prompts],
            golden_set=event.golden_set.model_dump() if event.golden_set else None,
            author=event.author.model_dump(),
            registered_at=event.registered_at,
        )

    async def asset(self, tx: Transaction, urn: str, version: int, *, lock: bool = False) -> Asset | None:
        """A version, or None; locked until the transaction ends when asked."""
        read = self._sql.lock_asset if lock else self._sql.asset
        row = await read(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return None if row is None else _asset(row)

    async def add_dataset(self, tx: Transaction, event: DatasetRegistered) -> None:
        await self._sql.add_dataset(
            tx.connection,
            workspace=tx.workspace,
            urn=event.asset.urn,
            version=event.asset.version,
            digest=event.asset.digest,
            sensitive=list(event.manifest.sensitive),
            author=event.author.model_dump(),
            registered_at=event.registered_at,
        )

    async def dataset(self, tx: Transaction, urn: str, version: int, *, lock: bool = False) -> Dataset | None:
        read = self._sql.lock_dataset if lock else self._sql.dataset
        row = await read(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        if row is None:
            return None
        ref = AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"])
        return Dataset(ref, tuple(row["sensitive"]), Actor.model_validate(row["author"]))

    async def datasets(self, tx: Transaction, status: str | None, after: Sequence[Any] | None, most: int) -> list[Row]:
        """Dataset versions with their newest decision, newest first; `after` continues behind (at, urn, version)."""
        at, urn, version = after or (None, None, None)
        return list(
            await _all(
                self._sql.datasets(
                    tx.connection,
                    workspace=tx.workspace,
                    status=status,
                    after_at=at,
                    after_urn=urn,
                    after_version=version,
                    most=most,
                )
            )
        )

    async def lock_gate_policy(self, tx: Transaction, name: str) -> None:
        await self._sql.lock_gate_policy(tx.connection, workspace=tx.workspace, name=name)

    async def gate_policy(self, tx: Transaction, name: str, at: datetime | None = None) -> Row | None:
        """The newest version of a gate's rules, or the newest at a time."""
        row: Row | None = await self._sql.gate_policy(tx.connection, workspace=tx.workspace, name=name, at=at)
        return row

    async def gate_policy_number(self, tx: Transaction, name: str, number: int) -> Row | None:
        row: Row | None = await self._sql.gate_policy_number(
            tx.connection, workspace=tx.workspace, name=name, number=number
        )
        return row

    async def gate_policies(self, tx: Transaction, name: str) -> list[Row]:
        return list(await _all(self._sql.gate_policies(tx.connection, workspace=tx.workspace, name=name)))

    async def gate_names(self, tx: Transaction) -> list[str]:
        return [row["name"] for row in await _all(self._sql.gate_names(tx.connection, workspace=tx.workspace))]

    async def add_gate_policy(
        self,
        tx: Transaction,
        name: str,
        number: int,
        document: dict[str, Any],
        digest: str,
        actor: Actor,
        reason: str,
        at: datetime,
    ) -> None:
        await self._sql.add_gate_policy(
            tx.connection,
            workspace=tx.workspace,
            name=name,
            number=number,
            document=document,
            digest=digest,
            actor=actor.model_dump(),
            reason=reason,
            published_at=at,
        )

    async def add_gate(
        self,
        tx: Transaction,
        gate_id: UUID,
        asset: AssetRef,
        evaluation_id: UUID,
        report: str | None,
        gate: Gate,
        judgement: Judgement,
        rules: list[dict[str, Any]],
        bound: str,
        at: datetime,
    ) -> None:
        await self._sql.add_gate(
            tx.connection,
            workspace=tx.workspace,
            gate_id=gate_id,
            urn=asset.urn,
            version=asset.version,
            evaluation_id=evaluation_id,
            report=report,
            verdict=judgement.verdict,
            rules=rules,
            reason=judgement.reason,
            policy=gate.name,
            policy_version=gate.version,
            binding=bound,
            decided_at=at,
        )

    async def newest_gate(self, tx: Transaction, urn: str, version: int) -> Verdict | None:
        row = await self._sql.newest_gate(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return None if row is None else _verdict(row)

    async def gates_of(self, tx: Transaction, urn: str, version: int) -> list[Verdict]:
        return [
            _verdict(row)
            for row in await _all(self._sql.gates_of(tx.connection, workspace=tx.workspace, urn=urn, version=version))
        ]

    async def pending(
        self, tx: Transaction, now: datetime, after: int | None, most: int
    ) -> list[tuple[AssetRef, Actor, Row, Verdict]]:
        """The inbox: version, author, the version's row and its gate."""
        rows = await _all(self._sql.pending(tx.connection, workspace=tx.workspace, now=now, after=after, most=most))
        return [
            (
                AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"]),
                Actor.model_validate(row["author"]),
                row,
                _verdict(row),
            )
            for row in rows
        ]

    async def add_approval(
        self,
        tx: Transaction,
        approval_id: UUID,
        gate: Verdict,
        asset: Asset,
        decision: Decision,
        approver: Actor,
        reason: str,
        statement: Statement | None,
        expires_at: datetime | None,
        at: datetime,
    ) -> None:
        await self._sql.add_approval(
            tx.connection,
            workspace=tx.workspace,
            approval_id=approval_id,
            gate_id=gate.gate_id,
            urn=asset.ref.urn,
            version=asset.ref.version,
            decision=decision,
            approver=approver.model_dump(),
            author=asset.author.model_dump(),
            reason=reason,
            binding=gate.binding,
            statement=statement.model_dump(by_alias=True) if statement else None,
            expires_at=expires_at,
            decided_at=at,
        )

    async def newest_approval(self, tx: Transaction, urn: str, version: int) -> Approval | None:
        row = await self._sql.newest_approval(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return None if row is None else _approval(row)

    async def approval(self, tx: Transaction, approval_id: UUID) -> Approval | None:
        row = await self._sql.approval(tx.connection, workspace=tx.workspace, approval_id=approval_id)
        return None if row is None else _approval(row)

    async def approvals_of(self, tx: Transaction, urn: str, version: int) -> list[Approval]:
        rows = await _all(self._sql.approvals_of(tx.connection, workspace=tx.workspace, urn=urn, version=version))
        return [_approval(row) for row in rows]

    async def decisions(
        self, tx: Transaction, decision: Decision | None, after: int | None, most: int
    ) -> list[Approval]:
        rows = await _all(
            self._sql.decisions(tx.connection, workspace=tx.workspace, decision=decision, after=after, most=most)
        )
        return [_approval(row) for row in rows]

    async def add_dataset_approval(
        self, tx: Transaction, dataset: AssetRef, decision: Decision, approver: Actor, reason: str, at: datetime
    ) -> None:
        await self._sql.add_dataset_approval(
            tx.connection,
            workspace=tx.workspace,
            urn=dataset.urn,
            version=dataset.version,
            decision=decision,
            approver=approver.model_dump(),
            reason=reason,
            decided_at=at,
        )

    async def newest_dataset_approval(self, tx: Transaction, urn: str, version: int) -> Row | None:
        row: Row | None = await self._sql.newest_dataset_approval(
            tx.connection, workspace=tx.workspace, urn=urn, version=version
        )
        return row


class LedgerStore:
    """The ledger's rows. Entries leave here as the documents that are hashed, exported and verified."""

    def __init__(self, queries: Any, clock: Clock) -> None:
        self._sql = queries
        self._clock = clock

    async def arrive(self, tx: Transaction, envelope: Envelope, origin: Origin) -> None:
        """One insert: no lock and no hash, so that events are recorded side by side."""
        trace = TRACE_ID.match(str(envelope.traceparent or ""))
        await self._sql.add_arrival(
            tx.connection,
            workspace=tx.workspace,
            at=self._clock(),
            event_id=envelope.id,
            source=envelope.source,
            type=envelope.type,
            key=envelope.subject,
            event_time=_storable_time(envelope.time),
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
            trace_id=trace[1] if trace else None,
            correlation_id=_text(envelope.correlation_id),
            causation_id=_text(envelope.causation_id),
            proof=_text(envelope.proof),
            data=envelope.data,
        )

    async def waiting(self, tx: Transaction) -> list[str]:
        """Workspaces with events that are not in the chain yet."""
        return [row["workspace"] for row in await _all(self._sql.waiting_workspaces(tx.connection))]

    async def seal(self, tx: Transaction, most: int) -> int:
        """Put up to `most` waiting events into the chain; how many it were."""
        return int(await self._sql.seal(tx.connection, workspace=tx.workspace, most=most))

    async def head(self, tx: Transaction) -> tuple[int, str]:
        """Index and hash of the newest entry; (0, zeros) of an empty ledger."""
        row = await self._sql.ledger_head(tx.connection, workspace=tx.workspace)
        return (0, "sha256:" + "0" * 64) if row is None else (row["index"], row["hash"])

    async def entry(self, tx: Transaction, index: int) -> dict[str, Any] | None:
        row = await self._sql.ledger_entry(tx.connection, workspace=tx.workspace, index=index)
        return None if row is None else _entry(row)

    async def entries(
        self,
        tx: Transaction,
        after: int,
        most: int,
        *,
        key: str | None = None,
        type: str | None = None,
        trace: str | None = None,
    ) -> list[dict[str, Any]]:
        rows = await _all(
            self._sql.ledger_entries(
                tx.connection, workspace=tx.workspace, after=after, most=most, key=key, type=type, trace=trace
            )
        )
        return [_entry(row) for row in rows]


async def _all(rows: Any) -> Sequence[Row]:
    """aiosql's select answers with an awaitable list or an async generator, by version."""
    return list(await rows) if hasattr(rows, "__await__") else [row async for row in rows]


def _asset(row: Row) -> Asset:
    return Asset(
        AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"]),
        row["kind"],
        row["task"],
        row["artefact_digest"],
        tuple(row["prompts"]),
        DatasetVersion.model_validate(row["golden_set"]) if row["golden_set"] else None,
        Actor.model_validate(row["author"]),
        row["registered_at"],
    )


def _verdict(row: Row) -> Verdict:
    return Verdict(
        row["id"],
        row["gate_id"],
        row["evaluation_id"],
        row["verdict"],
        tuple(row["rules"]),
        row["reason"],
        row["policy"],
        row["policy_version"],
        row["binding"],
        row["report"],
        row["decided_at"],
    )


def _approval(row: Row) -> Approval:
    return Approval(
        row["id"],
        row["approval_id"],
        row["gate_id"],
        row["urn"],
        row["version"],
        row["decision"],
        Actor.model_validate(row["approver"]),
        Actor.model_validate(row["author"]),
        row["reason"],
        row["binding"],
        row["statement"],
        row["expires_at"],
        row["decided_at"],
    )


def _entry(row: Row) -> dict[str, Any]:
    return {
        "index": row["index"],
        "at": row["at_text"],
        "workspace": row["workspace"],
        "id": row["event_id"],
        "source": row["source"],
        "type": row["type"],
        "key": row["key"],
        "time": row["event_time_text"],
        "topic": row["topic"],
        "partition": row["partition"],
        "offset": row["offset"],
        "trace_id": row["trace_id"],
        "correlation_id": row["correlation_id"],
        "causation_id": row["causation_id"],
        "proof": row["proof"],
        "data_digest": row["data_digest"],
        "data": bytes(row["data"]),
        "previous": row["previous"],
        "hash": row["hash"],
    }


def _text(value: object) -> str | None:
    """A header as Postgres can hold it: an event is recorded even when an optional attribute of it is odd."""
    if value is None:
        return None
    return str(value).encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _storable_time(moment: datetime | None) -> datetime | None:
    """The time in UTC. One without a zone, or at the very end of the calendar, says nothing certain and is left out."""
    if moment is None or moment.tzinfo is None:
        return None
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None
