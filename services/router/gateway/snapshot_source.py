"""Keeps the gateway's snapshot current: woken by NOTIFY, and asking every second in case a notice was lost.

What it was made of is kept in a file, so that a gateway starts and serves while Postgres is away. The file is no way
around an approval: each is verified anew, whatever it comes from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from services.router.gateway.postgres import LOST, connect
from services.router.gateway.snapshot import Snapshot, SnapshotBuilder
from shared.db.database import Database
from shared.db.queries import load

log = logging.getLogger(__name__)

CHANNEL = "router_snapshot"
LOAD_TIMEOUT_S = 10.0
BROKEN_S = 10.0


class SnapshotSource:
    """Calls `take` with every new snapshot. While Postgres is away, the gateway goes on with the one it has."""

    def __init__(
        self,
        database: Database,
        builder: SnapshotBuilder,
        take: Callable[[Snapshot], None],
        *,
        kept: Path,
        poll_s: float,
    ) -> None:
        self._queries = load("services.router")
        self._database = database
        self._builder = builder
        self._take = take
        self._kept = kept
        self._poll_s = poll_s
        self._stamp: str | None = None
        self._load_again_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take the snapshot that was kept, if there is one, and begin to follow."""
        await self._take_kept()
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
            except Exception:  # what is served stays as it is until it can be read again
                log.exception("the snapshot cannot be refreshed")
            await asyncio.sleep(self._poll_s)

    async def _follow(self) -> None:
        """Load whenever the stamp differs, until the connection is lost."""
        connection = await connect(self._database, timeout_s=LOAD_TIMEOUT_S)
        try:
            changed = asyncio.Event()
            await connection.add_listener(CHANNEL, lambda *_: changed.set())
            while True:
                changed.clear()
                is_due = self._load_again_at is not None and time.monotonic() >= self._load_again_at
                if is_due or await self._queries.snapshot_stamp(connection) != self._stamp:
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
            providers = [dict(row) async for row in self._queries.snapshot_providers(connection)]
            classes = [dict(row) async for row in self._queries.snapshot_classes(connection)]
        # In a thread: a thousand signatures take 0.1 s, and traffic must not stand still for them.
        snapshot = await asyncio.to_thread(self._builder.build, stamp, groups, versions, providers, classes)
        for refusal in snapshot.refusals:
            log.error("a version is not served", extra={"version": str(refusal.version), "reason": refusal.reason})
        for broken in snapshot.broken:
            log.error("a provider's key cannot be opened", extra={"provider": broken})
        for group, unread in snapshot.unread.items():
            message = "a group cannot be read; it is not served"
            if unread.revision is not None:
                message = "a group cannot be read; it goes on as it was"
            log.error(message, extra={"group": group, "revision": unread.revision, "error": unread.error})
        self._take(snapshot)
        self._stamp = stamp
        # A master key may come back, which nobody notifies; a group that cannot be read is complained of again.
        self._load_again_at = time.monotonic() + BROKEN_S if snapshot.broken or snapshot.unread else None
        kept = {
            "stamp": stamp, "groups": self._builder.readable(groups), "versions": versions, "providers": providers,
            "classes": classes,
        }  # fmt: skip
        try:
            await asyncio.to_thread(_keep, self._kept, kept)
        except OSError as error:
            log.warning("the snapshot cannot be kept", extra={"file": str(self._kept), "error": str(error)})

    async def _take_kept(self) -> None:
        try:
            kept = orjson.loads(await asyncio.to_thread(self._kept.read_bytes))
            snapshot = await asyncio.to_thread(
                self._builder.build,
                kept["stamp"], kept["groups"], kept["versions"], kept["providers"], kept.get("classes", ()),
            )  # fmt: skip
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the kept snapshot cannot be read", extra={"file": str(self._kept), "error": repr(error)})
            return
        log.info("serving the kept snapshot until Postgres answers", extra={"groups": len(snapshot.routes)})
        self._take(snapshot)


def _keep(file: Path, content: dict[str, Any]) -> None:
    """Whole or not at all: several processes keep the same file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(orjson.dumps(content))
    fresh.chmod(0o600)
    fresh.replace(file)
