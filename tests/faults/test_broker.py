"""The broker is killed in the middle of work and comes back: no process of ours is restarted, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import Random

import pytest

from tests.faults import invariants
from tests.faults.own import own_installation
from tests.faults.stories.policy import PolicyStory
from tests.faults.stories.registry import RegistryStory
from tests.faults.world import World

pytestmark = pytest.mark.timeout(240)
DOWN_S = 12.0  # longer than a send is waited for: the relay must come back from an error
REQUESTS = 2  # every fifth input of the registry's story is a request: 2, 7, 12, …


async def test_a_broker_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with own_installation(tmp_path) as (infrastructure, installation):
        world = await World(installation, "registry").open()
        beside = await World(installation, "policy").open()
        story, ledger = RegistryStory(world, Random(1)), PolicyStory(beside, Random(1))
        try:
            await story.prepare()
            process, other = await asyncio.gather(world.start(), beside.start())
            for number in range(10):
                await story.step(number)
            await asyncio.to_thread(infrastructure.kill_kafka)
            for number in range(10, 40):
                if number % 5 == REQUESTS:
                    await story.step(number)  # taken all the same: the outbox waits
            await asyncio.sleep(DOWN_S)
            assert await world.outstanding() == [], "requests were not taken while Kafka was down"
            await asyncio.to_thread(infrastructure.start_kafka)
            back = time.monotonic()
            for number in range(40, 50):
                world.beside(story.step(number))
            await invariants.hold(world, story.complaints)
            await invariants.hold(beside, ledger.ledger)
            took = time.monotonic() - back
            assert process.exit_code is None and other.exit_code is None
            print(f"the broker was away for {DOWN_S:.0f} s; all well {took:.1f} s after it was back")
        finally:
            await world.close()
            await beside.close()
