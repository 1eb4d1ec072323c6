"""Takes spools into Postgres: rows, their events and the spool's position in one transaction, batch by batch.

Exactly once, whatever is killed: a transaction that is lost leaves the position where it was, one that is committed has
moved it; and of two shippers of one spool the second finds the position moved and takes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from services.router.comparison.ledger import Ledger
from services.router.gateway.postgres import LOST, connect
from services.router.gateway.rows import COLUMN_NAMES
from services.router.gateway.shipper.batch import (
    Batch,
    GroupRows,
    Saying,
    copied,
    day_of,
    rendered_anew,
    said,
    said_of_guards,
)
from services.router.gateway.shipper.metrics import ShipperMetrics
from services.router.gateway.shipper.reading import Reading
from services.router.gateway.spool.format import Position
from services.router.gateway.spool.reader import SpoolReader, spools
from shared import faults
from shared.db.database import Database, Transaction
from shared.db.queries import load
from shared.errors import MintmarkError
from shared.ids import new_id

log = logging.getLogger(__name__)

RELAY_CHANNEL = "mintmark_outbox_router"
COMMAND_TIMEOUT_S = 60.0
PIECE_BYTES = 256 << 10
RETRY_S = (0.1, 0.2, 0.5, 1.0)
# Some row's own fault, or its table's: a value that does not fit, a table that was dropped.
UNWRITABLE = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.SyntaxOrAccessError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.ProgramLimitExceededError,
)


class PositionMovedError(MintmarkError):
    """Another shipper takes this spool."""

    code = "position-moved"


class Shipper:
    """Ships every spool below `folder`, over one connection, in turns; spools come and go with gateways."""

    def __init__(self, folder: Path, database: Database, metrics: ShipperMetrics, *, poll_s: float) -> None:
        self._folder = folder
        self._database = database
        self._metrics = metrics
        self._poll_s = poll_s
        self._sql: Any = load("services.router")
        self._ledger = Ledger(load("services.router.comparison"))
        self._connection: asyncpg.Connection | None = None
        self._readers: dict[Path, SpoolReader] = {}
        self._positions: dict[Path, Position] = {}
        self._days: dict[tuple[str, int], str | None] = {}
        self._ahead: dict[Path, Reading] = {}
        self._meanwhile: Callable[[], None] = lambda: None
        """What to do while Postgres takes rows."""
        self._stopping = False
        self.connected = False

    async def run(self) -> None:
        """Ship until stopped; outlives Postgres."""
        failures = 0
        while True:
            try:
                moved = await self._round()
                failures = 0
            except (*LOST, PositionMovedError) as error:
                log.warning("rows cannot be shipped just now", extra={"error": repr(error)[:300]})
                await self._start_over()
                if self._stopping:
                    return
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
                continue
            if self._stopping and not moved and not self._readers:
                return
            if not moved:
                await asyncio.sleep(self._poll_s)

    def stop(self) -> None:
        """Return from `run` when every spool whose writer is dead is shipped, and no writer is left."""
        self._stopping = True

    async def close(self) -> None:
        await self._start_over()
        for reader in self._readers.values():
            reader.close()

    async def catch_up(self) -> None:
        """Ship what is there now; for tests and benchmarks."""
        moved = True
        while moved:
            try:
                moved = await self._round()
            except PositionMovedError:
                await self._start_over()

    async def _round(self) -> bool:
        """A batch of every spool that has one; True when any moved."""
        for path in spools(self._folder):
            if path not in self._readers:
                reader = SpoolReader(path)
                if reader.open():
                    self._readers[path] = reader
        if self._connection is None:
            self._connection = await connect(self._database, timeout_s=COMMAND_TIMEOUT_S)
            self.connected = True
        moved = False
        for path, reader in list(self._readers.items()):
            moved = await self._advance(path, reader) or moved
        return moved

    async def _start_over(self) -> None:
        self.connected = False
        self._positions.clear()
        self._ahead.clear()
        self._days.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _advance(self, path: Path, reader: SpoolReader) -> bool:
        position = self._positions.get(path) or await self._begin(path, reader)
        reader.look_for_writer()
        reading = self._ahead.pop(path, None)
        if reading is None or reading.position != position:
            reading = Reading(reader, position)
        stretch = reading.finish()
        if stretch is None:
            if reader.is_done(position):
                reader.remove()
                await self._sql.forget_spool(self._connection, spool=UUID(reader.name))
                del self._readers[path], self._positions[path]
            return False
        began = time.perf_counter()
        ahead = self._ahead[path] = Reading(reader, stretch.until)
        self._meanwhile = ahead.step
        await self._ship(reader, position, stretch.until, reading.batch)
        self._metrics.shipped(len(stretch.payloads), len(stretch.data), time.perf_counter() - began)
        self._positions[path] = stretch.until
        if stretch.until.segment != position.segment:
            reader.forget(stretch.until)
        return True

    async def _begin(self, path: Path, reader: SpoolReader) -> Position:
        spool = UUID(reader.name)
        row = await self._sql.spool_position(self._connection, spool=spool)
        if row is None:
            first = reader.first()
            await self._sql.begin_spool(self._connection, spool=spool, segment=first.segment, byte_offset=first.offset)
            row = await self._sql.spool_position(self._connection, spool=spool)
        position = self._positions[path] = Position(row["segment"], row["byte_offset"])
        return position

    # -- one transaction

    async def _ship(self, reader: SpoolReader, position: Position, until: Position, batch: Batch) -> None:
        try:
            await self._transact(reader, position, until, batch, careful=False)
        except UNWRITABLE as error:
            log.warning("a batch holds a row that cannot be written", extra={"error": str(error)[:300]})
            self._days.clear()
            await self._transact(reader, position, until, batch, careful=True)
        faults.point("shipper.committed")

    async def _transact(
        self, reader: SpoolReader, position: Position, until: Position, batch: Batch, *, careful: bool
    ) -> None:
        connection = self._connection
        assert connection is not None
        async with connection.transaction():
            moved = await self._sql.move_spool(
                connection, spool=UUID(reader.name), segment=position.segment, byte_offset=position.offset,
                to_segment=until.segment, to_offset=until.offset, row_count=batch.count,
            )  # fmt: skip
            if not moved:
                raise PositionMovedError()
            events: dict[str, list[Saying]] = {}
            erased_until = await self._erased_until(batch)
            for group in batch.groups.values():
                placed = await (self._place_one_by_one(group) if careful else self._place(group))
                if group.group in erased_until:
                    placed = await self._without_erased(group, placed, erased_until[group.group])
                sayings = events.setdefault(group.workspace, [])
                sayings += said(group.group, [group.said[one] for one in placed])
                sayings += said_of_guards([trip for one in placed for trip in group.tripped.get(one, ())])
                sayings += group.events
                shadowed = [group.shadowed[one] for one in placed if one in group.shadowed] if group.shadowed else []
                tx = Transaction(connection, group.workspace)
                await self._ledger.record(tx, group.group, group.counted(placed), shadowed)
            for payload, error in batch.unread:
                await self._set_aside("*", "", payload, error)
            faults.point("shipper.copied")
            for workspace, entries in events.items():
                await self._say(workspace, sorted(entries, key=lambda saying: saying[2]))
        if events:
            await self._sql.wake_relay(connection, channel=RELAY_CHANNEL)

    async def _erased_until(self, batch: Batch) -> dict[str, datetime]:
        """Groups of which rows were erased, and until when; see erased_until in migration 0009."""
        found = self._sql.erased_until(self._connection, groups=[group.group for group in batch.groups.values()])
        return {row["group_name"]: row["until"] async for row in found}

    async def _without_erased(self, group: GroupRows, placed: Sequence[int], until: datetime) -> Sequence[int]:
        """A row that was in its spool when its subject was erased is erased now, in the transaction that brought it."""
        early = {one: group.outcomes[one].request_id for one in placed if group.outcomes[one].at <= until}
        if not early:
            return placed
        gone = set(await self._sql.erase_late(self._connection, name=group.group, request_ids=list(early.values())))
        return [one for one in placed if early.get(one) not in gone]

    async def _place(self, group: GroupRows) -> Sequence[int]:
        """COPY a group's rows to their days; returns their places in the batch: all."""
        for day, tuples in group.by_day().items():
            partition = await self._partition(group.group, day)
            if partition is None:
                raise asyncpg.UndefinedTableError(f"the group {group.group} has no table")
            await self._copy(partition, copied(tuples))
        return range(len(group.tuples))

    async def _place_one_by_one(self, group: GroupRows) -> Sequence[int]:
        """One bad row must not keep its neighbours: it is rendered anew, and set aside if that is not enough."""
        placed = []
        for number, (day, row) in enumerate(zip(group.days, group.tuples, strict=True)):
            failure: Exception | None = None
            for attempt in (bytes, rendered_anew):
                try:
                    assert self._connection is not None
                    async with self._connection.transaction():
                        partition = await self._partition(group.group, day)
                        if partition is None:
                            raise asyncpg.UndefinedTableError(f"the group {group.group} has no table")
                        await self._copy(partition, copied([attempt(row)]))
                except (*UNWRITABLE, ValueError) as error:
                    failure = error
                    self._days.clear()
                else:
                    placed.append(number)
                    failure = None
                    break
            if failure is not None:
                await self._set_aside(group.workspace, group.group, row, str(failure))
        return placed

    async def _partition(self, group: str, day: int) -> str | None:
        key = (group, day)
        if key not in self._days:
            self._days[key] = await self._sql.log_day(self._connection, name=group, day=day_of(day))
        return self._days[key]

    async def _copy(self, partition: str, data: bytes) -> None:
        assert self._connection is not None
        await self._connection.copy_to_table(
            partition, source=_pieces(data, self._meanwhile), columns=COLUMN_NAMES, format="binary"
        )

    async def _set_aside(self, workspace: str, group: str, record: bytes, error: str) -> None:
        log.error("a row has no place in any table", extra={"workspace": workspace, "group": group, "error": error})
        self._metrics.unplaced += 1
        await self._sql.unplaced_row(
            self._connection, workspace=workspace, name=group, error=error[:1000], record=record
        )

    async def _say(self, workspace: str, entries: list[Saying]) -> None:
        """The events into the outbox, sorted by aggregate, as every transaction does."""
        count = len(entries)
        await self._sql.say_rows(
            self._connection,
            workspace=workspace,
            ids=[str(new_id()) for _ in entries],
            topics=[topic for topic, _, _, _ in entries],
            types=[kind for _, kind, _, _ in entries],
            keys=[key for _, _, key, _ in entries],
            data=[data for _, _, _, data in entries],
            proofs=[None] * count,
        )


async def _pieces(data: bytes, meanwhile: Callable[[], None]) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]
        await asyncio.sleep(0)  # so that the piece is on its way
        meanwhile()


async def ship_until(shipper: Shipper, stop: asyncio.Event, drain_s: float) -> bool:
    """Ship until `stop`, and then what is left, for `drain_s` seconds at the most; True when nothing was."""
    running = asyncio.create_task(shipper.run())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    shipper.stop()
    done, _ = await asyncio.wait((running,), timeout=drain_s)
    if not done:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    else:
        running.result()
    await shipper.close()
    return bool(done)
