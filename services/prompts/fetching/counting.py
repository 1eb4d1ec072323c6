"""Who fetched what: counted in memory, written every few seconds."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict

from services.prompts.store import Fetcher, Store
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import MintmarkError

log = logging.getLogger(__name__)

MOST_KEPT = 20_000
"""Applications name themselves, so there may be any number of names; beyond this many they are counted as `others`."""

OTHERS = "others"


class Counting:
    """A worker. What a killed process had counted since its last write is lost: five seconds of figures."""

    name = "counting"

    def __init__(self, database: Database, store: Store, clock: Clock, every_s: float = 5.0) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._every_s = every_s
        self._counted: Counter[tuple[str, Fetcher]] = Counter()

    def count(self, workspace: str, fetcher: Fetcher) -> None:
        """One fetch; no I/O."""
        if len(self._counted) >= MOST_KEPT and (workspace, fetcher) not in self._counted:
            fetcher = Fetcher(fetcher.name, fetcher.version, OTHERS, "")
        self._counted[workspace, fetcher] += 1

    async def run(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._every_s)
                await self.write()
        finally:
            await self.write()

    async def write(self) -> None:
        """What was counted so far, a transaction a workspace; what cannot be written now is kept for the next time."""
        taken, self._counted = self._counted, Counter()
        by_workspace: dict[str, dict[Fetcher, int]] = defaultdict(dict)
        for (workspace, fetcher), fetches in taken.items():
            by_workspace[workspace][fetcher] = fetches
        for workspace, counted in by_workspace.items():
            try:
                async with self._database.begin(workspace) as tx:
                    await self._store.usages.add(tx, counted, self._clock())
            except MintmarkError as error:
                log.warning("usage could not be written", extra={"error": str(error)})
                if len(self._counted) < MOST_KEPT:
                    self._counted.update({(workspace, fetcher): fetches for fetcher, fetches in counted.items()})
