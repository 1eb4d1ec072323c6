"""What is asked: submissions, assets, versions."""

from __future__ import annotations

from uuid import UUID

from services.registry.domain import Version
from services.registry.store import Store, Submission
from shared.db.database import Database
from shared.errors import NotFound
from shared.identity.principal import Principal


class Reading:
    """Answers from this workspace alone."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store

    async def submission(self, caller: Principal, submission_id: UUID) -> Submission:
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.submission(tx, submission_id)
        if found is None:
            raise NotFound(f"there is no submission {submission_id}")
        return found

    async def version(self, caller: Principal, urn: str, number: int) -> Version:
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.version(tx, urn, number)
        if found is None:
            raise NotFound(f"there is no {urn}@{number}")
        return found

    async def versions(self, caller: Principal, urn: str, before: int, most: int) -> list[Version]:
        """Newest first, below a number. Raises NotFound for an asset that is not there."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.versions_before(tx, urn, before, most)
            if not found and not await self._store.versions_before(tx, urn, 2**31 - 1, 1):
                raise NotFound(f"there is no {urn}")
        return found
