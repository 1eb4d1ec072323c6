"""Who fetches a prompt."""

from __future__ import annotations

from datetime import timedelta

from services.prompts.errors import PromptNotFound
from services.prompts.store import Store, Usage
from shared.clock import Clock
from shared.db.database import Database
from shared.identity.principal import Principal


class Usages:
    """Counted by the fetch path, in batches of a few seconds."""

    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock

    async def of(self, caller: Principal, given: str, days: int) -> list[Usage]:
        """Fetches of the last days by version, application and group. Raises PromptNotFound."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.find(tx, given)
            if prompt is None:
                raise PromptNotFound(f"there is no prompt {given!r}")
            return await self._store.usages.of(tx, prompt.name, self._clock() - timedelta(days=days))
