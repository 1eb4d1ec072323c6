"""A service's database: transactions that know their workspace and take their events to the outbox when they commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson

from shared.errors import Conflict, Invalid, Unavailable
from shared.events import cause
from shared.events.base import Event
from shared.events.envelope import encode
from shared.ids import new_id
from shared.telemetry import traces

EVERY_WORKSPACE = "*"
"""The kernel's own view of its tables; no handler ever runs in it."""

MAX_EVENT_BYTES = 900_000  # Kafka's default limit for a record is 1 MiB, headers included

Claim = Callable[["Transaction"], Any]
on_first_transaction: ContextVar[Claim | None] = ContextVar("mintmark_on_first_transaction", default=None)
"""Set by the HTTP edge to claim a request's Idempotency-Key inside the transaction of its effect."""


@dataclass(slots=True)
class _Pending:
    id: str
    event: Event
    data: bytes
    proof: str | None


@dataclass(slots=True)
class Transaction:
    """One database transaction of one workspace. Events emitted here exist when, and only when, it commits."""

    connection: asyncpg.Connection
    workspace: str
    _pending: list[_Pending] = field(default_factory=list)
    _why: cause.Cause = cause.NOTHING
    _traceparent: str | None = None

    def emit(self, event: Event, *, event_id: str | None = None, proof: str | None = None) -> str:
        """Say that something happened; returns the event's id. Raises Invalid when it is too large for a record."""
        data = encode(event)
        if len(data) > MAX_EVENT_BYTES:
            raise Invalid(f"{event.type()} would be {len(data)} bytes on Kafka; {MAX_EVENT_BYTES} is the most")
        if not self._pending:
            # Taken here, not when the transaction ends: by then the handler's span and cause are over.
            self._why, self._traceparent = cause.current.get(), traces.traceparent()
        pending = _Pending(event_id or str(new_id()), event, data, proof)
        self._pending.append(pending)
        return pending.id

    async def flush(self) -> bool:
        """Write what was emitted to the outbox; True when there was something."""
        if not self._pending:
            return False
        # Sorted by aggregate, so that two transactions never lock the same two sequences the other way round.
        rows = sorted(self._pending, key=lambda pending: (pending.event.topic.name, pending.event.key))
        await self.connection.execute(
            "SELECT emit_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            self.workspace,
            [row.id for row in rows],
            [row.event.topic.name for row in rows],
            [row.event.type() for row in rows],
            [row.event.key for row in rows],
            [row.data for row in rows],
            [row.proof for row in rows],
            self._why.correlation_id,
            self._why.causation_id,
            self._traceparent,
        )
        self._pending.clear()
        return True


class Database:
    """The pool of one service's role on its own schema."""

    def __init__(self, dsn: str, schema: str, *, pool_size: int = 10, acquire_timeout_s: float = 5.0) -> None:
        self.dsn = dsn
        self.schema = schema
        self._pool_size = pool_size
        self._acquire_timeout_s = acquire_timeout_s
        self._pool: asyncpg.Pool | None = None
        self.outbox_filled: Callable[[], None] = lambda: None
        """Called after a commit that left events in the outbox; the relay sets it."""

    async def open(self) -> None:
        """Connect. Raises Unavailable when the server does not answer."""
        with unavailable_when_gone():
            self._pool = await asyncpg.create_pool(
                self.dsn,
                min_size=1,
                max_size=self._pool_size,
                init=set_codecs,
                server_settings=self.server_settings(),
                command_timeout=60,
                max_inactive_connection_lifetime=300,
            )

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), 10)
            except (TimeoutError, asyncpg.PostgresError, OSError):
                pool.terminate()

    def server_settings(self) -> dict[str, str]:
        """Settings of every connection of this service."""
        return {"search_path": self.schema, "application_name": f"mintmark-{self.schema}", "timezone": "UTC"}

    async def connect(self) -> asyncpg.Connection:
        """A connection of its own, outside the pool: for LISTEN and for locks that live as long as it does."""
        with unavailable_when_gone():
            connection = await asyncpg.connect(self.dsn, server_settings=self.server_settings(), timeout=5)
            await set_codecs(connection)
        return connection

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        """A pooled connection without a transaction. Raises Unavailable."""
        if self._pool is None:
            raise Unavailable("the database is not open")
        with unavailable_when_gone():
            async with self._pool.acquire(timeout=self._acquire_timeout_s) as connection:
                yield connection

    @asynccontextmanager
    async def begin(self, workspace: str) -> AsyncIterator[Transaction]:
        """A transaction that sees one workspace. Commits at the end, with its events; rolls back on any error."""
        async with self.acquire() as connection:
            async with connection.transaction():
                await connection.fetchval("SELECT set_config('mintmark.workspace', $1, true)", workspace)
                tx = Transaction(connection, workspace)
                claim = on_first_transaction.get()
                if claim is not None:
                    await claim(tx)
                yield tx
                emitted = await tx.flush()
        if emitted:
            self.outbox_filled()

    @asynccontextmanager
    async def begin_unclaimed(self, workspace: str) -> AsyncIterator[Transaction]:
        """A transaction whose first statement sets the workspace itself (`claim_event`): one round trip fewer."""
        async with self.acquire() as connection:
            async with connection.transaction():
                tx = Transaction(connection, workspace)
                yield tx
                emitted = await tx.flush()
        if emitted:
            self.outbox_filled()


async def set_codecs(connection: asyncpg.Connection) -> None:
    """JSON columns are Python values on this connection."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, encoder=_dump, decoder=orjson.loads, schema="pg_catalog", format="text"
        )


def _dump(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


GONE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
)


@contextmanager
def unavailable_when_gone() -> Iterator[None]:
    """Turn every way in which Postgres can be gone into Unavailable, and lost races into Conflict."""
    try:
        yield
    except GONE as error:
        raise Unavailable(f"the database does not answer ({type(error).__name__}); try again") from error
    except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError) as error:
        raise Conflict("two changes met in the database and this one gave way; try again") from error
