"""A lease on work: renewed while somebody is at it, so that another one goes on soon after a crash and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def renewed(every_s: float, renew: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Renew for as long as the work goes on."""

    async def again() -> None:
        while True:
            await asyncio.sleep(every_s)
            await renew()

    renewing = asyncio.create_task(again())
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
