"""Tables foreign_proposal and foreign_mapping."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from services.registry.foreign.fields import Field
from services.registry.foreign.proposal import Mapping, Proposal, Rule
from shared.db.database import Transaction


class Proposals:
    """`queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    async def add(self, tx: Transaction, proposal: Proposal) -> None:
        await self._sql.keep_proposal(
            tx.connection,
            workspace=tx.workspace,
            id=proposal.id,
            document=proposal.document,
            shape=proposal.shape,
            mapping=proposal.mapping,
            fields=_documents(proposal.fields),
            unmapped=proposal.unmapped,
            notes=list(proposal.notes),
            made_by=proposal.made_by,
            made_at=proposal.made_at,
        )

    async def one(self, tx: Transaction, proposal_id: UUID, *, lock: bool = False) -> Proposal | None:
        query = self._sql.lock_proposal if lock else self._sql.proposal
        row = await query(tx.connection, workspace=tx.workspace, id=proposal_id)
        return None if row is None else _proposal(row)

    async def correct(self, tx: Transaction, proposal: Proposal) -> None:
        """Keep a held proposal's fields, and what they leave."""
        await self._sql.correct_proposal(
            tx.connection,
            workspace=tx.workspace,
            id=proposal.id,
            fields=_documents(proposal.fields),
            unmapped=proposal.unmapped,
        )

    async def accept(
        self, tx: Transaction, proposal: Proposal, urn: str, submission_id: UUID, version: int | None, at: datetime
    ) -> None:
        await self._sql.accept_proposal(
            tx.connection,
            workspace=tx.workspace,
            id=proposal.id,
            urn=urn,
            submission_id=submission_id,
            version=version,
            at=at,
        )

    async def before(self, tx: Transaction, before: UUID, most: int) -> list[Proposal]:
        rows = self._sql.proposals_before(tx.connection, workspace=tx.workspace, before=before, most=most)
        return [_proposal(row) async for row in rows]

    async def of_version(self, tx: Transaction, urn: str, version: int) -> list[Proposal]:
        """The proposals that became a version: the same one may have been imported more than once."""
        rows = self._sql.proposals_of(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return [_proposal(row) async for row in rows]

    async def keep_mapping(self, tx: Transaction, mapping: Mapping) -> None:
        await self._sql.keep_mapping(
            tx.connection,
            workspace=tx.workspace,
            name=mapping.name,
            shape=mapping.shape,
            rules=[rule.model_dump(mode="json") for rule in mapping.rules],
            made_by=mapping.made_by,
            made_at=mapping.made_at,
        )

    async def mapping(self, tx: Transaction, name: str) -> Mapping | None:
        row = await self._sql.mapping(tx.connection, workspace=tx.workspace, name=name)
        return None if row is None else _mapping(row)

    async def mapping_of_shape(self, tx: Transaction, shape: str) -> Mapping | None:
        row = await self._sql.mapping_of_shape(tx.connection, workspace=tx.workspace, shape=shape)
        return None if row is None else _mapping(row)

    async def mappings(self, tx: Transaction) -> list[Mapping]:
        return [_mapping(row) async for row in self._sql.mappings(tx.connection, workspace=tx.workspace)]

    async def drop_mapping(self, tx: Transaction, name: str) -> bool:
        """False where there is none."""
        return bool(await self._sql.drop_mapping(tx.connection, workspace=tx.workspace, name=name))


def _documents(found: tuple[Field, ...]) -> list[dict[str, Any]]:
    return [one.model_dump(mode="json") for one in found]


def _proposal(row: Any) -> Proposal:
    return Proposal(
        id=row["id"],
        document=row["document"],
        shape=row["shape"],
        mapping=row["mapping"],
        fields=tuple(Field.model_validate(one) for one in row["fields"]),
        unmapped=row["unmapped"],
        notes=tuple(row["notes"]),
        made_by=row["made_by"],
        made_at=row["made_at"],
        urn=row["urn"],
        submission_id=row["submission_id"],
        version=row["version"],
        accepted_at=row["accepted_at"],
    )


def _mapping(row: Any) -> Mapping:
    return Mapping(
        name=row["name"],
        shape=row["shape"],
        rules=tuple(Rule.model_validate(rule) for rule in row["rules"]),
        made_by=row["made_by"],
        made_at=row["made_at"],
    )
