"""Rows of schema `prompts` and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.db.database import Transaction


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """One published version, and what became of it at the registry."""

    name: str
    version: int
    digest: str
    content: dict[str, Any]
    commit_message: str
    author: str
    submission_id: UUID
    state: str
    asset_version: int | None
    asset_digest: str | None
    code: str | None
    reason: str | None
    published_at: datetime


@dataclass(frozen=True, slots=True)
class LabelMove:
    """A label went from `before` to `after`; None is nowhere. `id` counts the moves of all labels."""

    id: int
    label: str
    before: int | None
    after: int | None
    reason: str
    actor: str
    at: datetime


class Store:
    """Reads and writes inside the caller's transaction."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def lock(self, tx: Transaction, name: str) -> int:
        """Hold the prompt until commit; its last version number, 0 when it is new."""
        return int(await self._queries.lock_prompt(tx.connection, workspace=tx.workspace, name=name))

    async def add(self, tx: Transaction, version: PromptVersion) -> None:
        own = {"workspace": tx.workspace, "name": version.name, "version": version.version}
        await self._queries.add_version(
            tx.connection,
            **own,
            digest=version.digest,
            content=version.content,
            commit_message=version.commit_message,
            author=version.author,
            submission_id=version.submission_id,
            published_at=version.published_at,
        )
        await self._queries.count_version(tx.connection, **own)

    async def decide(
        self,
        tx: Transaction,
        submission_id: UUID,
        *,
        registered: tuple[int, str] | None = None,
        refused: tuple[str, str] | None = None,
    ) -> None:
        """Keep version and digest at the registry, or code and reason of its refusal."""
        await self._queries.decide_version(
            tx.connection,
            workspace=tx.workspace,
            submission_id=submission_id,
            state="registered" if registered else "refused",
            asset_version=registered[0] if registered else None,
            asset_digest=registered[1] if registered else None,
            code=refused[0] if refused else None,
            reason=refused[1] if refused else None,
        )

    async def version(self, tx: Transaction, name: str, version: int) -> PromptVersion | None:
        row = await self._queries.version(tx.connection, workspace=tx.workspace, name=name, version=version)
        return _version(row)

    async def newest(self, tx: Transaction, name: str, at: datetime | None = None) -> PromptVersion | None:
        return _version(await self._queries.newest(tx.connection, workspace=tx.workspace, name=name, at=at))

    async def versions(self, tx: Transaction, name: str, before: int, most: int) -> list[PromptVersion]:
        rows = self._queries.versions(tx.connection, workspace=tx.workspace, name=name, before=before, most=most)
        return [found async for row in rows if (found := _version(row))]

    async def prompts(self, tx: Transaction, after: str, most: int) -> list[tuple[str, int]]:
        """Names with their last version numbers."""
        rows = self._queries.prompts(tx.connection, workspace=tx.workspace, after=after, most=most)
        return [(row["name"], row["last_version"]) async for row in rows]

    async def label(self, tx: Transaction, name: str, label: str, at: datetime | None = None) -> LabelMove | None:
        row = await self._queries.label(tx.connection, workspace=tx.workspace, name=name, label=label, at=at)
        return None if row is None else _move(row)

    async def labels(self, tx: Transaction, name: str) -> list[LabelMove]:
        return [_move(row) async for row in self._queries.labels(tx.connection, workspace=tx.workspace, name=name)]

    async def label_history(self, tx: Transaction, name: str, label: str) -> list[LabelMove]:
        rows = self._queries.label_history(tx.connection, workspace=tx.workspace, name=name, label=label)
        return [_move(row) async for row in rows]

    async def move_label(
        self, tx: Transaction, name: str, label: str, points: tuple[int | None, int], who: tuple[str, str], at: datetime
    ) -> None:
        """`points` is (before, after), `who` is (actor, reason)."""
        await self._queries.move_label(
            tx.connection,
            workspace=tx.workspace,
            name=name,
            label=label,
            before=points[0],
            after=points[1],
            actor=who[0],
            reason=who[1],
            at=at,
        )


def _version(row: Any) -> PromptVersion | None:
    if row is None:
        return None
    return PromptVersion(**{name: row[name] for name in PromptVersion.__slots__})


def _move(row: Any) -> LabelMove:
    return LabelMove(**{name: row[name] for name in LabelMove.__slots__})
