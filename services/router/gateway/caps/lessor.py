"""Leases shares of caps from Postgres, ahead of need, and gives back what nobody needed.

One connection, one lease at a time. `budget.exceeded` is said in the transaction that finds a budget full for the first
time in its period, so that it is said once, whichever gateway finds it and whatever is killed then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg

from services.router.gateway.caps.allowances import Allowance, Allowances
from services.router.gateway.caps.prices import usd
from services.router.gateway.postgres import LOST, connect
from shared.db.database import Database
from shared.db.queries import load
from shared.events.router import BudgetExceeded
from shared.ids import new_id

log = logging.getLogger(__name__)

LEASE_TIMEOUT_S = 2.0
AWAY_S = 1.0
"""For how long after a failure nobody asks again, so that no request waits for a Postgres that is away."""
IDLE_S = 5.0
SWEEP_S = 1.0
RELAY_CHANNEL = "mintmark_outbox_router"


class UnreachableError(Exception):
    """Postgres does not answer."""


class Lessor:
    """`clock` gives Unix seconds, which windows are told by."""

    def __init__(self, database: Database, allowances: Allowances, clock: Callable[[], float]) -> None:
        self._database = database
        self._allowances = allowances
        self._clock = clock
        self._sql: Any = load("services.router.gateway.caps")
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self._away_until = 0.0
        self._topping_up: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def lease(self, one: Allowance, need: int) -> bool:
        """Have at least `need` free; False where the cap has no room for it. Raises UnreachableError."""
        one.leasing = True
        try:
            async with self._turn:
                if one.free >= need:  # somebody else's lease brought enough
                    return True
                if one.is_denied(need - one.free, time.monotonic()):
                    return False
                return await self._lease(one, need - one.free)
        finally:
            one.leasing = False

    def top_up(self, one: Allowance) -> None:
        """Lease ahead of need, in the background."""
        if not one.leasing and time.monotonic() >= self._away_until:
            one.leasing = True
            task = asyncio.get_running_loop().create_task(self._top_up(one))
            self._topping_up.add(task)
            task.add_done_callback(self._topping_up.discard)

    async def _top_up(self, one: Allowance) -> None:
        try:
            async with self._turn:
                with contextlib.suppress(UnreachableError):
                    await self._lease(one, max(0, -one.free))
        finally:
            one.leasing = False

    async def _lease(self, one: Allowance, need: int) -> bool:
        counter = one.counter

        async def work(connection: asyncpg.Connection) -> Any:
            async with connection.transaction():
                row = await self._sql.lease_cap(
                    connection, workspace=counter.workspace, scope=counter.scope, unit=counter.unit,
                    starts_at=_moment(counter.starts), ends_at=_moment(counter.ends), cap=Decimal(one.cap),
                    need=Decimal(need), more=Decimal(one.slice),
                )  # fmt: skip
                if row["first_denial"] and counter.unit == "usd":
                    await self._say(connection, one, row["taken_now"])
                return row

        row = await self._with_connection(work)
        granted = int(row["granted"])
        if granted < need:
            one.denied(need, time.monotonic())
            return False
        if not granted:
            one.denied_at = time.monotonic()  # nothing ahead of need for a while
        one.granted(granted)
        return True

    async def _say(self, connection: asyncpg.Connection, one: Allowance, taken: Decimal) -> None:
        event = BudgetExceeded(scope=one.counter.scope, spent=usd(int(taken)), cap=usd(one.cap), group=one.group)
        await self._sql.say(
            connection, workspace=one.counter.workspace, ids=[str(new_id())], topics=[event.topic.name],
            types=[event.type()], keys=[event.key], data=[event.model_dump_json().encode()], proofs=[None],
        )  # fmt: skip
        await self._sql.wake_relay(connection, channel=RELAY_CHANNEL)

    async def _return(self, amounts: Iterable[tuple[Allowance, int]]) -> None:
        for one, amount in amounts:
            counter = one.counter

            async def work(connection: asyncpg.Connection, counter: Any = counter, amount: int = amount) -> None:
                await self._sql.return_cap(
                    connection, workspace=counter.workspace, scope=counter.scope, unit=counter.unit,
                    starts_at=_moment(counter.starts), ends_at=_moment(counter.ends), amount=Decimal(amount),
                )  # fmt: skip

            try:
                await self._with_connection(work)
            except UnreachableError:
                one.free += amount  # for the next sweep; whether it arrived is not known, so that it may stay taken

    async def _with_connection(self, work: Callable[[asyncpg.Connection], Any]) -> Any:
        if time.monotonic() < self._away_until:
            raise UnreachableError()
        try:
            async with asyncio.timeout(LEASE_TIMEOUT_S):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self._database, timeout_s=LEASE_TIMEOUT_S)
                return await work(self._connection)
        except (*LOST, TimeoutError) as error:
            log.warning("caps cannot be leased just now", extra={"error": repr(error)[:300]})
            self._away_until = time.monotonic() + AWAY_S
            self._close()
            raise UnreachableError() from None

    # -- what nobody needs

    def start(self) -> None:
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def stop(self) -> None:
        """Give back all that is free; what Postgres does not hear of stays taken."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        async with self._turn:
            await self._return(self._allowances.all_free())
        self._close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            async with self._turn:
                await self._return(self._allowances.to_return(self._clock(), time.monotonic(), IDLE_S))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
