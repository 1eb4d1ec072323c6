"""Trying parked events again: the head of each key with backoff, the next one when the head is handled or dead."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode

import asyncpg

from shared import faults
from shared.bus import dead_letters
from shared.bus.inbox import QUERIES, Caused, Inbox, backoff_s, code_of, patience
from shared.db.database import EVERY_WORKSPACE
from shared.errors import Early, MintmarkError, Unavailable
from shared.events.envelope import Envelope, Origin, decode
from shared.telemetry import metrics

log = logging.getLogger(__name__)

LOOK_S = 0.5


class Parking:
    """Works through what one consumer has parked. Several may run: each try locks its row."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._name = inbox.consumer.name

    async def run(self) -> None:
        """Try what is due, until cancelled."""
        while True:
            tried = 0
            try:
                tried = await self.try_due()
            except (MintmarkError, asyncpg.PostgresError, OSError) as error:
                log.warning("parked events wait", extra={"consumer": self._name, "error": repr(error)[:300]})
            if not tried:
                await asyncio.sleep(LOOK_S)

    async def try_due(self) -> int:
        """One try for every head that is due; returns how many were tried."""
        async with self._inbox.database.begin(EVERY_WORKSPACE) as tx:
            waiting = await QUERIES.parked_and_dead(tx.connection, consumer=self._name)
            metrics.parked_depth.labels(self._name).set(waiting["parked"])
            metrics.dlq_depth.labels(self._name).set(waiting["dead"])
            rows = []
            if waiting["parked"]:
                rows = [row async for row in QUERIES.due_heads(tx.connection, consumer=self._name)]
        for row in rows:
            await self._try(row)
        return len(rows)

    async def _try(self, row: asyncpg.Record) -> None:
        envelope = decode(
            row["data"], [(name, b64decode(value)) for name, value in row["headers"]], row["key"].encode()
        )
        origin = Origin(row["topic"], row["partition"], row["offset"], row["timestamp_ms"])
        try:
            async with self._inbox.database.begin(row["workspace"]) as tx:
                if not await self._lock(tx.connection, row["id"]):
                    return
                with Caused(envelope, self._name, envelope.type):
                    outcome = await self._inbox.handle(tx, envelope, origin)
                if outcome != "dead":
                    await self._settle(tx.connection, envelope, origin)
                await QUERIES.unpark(tx.connection, id=row["id"])
                faults.point("parking.handled")
            metrics.handled.labels(self._name, origin.topic, outcome).inc()
        except (Unavailable, asyncio.CancelledError):
            raise
        except Exception as error:
            await self._failed(row, envelope, origin, error)

    async def _lock(self, connection: asyncpg.Connection, row_id: int) -> bool:
        return bool(await QUERIES.lock_parked(connection, id=row_id))

    async def _settle(self, connection: asyncpg.Connection, envelope: Envelope, origin: Origin) -> None:
        event = {
            "workspace": envelope.workspace,
            "consumer": self._name,
            "source": envelope.source,
        }
        await QUERIES.settle(connection, **event, event_id=envelope.id)
        if envelope.sequence is not None:
            await QUERIES.advance_position(
                connection, **event, topic=origin.topic, key=envelope.subject, sequence=envelope.sequence
            )

    async def _failed(self, row: asyncpg.Record, envelope: Envelope, origin: Origin, error: Exception) -> None:
        attempts = row["attempts"] + 1
        async with self._inbox.database.begin(row["workspace"]) as tx:
            if not await self._lock(tx.connection, row["id"]):
                return
            if attempts < patience(self._inbox.consumer, error):
                await QUERIES.retry_later(
                    tx.connection,
                    id=row["id"],
                    attempts=attempts,
                    error_code=code_of(error),
                    error=str(error)[:2000],
                    wait_s=backoff_s(attempts),
                )
                return
            await dead_letters.bury(tx, self._inbox.service, self._name, envelope, origin, error, attempts)
            await QUERIES.unpark(tx.connection, id=row["id"])
        log.log(
            logging.WARNING if isinstance(error, Early) else logging.ERROR,
            "event is dead",
            extra={
                "consumer": self._name,
                "event_id": envelope.id,
                "type": envelope.type,
                "attempts": attempts,
                "error": str(error)[:500],
            },
            exc_info=None if isinstance(error, MintmarkError) else error,
        )
