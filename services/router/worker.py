"""What goes on beside requests: days of the inference tables, aggregates kept, ramps moved on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import asyncpg

from services.router.comparison.ledger import FOLD_MOST, JOIN_MOST, Ledger
from services.router.comparison.spans import HOURS_KEPT, MINUTES_KEPT
from services.router.handlers.ramps import Ramps
from services.router.tables.store import TableStore
from shared import faults
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database, Transaction
from shared.errors import Refused
from shared.ids import new_id

log = logging.getLogger(__name__)

VIEW_S = 5.0
DAY_BEFORE = timedelta(days=1)
"""Grains are forgotten a day after views ceased to read them, whichever clock a reader goes by."""


class DayKeeper:
    """Makes days to come ahead of time, and drops those older than their group keeps.

    Several may run: making a day twice is nothing, and so is dropping one.
    """

    name = "day-keeper"

    def __init__(self, database: Database, store: TableStore, poll_s: float) -> None:
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


class ViewKeeper:
    """Makes a group's typed view anew when its champion is another. Beside the promotion and not in it: a view that
    somebody reads for a minute must not keep traffic waiting. Several may run."""

    name = "view-keeper"

    def __init__(self, database: Database, store: TableStore, poll_s: float) -> None:
        self._database = database
        self._store = store
        self._poll_s = poll_s

    async def run(self) -> None:
        """Look every `poll_s` seconds."""
        while True:
            await self.keep()
            await asyncio.sleep(self._poll_s)

    async def keep(self) -> None:
        """One look. A view that is being read just now is tried again at the next."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            due = await self._store.views_due(tx)
        for workspace, group in due:
            try:
                async with self._database.begin(workspace) as tx:
                    await self._store.limit_time(tx, VIEW_S)
                    await self._store.renew_view(tx, group)
            except asyncpg.PostgresError as error:
                log.warning("a group's view was not renewed", extra={"group": group, "error": repr(error)[:500]})


class Comparer:
    """Joins words with their rows and folds what was recorded. Several may run: one at a time is at a group."""

    name = "comparer"

    def __init__(self, database: Database, ledger: Ledger, clock: Clock, poll_s: float) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._poll_s = poll_s
        self._pruned_at: datetime | None = None

    async def run(self) -> None:
        """Look, then look again after `poll_s` seconds; old grains go once an hour."""
        while True:
            await self.look()
            now = self._clock()
            if self._pruned_at is None or now - self._pruned_at > timedelta(hours=1):
                async with self._database.begin(EVERY_WORKSPACE) as tx:
                    await self._ledger.prune(tx, now - MINUTES_KEPT - DAY_BEFORE, now - HOURS_KEPT - DAY_BEFORE)
                self._pruned_at = now
            await asyncio.sleep(self._poll_s)

    async def look(self) -> None:
        """Everything that is due now. A group whose words or sums fail is told of and passed over, not waited for."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            behind = await self._ledger.groups_with_due_words(tx)
        await self._each(behind, self._ledger.join, JOIN_MOST)
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            behind = await self._ledger.groups_with_deltas(tx)
        await self._each(behind, self._ledger.fold, FOLD_MOST)

    async def _each(
        self, groups: list[tuple[str, str]], work: Callable[[Transaction, str], Awaitable[int]], most: int
    ) -> None:
        for workspace, group in groups:
            full = True
            try:
                while full:
                    async with self._database.begin(workspace) as tx:
                        full = await work(tx, group) == most
                    faults.point("worker.between")
            except (Refused, asyncpg.PostgresError) as error:
                log.error("a group's comparison fell behind", extra={"group": group, "error": repr(error)[:500]})


class RampDriver:
    """Moves ramps on. Several may run: a ramp belongs to who has its lease."""

    name = "ramp-driver"

    def __init__(self, ramps: Ramps, poll_s: float) -> None:
        self.ramps = ramps
        self._poll_s = poll_s
        self._id = new_id()

    async def run(self) -> None:
        while True:
            for ramp_id, workspace in await self.ramps.claim(self._id):
                faults.point("worker.between")
                await self.ramps.step(ramp_id, workspace, self._id)
            await asyncio.sleep(self._poll_s)
