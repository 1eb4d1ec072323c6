"""The way out: takes events from the outbox to Kafka, in order per key, and removes a row only when Kafka has it.

One relay of a service is active at a time (a Postgres advisory lock on its own connection); any number may run,
the others stand by. Rows are always read from the front, never past a remembered id: ids do not commit in order.
An event that Kafka finds too large goes to the dead letters, and those after it go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from base64 import b64decode

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from shared import faults
from shared.bus import dead_letters
from shared.bus.dead_letters import TOO_LARGE
from shared.bus.transport import KafkaSettings
from shared.db.database import EVERY_WORKSPACE, FLUSH, GONE, Database
from shared.errors import MintmarkError
from shared.events.envelope import Envelope
from shared.telemetry import metrics

log = logging.getLogger(__name__)

LOCK = 0x72656C61  # "rela"
ROUND_ROWS = 500
ROUND_BYTES = 8 * 1024 * 1024  # bounds memory when rows are large
PACE_S = 0.008  # at the least after a round of several: under load each carries more; a lone event goes at once
POLL_S = 1.0  # the fallback when no notification comes
STANDBY_S = 1.0  # how soon a stand-by relay takes over

# `unflushed`: the snapshot may show what is not on the disk yet, as consumers commit without waiting for it.
FETCH = f"""
SELECT *, pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn() AS unflushed FROM (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY id) - octet_length(data) AS before
    FROM (SELECT * FROM outbox WHERE id <> ALL($1::bigint[]) ORDER BY id LIMIT {ROUND_ROWS}) AS front
) AS sized WHERE before < {ROUND_BYTES} ORDER BY id
"""


class Relay:
    """Publishes one service's outbox. `run` never returns by itself; it outlives brokers and databases."""

    def __init__(self, database: Database, kafka: KafkaSettings, service: str) -> None:
        self._database = database
        self._kafka = kafka
        self._service = service
        self._filled = asyncio.Event()
        self._notify = asyncio.Event()
        self._leading = False
        self._stopping = False
        self._producer: AIOKafkaProducer | None = None
        self._left: set[int] = set()
        """Rows that not even the dead letters take: passed over until a relay starts anew."""
        database.outbox_filled = self.wake

    @property
    def channel(self) -> str:
        """The LISTEN channel of this service's outbox."""
        return f"mintmark_outbox_{self._database.schema}"

    def wake(self) -> None:
        """Something was committed: straight to the relay here, by NOTIFY to one that leads elsewhere.

        NOTIFY goes out after the commit, one for a burst: inside the transaction it would take a lock
        that makes all commits of the database wait for each other.
        """
        if self._leading:
            self._filled.set()
        else:
            self._notify.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        notifier = asyncio.create_task(self._notify_others())
        try:
            while not self._stopping:
                try:
                    await self._lead()
                except (*GONE, asyncpg.PostgresError, KafkaError, MintmarkError) as error:
                    metrics.publish_failures.labels(self._service).inc()
                    log.warning("relay starts over", extra={"service": self._service, "error": repr(error)[:300]})
                    await asyncio.sleep(0.5)
        finally:
            notifier.cancel()
            await self._drop_producer()

    async def drain(self, within_s: float) -> None:
        """Stop after the outbox was found empty once, or after `within_s` seconds."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and self._leading:
            with contextlib.suppress(MintmarkError, asyncpg.PostgresError):
                async with self._database.begin(EVERY_WORKSPACE) as tx:
                    waiting = "SELECT EXISTS (SELECT FROM outbox WHERE id <> ALL($1::bigint[]))"
                    if not await tx.connection.fetchval(waiting, list(self._left)):
                        break
            self._filled.set()
            await asyncio.sleep(0.02)
        self._stopping = True
        self._filled.set()

    async def _lead(self) -> None:
        connection = await self._database.connect()
        try:
            # A deletion need not wait for the disk: when a crash of Postgres takes it back, its rows are published a
            # second time, which inboxes recognise.
            await connection.execute(f"SET mintmark.workspace = '{EVERY_WORKSPACE}'; SET synchronous_commit = off")
            await connection.add_listener(self.channel, lambda *_: self._filled.set())
            lock = "SELECT pg_try_advisory_lock($1, hashtext($2))"
            while not await connection.fetchval(lock, LOCK, self._database.schema):
                if self._stopping:
                    return
                await asyncio.sleep(STANDBY_S)
            self._leading = True
            self._left.clear()
            await self._publish_rounds(connection)
        finally:
            self._leading = False
            await _close(connection)

    async def _publish_rounds(self, connection: asyncpg.Connection) -> None:
        fetch = await connection.prepare(FETCH)
        measured = began = 0.0
        crowded = False
        while not self._stopping:
            if crowded:
                await asyncio.sleep(max(0.0, began + PACE_S - time.monotonic()))
            began = time.monotonic()
            self._filled.clear()
            rows = await fetch.fetch(list(self._left))
            crowded = len(rows) > 1
            if time.monotonic() - measured > 2:
                await self._measure(connection)
                measured = time.monotonic()
            if not rows:
                # Not wait_for: before Python 3.12 it can swallow a cancellation that meets its timeout.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._filled.wait()
                continue
            faults.point("relay.fetched")
            if rows[0]["unflushed"]:
                # What Kafka has must not be undone by a crash of Postgres.
                await connection.execute(FLUSH)
            try:
                await self._publish(rows)
            except TOO_LARGE:
                await self._publish_singly(connection, rows)
                continue
            faults.point("relay.published")
            await connection.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows])
            metrics.published.labels(self._service).inc(len(rows))

    async def _publish(self, rows: list[asyncpg.Record]) -> None:
        """All rows acknowledged by Kafka, or an error (one of TOO_LARGE before all others).

        After an error the producer is made anew (it may be wedged).

        An event after a failed one of the same key is never accepted alone: the idempotent producer numbers its
        batches, and the broker refuses a gap. Not in a partition that the producer is new to, where it takes any
        number: so each key's first event goes there alone.
        """
        try:
            if self._producer is None:
                producer = self._kafka.producer(f"mintmark-{self._service}-relay")
                await producer.start()
                self._producer = producer
                first = {(row["topic"], row["key"]): row for row in reversed(rows)}
                await self._send(producer, list(reversed(first.values())))
                begun = {row["id"] for row in first.values()}
                rows = [row for row in rows if row["id"] not in begun]
            await self._send(self._producer, rows)
        except (KafkaError, OSError, TimeoutError):
            await self._drop_producer()
            raise

    async def _send(self, producer: AIOKafkaProducer, rows: list[asyncpg.Record]) -> None:
        sent = []
        for row in rows:
            sent.append(
                await producer.send(
                    self._kafka.topic(row["topic"]),
                    key=row["key"].encode(),
                    value=row["data"],
                    headers=headers_of(row, f"mintmark/{self._service}"),
                )
            )
        answers = await asyncio.gather(*sent, return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        if failed:
            # The first to fail makes others fail in other ways: what is too large says it of itself.
            raise next((error for error in failed if isinstance(error, TOO_LARGE)), failed[0])

    async def _publish_singly(self, connection: asyncpg.Connection, rows: list[asyncpg.Record]) -> None:
        """One after the other: one of them is too large, or all are together. That one alone is put aside."""
        for row in rows:
            if self._stopping:
                return
            try:
                await self._publish([row])
            except TOO_LARGE as error:
                await self._put_aside(connection, row, error)
            else:
                await connection.execute("DELETE FROM outbox WHERE id = $1", row["id"])
                metrics.published.labels(self._service).inc()

    async def _put_aside(self, connection: asyncpg.Connection, row: asyncpg.Record, error: KafkaError) -> None:
        headers = headers_of(row, f"mintmark/{self._service}")
        is_letter = await dead_letters.put_aside(connection, self._service, row, headers, error)
        if not is_letter:
            self._left.add(row["id"])
        log.error(
            "event is too large for Kafka",
            extra={
                "service": self._service,
                "event_id": row["event_id"],
                "type": row["type"],
                "topic": row["topic"],
                "bytes": len(row["data"]),
                "goes": "to the dead letters" if is_letter else "nowhere, and stays in the outbox",
                "error": str(error)[:500],
            },
        )

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(producer.stop(), 2)

    async def _measure(self, connection: asyncpg.Connection) -> None:
        # The planner's estimate beyond 10,000 rows: counting a deep outbox every two seconds would slow it down.
        depth = await connection.fetchval("SELECT count(*) FROM (SELECT FROM outbox LIMIT 10000) AS front")
        age = await connection.fetchval("SELECT extract(epoch FROM now() - created_at) FROM outbox ORDER BY id LIMIT 1")
        metrics.outbox_depth.labels(self._service).set(depth)
        metrics.outbox_age_seconds.labels(self._service).set(float(age or 0))

    async def _notify_others(self) -> None:
        while True:
            await self._notify.wait()
            self._notify.clear()
            if self._leading:
                self._filled.set()
                continue
            with contextlib.suppress(MintmarkError, asyncpg.PostgresError):
                async with self._database.acquire() as connection:
                    await connection.execute("SELECT pg_notify($1, '')", self.channel)
            await asyncio.sleep(0.001)


def headers_of(row: asyncpg.Record, source: str) -> list[tuple[str, bytes]]:
    """Kafka headers of an outbox row; a dead letter carries its own."""
    if row["headers"] is not None:
        return [(name, b64decode(value)) for name, value in row["headers"]]
    return Envelope(
        id=row["event_id"],
        source=source,
        type=row["type"],
        subject=row["key"],
        data=b"",
        time=row["created_at"],
        workspace=row["workspace"],
        sequence=row["sequence"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
        traceparent=row["traceparent"],
        proof=row["proof"],
    ).headers()


async def _close(connection: asyncpg.Connection) -> None:
    with contextlib.suppress(Exception):
        await connection.close(timeout=2)
