"""A Kafka and a Postgres of one test's own, since it breaks them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.local.infrastructure import Infrastructure
from deploy.local.ports import Ports
from deploy.local.processes import end_with_this_process
from shared.testing.backing import Backing
from shared.testing.installation import Installation


@asynccontextmanager
async def own_installation(folder: Path) -> AsyncIterator[tuple[Infrastructure, Installation]]:
    """Durable, unlike the one of the whole run: what Postgres has confirmed must be there after a crash."""
    infrastructure = Infrastructure(folder / "data", Ports.free())
    end_with_this_process(infrastructure.table)
    try:
        await asyncio.to_thread(infrastructure.start)
        backing = Backing(infrastructure.kafka_bootstrap, infrastructure.admin_dsn)
        installation = await Installation(backing, folder / "installation").prepare()
        yield infrastructure, installation
        await installation.close()
    finally:
        await asyncio.to_thread(infrastructure.stop)
