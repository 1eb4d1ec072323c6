"""Aliases and stages: logs of moves, of which the last one counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.registry.domain.standing import Protection
from shared.db.database import Transaction
from shared.events.base import Actor


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a pointer. Of an alias: `name` is the alias, `before` and `after` are versions.

    Of a stage: `version` is the version that moved, `before` and `after` are stages.
    """

    name: str | None
    version: int | None
    revision: int
    before: Any
    after: Any
    who: Actor
    reason: str
    at: datetime


class Pointers:
    """Tables alias_move, stage_move and protection."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def alias(self, tx: Transaction, urn: str, alias: str, at: datetime) -> Move | None:
        """The last move at or before a moment; its `after` is None where the alias was removed."""
        row = await self._queries.alias(tx.connection, workspace=tx.workspace, urn=urn, alias=alias, at=at)
        return None if row is None else _alias(row)

    async def aliases_of(self, tx: Transaction, urns: Sequence[str]) -> list[tuple[str, Move]]:
        """Where every alias of some assets points now, with the asset's URN."""
        rows = self._queries.aliases_of(tx.connection, workspace=tx.workspace, urns=list(urns))
        return [(row["urn"], _alias(row)) async for row in rows]

    async def aliases(self, tx: Transaction, urn: str, at: datetime) -> list[Move]:
        """Every alias that pointed somewhere at a moment."""
        rows = self._queries.aliases(tx.connection, workspace=tx.workspace, urn=urn, at=at)
        return [_alias(row) async for row in rows]

    async def alias_history(self, tx: Transaction, urn: str, alias: str, before: int, most: int) -> list[Move]:
        rows = self._queries.alias_history(
            tx.connection, workspace=tx.workspace, urn=urn, alias=alias, before=before, most=most
        )
        return [_alias(row) async for row in rows]

    async def move(self, tx: Transaction, urn: str, move: Move) -> None:
        """Keep a move, of an alias if it has a name, else of a version's stage."""
        said = {
            "workspace": tx.workspace, "urn": urn, "revision": move.revision, "before": move.before,
            "after": move.after, "who": move.who.id, "who_proven": move.who.proven, "reason": move.reason,
            "at": move.at,
        }  # fmt: skip
        if move.name is None:
            await self._queries.move_stage(tx.connection, version=move.version, **said)
        else:
            await self._queries.move_alias(tx.connection, alias=move.name, **said)

    async def stage(self, tx: Transaction, urn: str, version: int, at: datetime) -> Move | None:
        """The last move of a version at or before a moment; None while it is in development."""
        row = await self._queries.stage(tx.connection, workspace=tx.workspace, urn=urn, version=version, at=at)
        return None if row is None else _stage(row)

    async def stages(self, tx: Transaction, urn: str, versions: Iterable[int]) -> dict[int, str]:
        """The present stage of each version that ever moved."""
        rows = self._queries.stages(tx.connection, workspace=tx.workspace, urn=urn, versions=list(versions))
        return {row["version"]: row["after"] async for row in rows}

    async def stages_of(self, tx: Transaction, versions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """The present stage of each of these versions that ever moved, in one query."""
        rows = self._queries.stages_of(
            tx.connection, workspace=tx.workspace, urns=[urn for urn, _ in versions], versions=[n for _, n in versions]
        )
        return {(row["urn"], row["version"]): row["after"] async for row in rows}

    async def in_stage(self, tx: Transaction, urn: str, stage: str, at: datetime) -> list[Move]:
        """The moves by which versions came into the stage that they were in at a moment, latest first."""
        rows = self._queries.in_stage(tx.connection, workspace=tx.workspace, urn=urn, stage=stage, at=at)
        return [_stage(row) async for row in rows]

    async def left_stage(self, tx: Transaction, urn: str, stage: str, not_version: int) -> Move | None:
        """The last move by which another version left a stage."""
        row = await self._queries.left_stage(
            tx.connection, workspace=tx.workspace, urn=urn, stage=stage, not_version=not_version
        )
        return None if row is None else _stage(row)

    async def stage_history(self, tx: Transaction, urn: str, version: int, before: int, most: int) -> list[Move]:
        rows = self._queries.stage_history(
            tx.connection, workspace=tx.workspace, urn=urn, version=version, before=before, most=most
        )
        return [_stage(row) async for row in rows]

    async def protection(self, tx: Transaction) -> Protection:
        """What policy protects in the workspace."""
        return Protection.read(await self._queries.protection(tx.connection, workspace=tx.workspace))

    async def protect(self, tx: Transaction, number: int, document: dict[str, Any]) -> None:
        """Policy's word on it, unless a newer one was heard before."""
        await self._queries.put_protection(tx.connection, workspace=tx.workspace, number=number, document=document)

    async def retired_among(self, tx: Transaction, versions: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
        """Of these versions, the ones that are retired."""
        urns, numbers = [urn for urn, _ in versions], [number for _, number in versions]
        rows = self._queries.retired_among(tx.connection, workspace=tx.workspace, urns=urns, versions=numbers)
        return {(row["urn"], row["version"]) async for row in rows}


def _alias(row: Any) -> Move:
    return _move(row, row["alias"], row["after"])


def _stage(row: Any) -> Move:
    return _move(row, None, row["version"])


def _move(row: Any, name: str | None, version: int | None) -> Move:
    return Move(
        name=name, version=version, revision=row["revision"], before=row["before"], after=row["after"],
        who=Actor(id=row["who"], proven=row["who_proven"]), reason=row["reason"], at=row["at"],
    )  # fmt: skip
