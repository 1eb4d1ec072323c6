"""What protects requests in one gateway process: who leases caps, who looks, who watches; started as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from services.router.gateway.caps.allowances import Allowances
from services.router.gateway.caps.lessor import Lessor
from services.router.gateway.caps.reserve import Reserver
from services.router.gateway.guardrails.checks import CHECKS
from services.router.gateway.guardrails.guards import Judge, Looker
from services.router.gateway.metrics import Metrics
from services.router.gateway.protection import Protection
from services.router.gateway.spool.writer import SpoolWriter
from services.router.gateway.suspicions import Suspicions
from shared.db.database import Database


class Protecting:
    """`now` gives Unix seconds; `judge` asks another group."""

    def __init__(
        self, database: Database, spool: SpoolWriter, metrics: Metrics, now: Callable[[], float], judge: Judge
    ) -> None:
        self.allowances = Allowances()
        self.lessor = Lessor(database, self.allowances, now)
        self.reserver = Reserver(self.allowances, self.lessor, now)
        self.looker = Looker(judge, metrics.guarded)
        self.suspicions = Suspicions(spool)
        self._warming: set[asyncio.Task[None]] = set()
        self._warmed: set[str] = set()

    def start(self) -> None:
        self.lessor.start()

    async def stop(self) -> None:
        """Give back what is leased, and end the guards' processes."""
        for task in tuple(self._warming):
            task.cancel()
        await asyncio.gather(*self._warming, return_exceptions=True)
        await self.lessor.stop()
        await self.looker.workers.stop()

    def warm(self, protections: Iterable[Protection]) -> None:
        """Start what guards need before somebody waits for it: Presidio takes seconds."""
        for protection in protections:
            for one in protection.guards.every if protection.guards is not None else ():
                kind = one.guard.kind
                if kind in CHECKS and kind not in self._warmed:
                    self._warmed.add(kind)
                    work = self.looker.workers.of(kind).warm(kind, one.asked)
                    task = asyncio.get_running_loop().create_task(work)
                    self._warming.add(task)
                    task.add_done_callback(self._warming.discard)
