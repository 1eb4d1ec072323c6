"""Prompts and their immutable versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.prompts.errors import TitleTaken
from shared.db.database import Transaction
from shared.events.names import name_of


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt under the name of its URN and under what people call it."""

    name: str
    title: str
    last_version: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """One published version, and what became of it at the registry. `proposal` names the proposal it was made for."""

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
    proposal: UUID | None = None


class Versions:
    """Tables prompt and prompt_version."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def find(self, tx: Transaction, given: str) -> Prompt | None:
        """The prompt with this title, else with this name."""
        row = await self._queries.find_prompt(tx.connection, workspace=tx.workspace, given=given)
        return None if row is None else _prompt(row)

    async def hold(self, tx: Transaction, given: str) -> Prompt:
        """The prompt of a title or name, made if need be and locked until commit. Raises TitleTaken."""
        known = await self.find(tx, given)
        name, title = (known.name, known.title) if known else (name_of(given), given)
        row = await self._queries.lock_prompt(tx.connection, workspace=tx.workspace, name=name, title=title)
        prompt = _prompt(row)
        if prompt.title != title:
            raise TitleTaken(
                f"{title[:100]!r} and {prompt.title[:100]!r} make the same name {name}; take another title"
            )
        return prompt

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
            proposal=version.proposal,
        )
        await self._queries.count_version(tx.connection, **own)

    async def tag(self, tx: Transaction, name: str, tags: Sequence[str]) -> None:
        await self._queries.tag_prompt(tx.connection, workspace=tx.workspace, name=name, tags=list(tags))

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

    async def one(self, tx: Transaction, name: str, version: int) -> PromptVersion | None:
        row = await self._queries.version(tx.connection, workspace=tx.workspace, name=name, version=version)
        return _version(row)

    async def newest(self, tx: Transaction, name: str, at: datetime | None = None) -> PromptVersion | None:
        return _version(await self._queries.newest(tx.connection, workspace=tx.workspace, name=name, at=at))

    async def before(self, tx: Transaction, name: str, before: int, most: int) -> list[PromptVersion]:
        """Versions below a number, newest first."""
        rows = self._queries.versions(tx.connection, workspace=tx.workspace, name=name, before=before, most=most)
        return [found async for row in rows if (found := _version(row))]

    async def prompts(self, tx: Transaction, after: str, most: int) -> list[Prompt]:
        """Prompts by name, behind one."""
        rows = self._queries.prompts(tx.connection, workspace=tx.workspace, after=after, most=most)
        return [_prompt(row) async for row in rows]


def _prompt(row: Any) -> Prompt:
    return Prompt(row["name"], row["title"], row["last_version"], tuple(row["tags"]))


def _version(row: Any) -> PromptVersion | None:
    if row is None:
        return None
    return PromptVersion(**{name: row[name] for name in PromptVersion.__slots__})
