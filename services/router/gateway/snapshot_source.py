"""Keeps the gateway's snapshot current: woken by NOTIFY, and asking every second in case a notice was lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import asyncpg

from services.router.gateway.postgres import LOST, connect
from services.router.gateway.snapshot import Snapshot, SnapshotBuilder
from shared.db.database import Database
from shared.db.queries import load

log = logging.getLogger(__name__)

CHANNEL = "router_snapshot"
LOAD_TIMEOUT_S = 10.0


class SnapshotSource:
    """Calls `take` with every new snapshot. While Postgres is away, the gateway goes on with the one it has."""

    def __init__(
        self, database: Database, builder: SnapshotBuilder, take: Callable[[Snapshot], None], *, poll_s: float
    ) -> None:
        self._queries = load("services.router")
        self._database = database
        self._builder = builder
        self._take = take
        self._poll_s = poll_s
        self._stamp: str | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except LOST as error:
                log.warning("the snapshot cannot be refreshed", extra={"error": str(error)})
            await asyncio.sleep(self._poll_s)

    async def _follow(self) -> None:
        """Load whenever the stamp differs, until the connection is lost."""
        connection = await connect(self._database, timeout_s=LOAD_TIMEOUT_S)
        try:
            changed = asyncio.Event()
            await connection.add_listener(CHANNEL, lambda *_: changed.set())
            while True:
                changed.clear()
                if await self._queries.snapshot_stamp(connection) != self._stamp:
                    await self._load(connection)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await changed.wait()
        finally:
            connection.terminate()

    async def _load(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            stamp = await self._queries.snapshot_stamp(connection)
            groups = [dict(row) async for row in self._queries.snapshot_groups(connection)]
            versions = [dict(row) async for row in self._queries.snapshot_versions(connection)]
        # In a thread: a thousand signatures take 0.1 s, and traffic must not stand still for them.
        snapshot = await asyncio.to_thread(self._builder.build, stamp, groups, versions)
        for refusal in snapshot.refusals:
            log.error("a version is not served", extra={"version": str(refusal.version), "reason": refusal.reason})
        self._take(snapshot)
        self._stamp = stamp
