"""Keeps the inference tables' days: makes those to come ahead of time, and drops those older than their group keeps."""

from __future__ import annotations

import asyncio
import logging

from services.router.store import Store
from shared import faults
from shared.db.database import EVERY_WORKSPACE, Database

log = logging.getLogger(__name__)


class DayKeeper:
    """Several may run: making a day twice is nothing, and so is dropping one."""

    name = "day-keeper"

    def __init__(self, database: Database, store: Store, poll_s: float) -> None:
        self._database = database
        self._store = store
        self._poll_s = poll_s

    async def run(self) -> None:
        """Look every `poll_s` seconds."""
        while True:
            await self.keep()
            faults.point("worker.between")
            await asyncio.sleep(self._poll_s)

    async def keep(self) -> None:
        """One look."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            await self._store.make_days_ahead(tx)
            due = await self._store.days_due(tx)
        for day in due:
            async with self._database.begin(day["workspace"]) as tx:
                await self._store.drop_day(tx, day["partition"])
            log.info("a day of rows was dropped", extra={"group": day["group_name"], "day": str(day["day"])})
