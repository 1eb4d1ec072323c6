"""Group commit: rows that arrive while a flush is in flight share the next one; each answer waits for its own.

Memory is bounded: past the limits, and while Postgres cannot be reached, a row is refused and its caller told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import asyncpg

from services.router.errors import RowsUnavailable
from services.router.gateway.metrics import Metrics
from services.router.gateway.postgres import LOST, connect
from services.router.gateway.rows import Row, insert_statement
from shared.db.database import Database

log = logging.getLogger(__name__)

Recorded = Callable[[RowsUnavailable | None], None]
Pending = tuple[str, Row, int, Recorded]

FLUSH_ROWS = 1_000
FLUSH_TIMEOUT_S = 5.0
RECONNECT_S = (0.1, 0.2, 0.5, 1.0)
# Some row's own fault, or its table's: a value that does not fit, a table that was dropped.
UNWRITABLE = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SyntaxOrAccessError,
    asyncpg.FeatureNotSupportedError,
    ValueError,  # asyncpg's own refusals, before anything is sent
)


class RowWriter:
    """Writes rows through a few connections of its own; `submit` calls back once the row's transaction is committed."""

    def __init__(
        self, database: Database, metrics: Metrics, *, connections: int, pending_rows: int, pending_bytes: int
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._connections = connections
        self._pending_rows = pending_rows
        self._pending_bytes = pending_bytes
        self._pending: deque[Pending] = deque()
        self._bytes = 0
        self._ready = asyncio.Event()
        self._stopping = False
        self._connected = 0
        self._lanes: list[asyncio.Task[None]] = []

    @property
    def is_accepting(self) -> bool:
        """A row submitted now has a good chance to be written."""
        return self._connected > 0 and len(self._pending) < self._pending_rows and self._bytes < self._pending_bytes

    async def start(self) -> None:
        self._lanes = [asyncio.create_task(self._lane()) for _ in range(self._connections)]

    async def stop(self) -> None:
        """Flush what is pending and close; what cannot be flushed in time is refused."""
        self._stopping = True
        self._ready.set()
        if self._lanes:
            _, late = await asyncio.wait(self._lanes, timeout=2 * FLUSH_TIMEOUT_S)
            for lane in late:
                lane.cancel()
            await asyncio.gather(*self._lanes, return_exceptions=True)
        self._refuse_all()

    def submit(self, table: str, row: Row, size: int, recorded: Recorded) -> None:
        """Take a row of about `size` bytes; `recorded` hears None once it is durable, else why it is not.

        May call back at once. Never raises.
        """
        if not self.is_accepting:
            recorded(RowsUnavailable())
            return
        self._pending.append((table, row, size, recorded))
        self._bytes += size
        self._ready.set()

    async def _lane(self) -> None:
        failures = 0
        while not self._stopping or self._pending:
            try:
                connection = await connect(self._database, timeout_s=FLUSH_TIMEOUT_S)
            except LOST as error:
                if not self._connected:
                    self._refuse_all()
                if self._stopping:
                    return
                log.warning("inference tables cannot be reached", extra={"error": str(error)})
                await asyncio.sleep(RECONNECT_S[min(failures, len(RECONNECT_S) - 1)])
                failures += 1
                continue
            failures = 0
            self._connected += 1
            connection.add_termination_listener(lambda _: self._ready.set())
            try:
                await self._flush_until_lost(connection)
            finally:
                self._connected -= 1
                await _close(connection)

    async def _flush_until_lost(self, connection: asyncpg.Connection) -> None:
        statements: dict[str, Any] = {}
        while not connection.is_closed():
            if not self._pending:
                if self._stopping:
                    return
                self._ready.clear()
                await self._ready.wait()
                continue
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), FLUSH_ROWS))]
            began = time.perf_counter()
            try:
                await _insert(connection, statements, batch)
            except UNWRITABLE as error:
                log.warning("a flush holds a row that cannot be written", extra={"error": str(error)})
                statements.clear()
                await self._one_by_one(connection, batch)
            except Exception as error:  # whatever it was, nobody knows these rows to be durable
                log.warning("a flush of inference rows failed", extra={"rows": len(batch), "error": repr(error)})
                self._settle(batch, RowsUnavailable())
                return
            else:
                self._metrics.flushed(len(batch), time.perf_counter() - began)
                self._settle(batch, None)

    async def _one_by_one(self, connection: asyncpg.Connection, batch: list[Pending]) -> None:
        """One bad row must not refuse its neighbours."""
        for entry in batch:
            try:
                await _insert(connection, {}, [entry])
            except (*UNWRITABLE, *LOST) as error:
                log.error("an inference row cannot be written", extra={"table": entry[0], "error": str(error)})
                self._settle([entry], RowsUnavailable())
            else:
                self._settle([entry], None)

    def _settle(self, batch: list[Pending], error: RowsUnavailable | None) -> None:
        for _, _, size, recorded in batch:
            self._bytes -= size
            try:
                recorded(error)
            except Exception:  # one caller's defect must not end the lane that writes everybody's rows
                log.exception("a caller could not take its row's outcome")
        if error is not None:
            self._metrics.rows_refused(len(batch))

    def _refuse_all(self) -> None:
        batch = list(self._pending)
        self._pending.clear()
        self._settle(batch, RowsUnavailable())


async def _insert(connection: asyncpg.Connection, statements: dict[str, Any], batch: list[Pending]) -> None:
    """All rows or none, and durable on return. One table, the common case, costs one round trip."""
    by_table: dict[str, list[Row]] = {}
    for table, row, _, _ in batch:
        by_table.setdefault(table, []).append(row)
    for table in by_table.keys() - statements.keys():
        statements[table] = await connection.prepare(insert_statement(table))
    async with connection.transaction() if len(by_table) > 1 else contextlib.nullcontext():
        for table, rows in by_table.items():
            await statements[table].fetch(*zip(*rows, strict=True))


async def _close(connection: asyncpg.Connection) -> None:
    with contextlib.suppress(*LOST):
        await connection.close(timeout=2)
