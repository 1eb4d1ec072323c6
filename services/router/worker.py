"""What goes on beside requests: inference tables kept, aggregates kept, ramps moved on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import asyncpg

from services.router.comparison.ledger import FOLD_MOST, JOIN_MOST, SHADOWED_MOST, Ledger
from services.router.comparison.spans import HOURS_KEPT, MINUTES_KEPT
from services.router.handlers.archives import Archives
from services.router.handlers.batches import Batches
from services.router.handlers.deletions import Deletions
from services.router.handlers.measuring import Measuring
from services.router.handlers.ramps import Ramps
from services.router.tables.store import Row, TableStore
from shared import faults
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database, Transaction
from shared.errors import MintmarkError, Refused
from shared.ids import new_id

log = logging.getLogger(__name__)

VIEW_S = 5.0
FILTERS_KEPT = timedelta(days=7)
"""Longer than any row stays in a spool that is ever shipped."""
DAY_BEFORE = timedelta(days=1)
"""Grains are forgotten a day after views ceased to read them, whichever clock a reader goes by."""


class DayKeeper:
    """Makes days to come ahead of time; those older than their group keeps are archived or dropped, as it declares.

    Several may run: making a day twice is nothing, and so is dropping one. What cannot be archived stays.
    """

    name = "day-keeper"

    def __init__(self, database: Database, tables: TableStore, archives: Archives, clock: Clock, poll_s: float) -> None:
        self._database = database
        self._tables = tables
        self._archives = archives
        self._clock = clock
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
            await self._tables.make_days_ahead(tx)
            await self._tables.forget_filters(tx, self._clock() - FILTERS_KEPT)
            due = await self._tables.days_due(tx)
        for day in due:
            said = {"group": day["group_name"], "day": str(day["day"]), "policy": day["policy"]}
            try:
                await self._end(day)
            except (MintmarkError, asyncpg.PostgresError, OSError) as error:
                log.error("a day of rows stays beyond its time", extra={**said, "error": repr(error)[:500]})
            else:
                log.info("a day of rows has gone", extra=said)
        await self._archives.remove_replaced()

    async def _end(self, day: Row) -> None:
        if day["policy"] == "archive":
            await self._archives.retire_day(
                day["workspace"], day["group_name"], day["partition"], day["day"], "retention"
            )
            return
        async with self._database.begin(day["workspace"]) as tx:
            await self._tables.drop_day(tx, day["partition"])


class TableKeeper:
    """Makes a group's typed view anew when its champion is another, and carries out deletions that are due.

    Beside the promotion and not in it: a view that somebody reads for a minute must not keep traffic waiting. Several
    may run.
    """

    name = "table-keeper"

    def __init__(self, database: Database, tables: TableStore, deletions: Deletions, poll_s: float) -> None:
        self._database = database
        self._tables = tables
        self._deletions = deletions
        self._poll_s = poll_s

    async def run(self) -> None:
        """Look every `poll_s` seconds."""
        while True:
            await self.keep()
            faults.point("worker.between")
            await asyncio.sleep(self._poll_s)

    async def keep(self) -> None:
        """One look. A view that is being read just now is tried again at the next, and so is a deletion that failed."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            due = await self._tables.views_due(tx)
        for workspace, group in due:
            try:
                async with self._database.begin(workspace) as tx:
                    await self._tables.limit_time(tx, VIEW_S)
                    await self._tables.renew_view(tx, group)
            except asyncpg.PostgresError as error:
                log.warning("a group's view was not renewed", extra={"group": group, "error": repr(error)[:500]})
        try:
            for group in await self._deletions.carry_out():
                log.info("a group was deleted", extra={"group": group})
        except (MintmarkError, asyncpg.PostgresError, OSError) as error:
            log.error("a group was not deleted yet", extra={"error": repr(error)[:500]})


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
            shadowed = await self._ledger.groups_with_shadowed(tx)
        await self._each(behind, self._ledger.join, JOIN_MOST)
        await self._each(shadowed, self._ledger.join_shadowed, SHADOWED_MOST)
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


class Measurer:
    """Tells others what moved in each group. Several may run: a group is told of by who claims it."""

    name = "measurer"

    def __init__(self, measuring: Measuring, poll_s: float) -> None:
        self._measuring = measuring
        self._poll_s = poll_s

    async def run(self) -> None:
        """Look every `poll_s` seconds."""
        while True:
            await self.look()
            await asyncio.sleep(self._poll_s)

    async def look(self) -> None:
        """Every group that is due. One that fails is told of in the log and tried again at the next look."""
        for workspace, group in await self._measuring.due():
            faults.point("worker.between")
            try:
                await self._measuring.tell(workspace, group)
            except (MintmarkError, asyncpg.PostgresError) as error:
                log.error("a group's figures were not told", extra={"group": group, "error": repr(error)[:500]})


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


class BatchWorker:
    """Works batches off, some at a time. Several may run: a batch belongs to who has its lease."""

    name = "batch-worker"

    def __init__(self, batches: Batches, poll_s: float, jobs: int) -> None:
        self._batches = batches
        self._poll_s = poll_s
        self._jobs = jobs

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._jobs):
                group.create_task(self._one_after_another())

    async def _one_after_another(self) -> None:
        owner = new_id()
        while True:
            job = await self._batches.claim(owner)
            if job is None:
                await asyncio.sleep(self._poll_s)
                continue
            faults.point("worker.claimed")
            await self._batches.work(job, owner)
