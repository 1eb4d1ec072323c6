"""The sealer: puts arrived events into the hash chain, by the thousand."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.policy.handlers.ledger import Ledger
from shared import faults

LOOK_S = 0.5
GATHER_S = 0.02  # the wake comes just before the event's commit; a short wait also makes larger batches


class Sealer:
    """Several may run: the lock on the chain's head lets one at a time."""

    name = "sealer"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def run(self) -> None:
        """Seal whenever something has arrived, and look every half second in case another process took it in."""
        while True:
            with suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it may swallow a cancellation, and then the service never stops.
                async with asyncio.timeout(LOOK_S):
                    await self._ledger.waiting.wait()
            self._ledger.waiting.clear()
            await asyncio.sleep(GATHER_S)
            while await self._ledger.seal():
                faults.point("worker.between")
