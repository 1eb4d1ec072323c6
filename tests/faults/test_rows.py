"""kill -9 of gateway, shipper, Postgres and Kafka under load: every answered request is a row, and none is there twice.

A case is drawn from its seed alone. MINTMARK_TEST_SEEDS=20 runs that many; a usual run takes four, one of each victim.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest

from deploy.local.infrastructure import Infrastructure
from tests.faults.rows import Rows, own_infrastructure
from tests.integration.gateway.stub import StubServer

pytestmark = pytest.mark.timeout(240)
VICTIMS = ("gateway", "shipper", "postgres", "kafka")
ASKERS = 6


@pytest.fixture(scope="module")
def infrastructure() -> Iterator[Infrastructure]:
    with own_infrastructure() as made:
        yield made


@pytest.fixture
async def rows(infrastructure: Infrastructure, tmp_path: Path, seed: int) -> AsyncIterator[Rows]:
    async with StubServer() as stub:
        made = Rows(infrastructure, tmp_path, stub, Random(seed))
        await made.prepare()
        try:
            if victim_of(seed) == "kafka":
                await asyncio.to_thread(infrastructure.start_kafka)
                made.start("router")
                await made.until_ready("router")
            made.start("gateway")
            made.start("shipper")
            await made.until_ready("gateway")
            yield made
        finally:
            made.end()


def victim_of(seed: int) -> str:
    return VICTIMS[seed % len(VICTIMS)]


@pytest.mark.parametrize("seed", range(int(os.environ.get("MINTMARK_TEST_SEEDS") or len(VICTIMS))))
async def test_answered_requests_are_rows_and_none_is_there_twice(rows: Rows, seed: int) -> None:
    stop = asyncio.Event()
    askers = [asyncio.create_task(rows.ask(stop)) for _ in range(ASKERS)]
    await rows.until_answered(10 * ASKERS)
    await asyncio.sleep(rows.random.uniform(0, 1))
    await rows.hurt(victim_of(seed))
    await rows.until_answered(10 * ASKERS)
    stop.set()
    await asyncio.gather(*askers)
    began = time.monotonic()
    found = await rows.hold()
    print(
        f"seed {seed}: {victim_of(seed)} killed; {len(rows.answered)} of {rows.sent} answered, {found} rows, all well "
        f"{time.monotonic() - began:.1f} s after the last answer"
    )
