"""What many calls in one request share."""

from __future__ import annotations

from shared.db.database import Database
from shared.identity.principal import Principal


class Batches:
    """Each item runs in its own transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, caller: Principal) -> None:
        """Take the request's Idempotency-Key before the first item: an item that is refused would give it back."""
        async with self._database.begin(caller.workspace):
            pass
