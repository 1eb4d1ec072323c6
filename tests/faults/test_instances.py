"""Two processes of one service share its group, its outbox and its work; one is killed, and nothing shows it."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from shared.testing.installation import Installation
from tests.faults import invariants
from tests.faults.stories import STORIES
from tests.faults.world import World

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("service", ["policy", "registry", "router"])
async def test_two_processes_do_everything_once(service: str, installation: Installation) -> None:
    installation.partitions = 3
    world = await World(installation, service).open()
    story = STORIES[service](world, Random(1))
    try:
        await story.prepare()
        first, _ = await asyncio.gather(world.start(), world.start())
        number = 0
        for _ in range(2):
            for _ in range(story.inputs):
                await story.step(number)
                number += 1
            await asyncio.sleep(0.5)
            if first.exit_code is None:
                first.kill()
        took = await invariants.hold(world, story.complaints)
        print(f"{service}: {number} inputs, one of two processes killed half way, all well after {took:.1f} s")
    finally:
        await story.close()
        await world.close()
