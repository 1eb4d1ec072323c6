"""A service's database: transactions that know their workspace and take their events to the outbox when they commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
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

FLUSH = "SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'mintmark', '')"
"""A commit that waits for the disk takes along all that were made before it: Postgres' log has one order."""

COLUMN_TYPES = ("text", "text", "text", "text", "bytea", "text")

Claim = Callable[["Transaction"], Any]
on_first_transaction: ContextVar[Claim | None] = ContextVar("mintmark_on_first_transaction", default=None)
"""Set by the HTTP edge to claim a request's Idempotency-Key inside the transaction of its effect."""


@dataclass(slots=True)
class _Pending:
    id: str
    event: Event
    data: bytes
    proof: str | None

    def columns(self) -> tuple[str | None, ...]:
        """Its own columns of the outbox, as COLUMN_TYPES."""
        kind = self.event
        return self.id, kind.topic.name, kind.type(), kind.key, f"\\x{self.data.hex()}", self.proof


@dataclass(slots=True)
class Transaction:
    """One database transaction of one workspace. Events emitted here exist when, and only when, it commits."""

    connection: asyncpg.Connection
    workspace: str
    _pending: list[_Pending] = field(default_factory=list)
    _filled: bool = False
    _why: cause.Cause = cause.NOTHING
    _traceparent: str | None = None

    def emit(self, event: Event, *, event_id: str | None = None, proof: str | None = None) -> str:
        """Say that something happened; returns the event's id. Raises Invalid when it is too large for a record."""
        data = encoded(event)
        if not self._pending:
            # Taken here, not when the transaction ends: by then the handler's span and cause are over.
            self._why, self._traceparent = cause.current.get(), traces.traceparent()
        pending = _Pending(event_id or str(new_id()), event, data, proof)
        self._pending.append(pending)
        return pending.id

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Inside: a failure undoes what was done inside, not the whole transaction. The error is still raised."""
        await self.connection.execute("SAVEPOINT inner_step")
        try:
            yield
        except BaseException:
            await self.connection.execute("ROLLBACK TO SAVEPOINT inner_step")
            raise
        await self.connection.execute("RELEASE SAVEPOINT inner_step")

    def closing(self) -> str:
        """What ends the transaction: the emitted events into the outbox, then COMMIT, in one round trip."""
        if not self._pending:
            return "COMMIT"
        # Sorted by aggregate, so that two transactions never lock the same two sequences the other way round.
        rows = [row.columns() for row in sorted(self._pending, key=lambda row: (row.event.topic.name, row.event.key))]
        why = map(literal, (self._why.correlation_id, self._why.causation_id, self._traceparent))
        if len(rows) == 1:
            columns, function = map(literal, rows[0]), "emit_event"
        else:
            columns, function = map(literals, zip(*rows, strict=True), COLUMN_TYPES), "emit_events"
        return f"SELECT {function}({', '.join((literal(self.workspace), *columns, *why))}); COMMIT"

    def fills_outbox(self) -> None:
        """Something was put into the outbox by other means than `emit`: the relay is to be woken all the same."""
        self._filled = True

    @property
    def emitted(self) -> bool:
        """True when the outbox will hold more after the commit."""
        return self._filled or bool(self._pending)


def encoded(event: Event) -> bytes:
    """The event as the outbox keeps it. Raises Invalid when it is too large for a record."""
    data = encode(event)
    if len(data) > MAX_EVENT_BYTES:
        raise Invalid(f"{event.type()} would be {len(data)} bytes on Kafka; {MAX_EVENT_BYTES} is the most")
    return data


def literal(value: str | int | bool | None) -> str:
    """The value as an SQL literal. Only where a parameter cannot go: several statements in one round trip.

    Safe because `standard_conforming_strings` is on in every connection of ours: only the quote is special.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool | int):
        return str(value).lower()
    if "\x00" in value:
        raise Invalid("a text holds a NUL character, which the database does not take")
    return "'" + value.replace("'", "''") + "'"


def literals(values: Iterable[str | None], element: str) -> str:
    """The values as an SQL array."""
    return f"ARRAY[{', '.join(map(literal, values))}]::{element}[]"


