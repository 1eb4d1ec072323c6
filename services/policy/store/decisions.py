"""Rows about versions, gates and decisions as values, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.policy.domain import Decision
from shared.db.database import Transaction
from shared.events.base import Actor, AssetRef
from shared.events.policy import Envelope as Statement
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import DatasetVersion

Row = Mapping[str, Any]


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
    """A kept gate decision; `rules` are RuleOutcome documents. `expires_at` is there where it rests on a waiver."""

    id: int
    gate_id: UUID
    evaluation_id: UUID | None
    verdict: str
    rules: tuple[dict[str, Any], ...]
    reason: str
    policy: str
    policy_version: int
    binding: str
    report: str | None
    decided_at: datetime
    expires_at: datetime | None


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
        return [
            row
            async for row in self._sql.datasets(
                tx.connection,
                workspace=tx.workspace,
                status=status,
                after_at=at,
                after_urn=urn,
                after_version=version,
                most=most,
            )
        ]

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
        return [row async for row in self._sql.gate_policies(tx.connection, workspace=tx.workspace, name=name)]

    async def gate_names(self, tx: Transaction) -> list[str]:
        return [row["name"] async for row in self._sql.gate_names(tx.connection, workspace=tx.workspace)]

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

    async def add_gate(self, tx: Transaction, asset: AssetRef, verdict: Verdict) -> None:
        await self._sql.add_gate(
            tx.connection,
            workspace=tx.workspace,
            gate_id=verdict.gate_id,
            urn=asset.urn,
            version=asset.version,
            evaluation_id=verdict.evaluation_id,
            report=verdict.report,
            verdict=verdict.verdict,
            rules=list(verdict.rules),
            reason=verdict.reason,
            policy=verdict.policy,
            policy_version=verdict.policy_version,
            binding=verdict.binding,
            expires_at=verdict.expires_at,
            decided_at=verdict.decided_at,
        )

    async def newest_gate(self, tx: Transaction, urn: str, version: int) -> Verdict | None:
        row = await self._sql.newest_gate(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return None if row is None else _verdict(row)

    async def gates_of(self, tx: Transaction, urn: str, version: int) -> list[Verdict]:
        return [
            _verdict(row)
            async for row in self._sql.gates_of(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        ]

    async def pending(
        self, tx: Transaction, now: datetime, after: int | None, most: int
    ) -> list[tuple[AssetRef, Actor, Row, Verdict]]:
        """The inbox: version, author, the version's row and its gate."""
        rows = self._sql.pending(tx.connection, workspace=tx.workspace, now=now, after=after, most=most)
        return [
            (
                AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"]),
                Actor.model_validate(row["author"]),
                row,
                _verdict(row),
            )
            async for row in rows
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
        rows = self._sql.approvals_of(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return [_approval(row) async for row in rows]

    async def decisions(
        self, tx: Transaction, decision: Decision | None, after: int | None, most: int
    ) -> list[Approval]:
        rows = self._sql.decisions(tx.connection, workspace=tx.workspace, decision=decision, after=after, most=most)
        return [_approval(row) async for row in rows]

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
        row["expires_at"],
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
