"""Several gateways on one port: both serve, one that is killed is started again, and its rows are not lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from deploy.local.infrastructure import Infrastructure
from services.router.gateway.spool.reader import spools
from shared.testing.installation import WITHIN_S, eventually
from tests.faults.rows import Rows, own_infrastructure
from tests.integration.gateway.stub import StubServer

pytestmark = pytest.mark.timeout(180)
PROCESSES = 2
ASKERS = 12  # the kernel deals out connections by hash: that one of two gets none of them is 1 in 2,048


@pytest.fixture
def infrastructure() -> Iterator[Infrastructure]:
    with own_infrastructure() as made:
        yield made


@pytest.fixture
async def rows(infrastructure: Infrastructure, tmp_path: Path) -> AsyncIterator[Rows]:
    async with StubServer() as stub:
        made = Rows(infrastructure, tmp_path, stub, Random(1))
        await made.prepare()
        try:
            # No shipper yet: what a gateway has taken is seen in its spool.
            made.start("gateway", MINTMARK_GATEWAY_PROCESSES=str(PROCESSES))
            await made.until_ready("gateway")
            yield made
        finally:
            gateways = workers(made)
            made.end()
            for gateway in gateways:  # a supervisor that is killed cannot take its processes along
                gateway.kill()


def workers(rows: Rows) -> list[psutil.Process]:
    """The gateways that the supervisor has started and that live."""
    supervisor = rows.processes["gateway"]
    return [] if supervisor.poll() is not None else psutil.Process(supervisor.pid).children()


def sockets_of(rows: Rows, worker: psutil.Process, status: str) -> int:
    """The process's sockets on the gateways' port: one that listens, or those of its clients."""
    try:
        found = worker.net_connections("tcp")
    except psutil.Error:
        return 0
    return sum(one.status == status and one.laddr.port == rows.ports.gateway for one in found)


async def both(rows: Rows, status: str) -> list[psutil.Process]:
    """The processes, once each has such a socket."""

    async def look() -> list[psutil.Process]:
        return [one for one in workers(rows) if sockets_of(rows, one, status)]

    return await eventually(look, lambda found: len(found) == PROCESSES, what=f"both {status}")


async def both_serve(rows: Rows) -> list[psutil.Process]:
    """The processes, once each has clients and answers them."""
    found = await both(rows, psutil.CONN_ESTABLISHED)
    await rows.until_answered(20 * ASKERS)
    return found


async def test_one_of_two_gateways_is_killed_and_no_answered_request_is_lost(rows: Rows) -> None:
    await both(rows, psutil.CONN_LISTEN)  # clients that come before the second one stay with the first
    stop = asyncio.Event()
    askers = [asyncio.create_task(rows.ask(stop)) for _ in range(ASKERS)]
    first = await both_serve(rows)
    assert len(spools(rows.spool)) == PROCESSES

    victim, other = first
    victim.kill()
    await asyncio.to_thread(victim.wait, WITHIN_S)
    # Its clients have gone to the other one before the new one listens, and stay there: new ones show that it serves.
    await both(rows, psutil.CONN_LISTEN)
    late = [asyncio.create_task(rows.ask(stop)) for _ in range(ASKERS)]
    second = await both_serve(rows)
    assert other in second and victim not in second
    left = set(spools(rows.spool))
    assert len(left) == PROCESSES + 1, "the spool of the one that died waits for its shipper"

    rows.start("shipper")
    stop.set()
    await asyncio.gather(*askers, *late)
    await rows.hold()

    async def look() -> set[Path]:
        return set(spools(rows.spool))

    remaining = await eventually(look, lambda found: len(found) == PROCESSES, what="it was shipped")
    assert remaining < left

    supervisor = rows.processes["gateway"]
    supervisor.terminate()
    assert await asyncio.to_thread(supervisor.wait, WITHIN_S) == 0
    assert not [one for one in second if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
