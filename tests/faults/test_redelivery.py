"""Every event one to five times, and the keys in any order: the outcome is that of once and in turn."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict, deque
from random import Random

import pytest

from shared.testing.installation import Installation
from tests.faults import invariants
from tests.faults.stories import STORIES, Letter, Story
from tests.faults.world import World

pytestmark = pytest.mark.timeout(180)
SEEDS = max(1, int(os.environ.get("MINTMARK_TEST_SEEDS") or 20) // 20)
MOST_TIMES = 5


class Mailman:
    """Delivers what a story publishes: letters of one key in their order, all else, repeats included, by chance."""

    def __init__(self, story: Story, random: Random) -> None:
        self._story = story
        self._random = random
        self._first: dict[str, deque[Letter]] = defaultdict(deque)
        self._again: list[Letter] = []
        self.delivered = 0
        story.mail = self.take

    def take(self, letter: Letter) -> None:
        self._first[letter.event.key].append(letter)

    @property
    def done(self) -> bool:
        return not any(self._first.values()) and not self._again

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            keys = [key for key, letters in self._first.items() if letters]
            if not keys and not self._again:
                await asyncio.sleep(0.02)
                continue
            place = self._random.randrange(len(keys) + len(self._again))
            if place < len(keys):
                letter = self._first[keys[place]].popleft()
                self._again += [letter] * self._random.randrange(MOST_TIMES)
            else:
                letter = self._again.pop(place - len(keys))
            await self._story.deliver(letter)
            self.delivered += 1


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("service", sorted(STORIES))
async def test_every_event_comes_one_to_five_times(service: str, seed: int, installation: Installation) -> None:
    random = Random(seed)
    world = await World(installation, service).open()
    story = STORIES[service](world, random)
    mailman = Mailman(story, random)
    delivering = asyncio.create_task(mailman.run())
    try:
        await story.prepare()
        await world.start()
        for number in range(story.inputs):
            await story.step(number)

        async def undelivered() -> list[str]:
            return [] if mailman.done else ["letters wait to be delivered"]

        took = await invariants.hold(world, undelivered, story.complaints)
        print(f"{service}: {story.inputs} inputs, {mailman.delivered} deliveries, all well after {took:.1f} s")
    finally:
        delivering.cancel()
        await story.close()
        await world.close()
