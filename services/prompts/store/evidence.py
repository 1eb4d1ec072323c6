"""What was measured of prompts, and what they are bound to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.db.database import Transaction


@dataclass(frozen=True, slots=True)
class Evidence:
    """One evaluation of a version of the registry; `code` and `reason` where it failed."""

    evaluation_id: UUID
    name: str
    version: int
    digest: str
    task: str | None
    model: str | None
    golden_set: str | None
    measures: dict[str, Any]
    rows: int
    errors: int
    report: str | None
    code: str | None
    reason: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Binding:
    """A prompt's label is meant for a model and a use case."""

    name: str
    title: str
    model: str
    use_case: str
    label: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that could be taken for a task, with the newest evaluation of it there, if there is one."""

    name: str
    title: str
    version: int
    labels: list[str]
    evaluation_id: UUID | None
    task: str | None
    model: str | None
    golden_set: str | None
    measures: dict[str, Any] | None
    rows: int | None
    at: datetime | None


class EvidenceStore:
    """Tables evidence and binding."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def keep(self, tx: Transaction, evidence: Evidence) -> None:
        """Once an evaluation; a second word on it changes nothing."""
        fields = {name: getattr(evidence, name) for name in Evidence.__slots__}
        await self._queries.keep_evidence(tx.connection, workspace=tx.workspace, **fields)

    async def of(self, tx: Transaction, name: str, asset_version: int) -> list[Evidence]:
        """Everything that was measured of one version of the registry, newest first."""
        rows = self._queries.evidence_of(tx.connection, workspace=tx.workspace, name=name, version=asset_version)
        return [Evidence(**{field: row[field] for field in Evidence.__slots__}) async for row in rows]

    async def by_ids(self, tx: Transaction, ids: list[UUID]) -> dict[UUID, Evidence]:
        rows = self._queries.evidence_by_ids(tx.connection, workspace=tx.workspace, ids=ids)
        found = [Evidence(**{field: row[field] for field in Evidence.__slots__}) async for row in rows]
        return {one.evaluation_id: one for one in found}

    async def candidates(
        self, tx: Transaction, task: str | None, model: str | None, name: str | None, most: int
    ) -> list[Candidate]:
        """Labelled and newest versions with their newest evaluation on the task and model."""
        rows = self._queries.candidates(
            tx.connection, workspace=tx.workspace, task=task, model=model, name=name, most=most
        )
        return [Candidate(**{field: row[field] for field in Candidate.__slots__}) async for row in rows]

    async def bind(self, tx: Transaction, binding: Binding) -> None:
        fields = {name: getattr(binding, name) for name in Binding.__slots__ if name != "title"}
        await self._queries.bind_prompt(tx.connection, workspace=tx.workspace, **fields)

    async def unbind(self, tx: Transaction, name: str, model: str, use_case: str) -> bool:
        gone = await self._queries.unbind_prompt(
            tx.connection, workspace=tx.workspace, name=name, model=model, use_case=use_case
        )
        return bool(gone)

    async def bindings(
        self, tx: Transaction, name: str | None, model: str | None, use_case: str | None
    ) -> list[Binding]:
        rows = self._queries.bindings(tx.connection, workspace=tx.workspace, name=name, model=model, use_case=use_case)
        return [Binding(**{field: row[field] for field in Binding.__slots__}) async for row in rows]
