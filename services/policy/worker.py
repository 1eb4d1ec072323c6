"""The sealer: puts arrived events into the hash chain, by the thousand."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.policy.handlers.ledger import Ledger

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
                await asyncio.wait_for(self._ledger.waiting.wait(), LOOK_S)
            self._ledger.waiting.clear()
            await asyncio.sleep(GATHER_S)
            while await self._ledger.seal():
                pass
