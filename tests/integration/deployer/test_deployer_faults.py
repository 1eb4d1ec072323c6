"""The deployer when things break: killed between steps, a target that dies or moves, rows that somebody changed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from services.deployer.model_server.testing import ModelServer
from shared.events.deployer import DeployCompleted, DeployFailed, DeployProgressed
from shared.testing.installation import eventually

from .world import World

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def black_hole() -> AsyncIterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def restart(deployer: World, **settings: Any) -> None:
    await deployer.installation.services["deployer"].stop()
    await deployer.installation.start("deployer", **{"model_server_url": deployer.server.url} | settings)


def on_the_same_port(server: ModelServer) -> None:
    server.options = ["--port", str(urlsplit(server.url).port)]


async def test_a_deployer_killed_between_steps_is_gone_on_with(world: World) -> None:
    await world.begin()
    await world.approve()
    await world.installation.services["deployer"].stop()
    async with black_hole() as nowhere:
        environment = world.installation.environment() | {
            "MINTMARK_DEPLOYER_MODEL_SERVER_URL": nowhere,
            "MINTMARK_DEPLOYER_LEASE_S": "2",
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", "deployer", "--host", "127.0.0.1", "--port", "0"),
            env=os.environ | environment,
        )
        try:
            asked = await world.request()
            await world.installation.wait_for(DeployProgressed, lambda event: event.step == "bundled")
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()
    await world.installation.start("deployer", model_server_url=world.server.url)
    completed = await world.completed(asked)
    world.predicts(completed)
    steps = [event.step for event in await world.installation.events(DeployProgressed)]
    assert steps == ["requested", "approved", "bundled", "loaded", "completed"]
    assert len(await world.installation.events(DeployCompleted)) == 1


async def test_work_in_hand_is_given_back_at_a_stop(world: World) -> None:
    async with black_hole() as nowhere:
        await world.begin(model_server_url=nowhere, lease_s=60)
        await world.approve()
        asked = await world.request()
        await world.installation.wait_for(DeployProgressed, lambda event: event.step == "bundled")
        await restart(world, lease_s=60)  # a minute's lease, and nobody waits for its end
        world.predicts(await world.completed(asked))


async def test_what_a_model_server_lost_is_put_back(world: World) -> None:
    await world.begin()
    await world.approve()
    completed = await world.completed(await world.request())
    world.server.kill()
    shutil.rmtree(world.server.repository)
    on_the_same_port(world.server)
    world.server.start()
    assert world.served() == []
    await world.installation.wait_for(DeployProgressed, lambda event: event.step == "restored")
    world.predicts(completed)
    assert len(await world.installation.events(DeployCompleted)) == 1


async def test_a_model_server_that_moved_is_told_to_all(world: World) -> None:
    await world.begin()
    await world.approve()
    before = await world.completed(await world.request())
    await world.installation.services["deployer"].stop()
    world.server.stop()
    world.server.start()
    await world.installation.start("deployer", model_server_url=world.server.url)
    after = await world.installation.wait_for(DeployCompleted, lambda event: event.endpoint != before.endpoint)
    assert (after.deployment_id, after.bundle) == (before.deployment_id, before.bundle)
    world.predicts(after)


async def test_what_is_approved_no_more_is_not_put_back(world: World) -> None:
    await world.begin()
    approval = await world.approve()
    asked = await world.request()
    await world.completed(asked)
    await world.decide(approval, "rejected")
    await world.installation.services["deployer"].stop()
    world.server.kill()
    shutil.rmtree(world.server.repository)
    world.server.start()
    await world.installation.start("deployer", model_server_url=world.server.url)
    failed = await world.failed(asked)
    assert (failed.code, world.served()) == ("not-approved", [])


async def test_flipping_database_rows_deploys_nothing(world: World) -> None:
    await world.begin()
    asked = await world.request()
    assert (await world.failed(asked)).code == "not-approved"
    database = world.installation.services["deployer"].database
    async with database.begin("default") as tx:
        await tx.connection.execute("UPDATE deployment SET state = 'completed'")

    async def state() -> Any:
        async with database.begin("default") as tx:
            return await tx.connection.fetchval("SELECT state FROM deployment")

    await eventually(state, lambda found: found == "failed")

    await world.register(2)
    await world.approve(signer="deployer")  # as good as a row written by hand
    async with database.begin("default") as tx:
        await tx.connection.execute("UPDATE deployment SET version = 2, digest = $1", world.asset.digest)
        await tx.connection.execute("UPDATE deployment SET state = 'approved', approval_id = gen_random_uuid()")
    await eventually(state, lambda found: found == "failed")
    codes = {event.code for event in await world.installation.events(DeployFailed)}
    assert (codes, world.served()) == ({"not-approved", "signature-refused"}, [])


async def test_a_target_that_does_not_answer_is_tried_again_then_given_up_and_cleared_later(world: World) -> None:
    on_the_same_port(world.server)
    await world.begin(most_tries=2)
    await world.approve()
    world.server.kill()
    asked = await world.request()
    failed = await world.failed(asked)
    assert failed.code == "target-unavailable"
    world.server.start()
    completed = await world.completed(await world.request())
    world.predicts(completed)
    async with world.installation.services["deployer"].database.begin("default") as tx:
        # As if it had failed after the target took it, and the target could not be reached to clear it.
        await tx.connection.execute("UPDATE deployment SET state = 'failed'")

    async def served() -> list[tuple[str, str]]:
        return world.served()

    await eventually(served, lambda found: found == [])


async def test_many_versions_are_deployed_side_by_side(world: World) -> None:
    await world.begin(concurrency=4)
    requests = []
    for number in range(2, 14):
        await world.register(number)
        await world.approve()
        requests.append(await world.request())
    for asked in requests:
        await world.completed(asked)
    assert len(world.served()) == 12
