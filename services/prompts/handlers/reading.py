"""Reading: one version by number, label or time; versions, prompts, differences; rendering."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.prompts.domain import differences
from services.prompts.domain.content import LATEST
from services.prompts.errors import PromptNotFound
from services.prompts.rendering import Rendering
from services.prompts.store import Filter, Listed, Prompt, PromptVersion, Store
from shared.db.database import Database, Transaction
from shared.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version is meant: by number, else by label, as of a time."""

    version: int | None = None
    label: str = LATEST
    at: datetime | None = None

    def __str__(self) -> str:
        what = f"version {self.version}" if self.version is not None else f"label {self.label!r}"
        return what + (f" at {self.at.isoformat()}" if self.at else "")


@dataclass(frozen=True, slots=True)
class Found:
    """A version with its prompt and the labels that point at it now."""

    prompt: Prompt
    version: PromptVersion
    labels: list[str] = field(default_factory=list)
    newest: int | None = None
    """The number that `latest` points at."""


class Reading:
    """Nothing here changes anything."""

    def __init__(self, database: Database, store: Store, rendering: Rendering) -> None:
        self._database = database
        self._store = store
        self._rendering = rendering

    async def one(self, caller: Principal, given: str, pointer: Pointer) -> Found:
        """One version. Raises PromptNotFound."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._found(tx, given, pointer)

    async def _found(self, tx: Transaction, given: str, pointer: Pointer) -> Found:
        prompt = await self._store.versions.find(tx, given)
        found = await self._version(tx, prompt, pointer) if prompt else None
        if prompt is None or found is None:
            raise PromptNotFound(f"prompt {given!r} has no {pointer}")
        labels = [move.label for move in await self._store.labels.of(tx, prompt.name) if move.after == found.version]
        newest = await self._store.versions.newest(tx, prompt.name)
        return Found(prompt, found, labels, newest.version if newest else None)

    async def _version(self, tx: Transaction, prompt: Prompt, pointer: Pointer) -> PromptVersion | None:
        if pointer.version is not None:
            return await self._store.versions.one(tx, prompt.name, pointer.version)
        if pointer.label == LATEST:
            return await self._store.versions.newest(tx, prompt.name, pointer.at)
        move = await self._store.labels.one(tx, prompt.name, pointer.label, pointer.at)
        return await self._store.versions.one(tx, prompt.name, move.after) if move and move.after else None

    async def versions(self, caller: Principal, given: str, before: int, most: int) -> tuple[Prompt, list[Found]]:
        """Versions, newest first, with their labels. Raises PromptNotFound when there is none at all."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.find(tx, given)
            if prompt is None:
                raise PromptNotFound(f"there is no prompt {given!r}")
            labels: dict[int | None, list[str]] = {}
            for move in await self._store.labels.of(tx, prompt.name):
                labels.setdefault(move.after, []).append(move.label)
            versions = await self._store.versions.before(tx, prompt.name, before, most)
        return prompt, [Found(prompt, version, labels.get(version.version, [])) for version in versions]

    async def prompts(self, caller: Principal, after: str, most: int) -> list[Prompt]:
        """Prompts by name."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._store.versions.prompts(tx, after, most)

    async def listed(self, caller: Principal, wanted: Filter, skip: int, most: int) -> tuple[int, list[Listed]]:
        """How many prompts there are, and a page of them by title."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._store.listing.page(tx, wanted, skip, most)

    async def diff(self, caller: Principal, given: str, before: int, after: int) -> dict[str, Any]:
        """How two versions differ: as written, as used, in variables and in what they include."""
        async with self._database.begin(caller.workspace) as tx:
            first = await self._found(tx, given, Pointer(before))
            second = await self._found(tx, given, Pointer(after))
        title = first.prompt.title
        named = [(f"{title}@{found.version.version}", found.version.content) for found in (first, second)]
        resolved = [(name, differences.resolved_of(content)) for name, content in named]
        return {
            "diff": differences.difference(named[0], named[1]),
            "resolved": differences.difference(resolved[0], resolved[1]),
            **differences.changes(named[0][1], named[1][1]),
        }

    async def render(
        self, caller: Principal, given: str, pointer: Pointer, variables: dict[str, Any]
    ) -> tuple[Found, dict[str, Any]]:
        """A version with its variables filled in. Raises PromptNotFound, RenderRefused, RenderTooLarge."""
        found = await self.one(caller, given, pointer)
        return found, await self._rendering.render(caller.workspace, found.version.content, variables)