class Database:
    """The pool of one service's role on its own schema."""

    def __init__(self, dsn: str, schema: str, *, pool_size: int = 10, acquire_timeout_s: float = 5.0) -> None:
        self.dsn = dsn
        self.schema = schema
        self.pool_size = pool_size
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
                max_size=self.pool_size,
                init=set_codecs,
                reset=keep,
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
        return {
            "search_path": self.schema,
            "application_name": f"mintmark-{self.schema}",
            "timezone": "UTC",
            "standard_conforming_strings": "on",
        }

    async def connect(self) -> asyncpg.Connection:
        """A connection of its own, outside the pool: for LISTEN and for locks that live as long as it does."""
        with unavailable_when_gone():
            connection = await asyncpg.connect(self.dsn, server_settings=self.server_settings(), timeout=5)
            await set_codecs(connection)
        return connection

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        """A pooled connection without a transaction. Raises Unavailable."""
        pool = self._pool
        if pool is None:
            raise Unavailable("the database is not open")
        with unavailable_when_gone():
            connection = await pool.acquire(timeout=self._acquire_timeout_s)
        try:
            with unavailable_when_lost(connection):
                yield connection
        finally:
            with suppress(*GONE):
                await pool.release(connection)

    async def flush(self) -> None:
        """Everything committed so far is on the disk when this returns. Raises Unavailable."""
        async with self.acquire() as connection:
            await connection.execute(FLUSH)

    @asynccontextmanager
    async def begin(self, workspace: str, on: asyncpg.Connection | None = None) -> AsyncIterator[Transaction]:
        """A transaction that sees one workspace. Commits at the end, with its events; rolls back on any error.

        `on` is a connection that the caller holds already; else it is one of the pool's.
        """
        opening = f"BEGIN; SELECT set_config('mintmark.workspace', {literal(workspace)}, true)"
        async with self.begin_with(opening, workspace, on) as tx:
            claim = on_first_transaction.get()
            if claim is not None:
                await claim(tx)
            yield tx

    @asynccontextmanager
    async def begin_reading(self, workspace: str, timeout_ms: int = 10_000) -> AsyncIterator[Transaction]:
        """A transaction that only reads, that sees one moment whatever it reads, and whose statements are bounded."""
        opening = (
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
            f"SELECT set_config('mintmark.workspace', {literal(workspace)}, true), "
            f"set_config('statement_timeout', '{int(timeout_ms)}', true)"
        )
        async with self.begin_with(opening, workspace) as tx:
            yield tx

    @asynccontextmanager
    async def begin_with(
        self, opening: str, workspace: str, on: asyncpg.Connection | None = None
    ) -> AsyncIterator[Transaction]:
        """A transaction whose opening statements (BEGIN first) go out together.

        A round trip costs more than anything Postgres does for a small event: opening and closing in one each
        made the whole path from outbox to inbox a third faster (bench/events.py).
        """
        async with self.acquire() if on is None else holding(on) as connection:
            tx = Transaction(connection, workspace)
            try:
                await connection.execute(opening)
                yield tx
                emitted = tx.emitted
                status = await connection.execute(tx.closing())
            except BaseException:
                if not lost(connection):
                    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                        await connection.execute("ROLLBACK")
                raise
            if status != "COMMIT":
                raise Conflict("the transaction was already undone by an error that was passed over")
        if emitted:
            self.outbox_filled()


def lost(connection: asyncpg.Connection) -> bool:
    """True when the server ended the connection; the pool has then already taken its handle back."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


@asynccontextmanager
async def holding(connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection that stays with its holder; raises Unavailable when it is lost inside."""
    with unavailable_when_lost(connection):
        yield connection


async def keep(connection: asyncpg.Connection) -> None:
    """Nothing to reset: transactions always end and settings are local to them; the default costs a round trip."""


async def set_codecs(connection: asyncpg.Connection) -> None:
    """JSON columns are Python values on this connection."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=_dump, decoder=orjson.loads, schema="pg_catalog", format="text")


def _dump(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


GONE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server ended the connection in the middle of a word
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
)


@contextmanager
def unavailable_when_lost(connection: asyncpg.Connection) -> Iterator[None]:
    """Errors that mean that this connection, or its server, is gone become Unavailable; others stay what they are."""
    try:
        yield
    except asyncpg.InternalClientError as error:
        # The server ended the connection in the middle of a word; nothing more is to be said on it.
        connection.terminate()
        raise Unavailable(f"the database went away ({type(error).__name__}); try again") from error
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        # What is done inside may fail in these ways too; it is the database only when its connection is lost.
        if lost(connection):
            raise Unavailable(f"the database went away ({type(error).__name__}); try again") from error
        raise
    except asyncpg.PostgresError:
        with unavailable_when_gone():
            raise


OUT_OF_RANGE = (
    asyncpg.NumericValueOutOfRangeError,
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.UntranslatableCharacterError,
    asyncpg.DatetimeFieldOverflowError,
)


@contextmanager
def unavailable_when_gone() -> Iterator[None]:
    """Turn every way in which Postgres can be gone into Unavailable, lost races into Conflict, what no column can hold
    into Invalid."""
    try:
        yield
    except GONE as error:
        raise Unavailable(f"the database does not answer ({type(error).__name__}); try again") from error
    except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError) as error:
        raise Conflict("two changes met in the database and this one gave way; try again") from error
    except asyncpg.DataError as error:
        # The driver itself raises the plain class, for a value that does not fit its parameter.
        if type(error) is not asyncpg.DataError and not isinstance(error, OUT_OF_RANGE):
            raise
        raise Invalid("a number, time or text is beyond what is kept here; versions end at 2147483647") from error
