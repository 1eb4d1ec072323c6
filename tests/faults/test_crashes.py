"""kill -9 at every named point of every service: whatever was half done is done once, and nothing is lost.

A case is drawn from its seed alone. MINTMARK_TEST_SEEDS=200 runs that many; the first 20 meet every service and point.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from random import Random

import pytest

from shared import faults
from shared.testing.installation import Installation
from tests.faults import invariants
from tests.faults.stories import STORIES, Story
from tests.faults.world import World

pytestmark = pytest.mark.timeout(240)
SEEDS = 20
MOST_INPUTS = 60


@dataclass(frozen=True, slots=True)
class Case:
    """Where one service dies: when it passes `point` for the `count`-th time."""

    service: str
    point: str
    seed: int

    @property
    def count(self) -> int:
        return Random(self.seed).randint(1, STORIES[self.service].deepest)

    def __str__(self) -> str:
        return f"{self.service}-{self.point}:{self.count}-seed{self.seed}"


def cases(seeds: int) -> list[Case]:
    """Service by service, each at another of its points than the one before."""
    services = sorted(STORIES)
    drawn = []
    for seed in range(seeds):
        round_, place = divmod(seed, len(services))
        points = STORIES[services[place]].points
        drawn.append(Case(services[place], points[(round_ + 5 * place) % len(points)], seed))
    return drawn


def test_the_cases_of_a_usual_run_meet_every_service_and_every_point() -> None:
    drawn = cases(SEEDS)
    assert {case.service for case in drawn} == set(STORIES)
    of_rows = {"spool.written", "shipper.copied", "shipper.committed"}  # test_rows.py
    assert {case.point for case in drawn} == set(faults.POINTS) - of_rows


@pytest.mark.parametrize("case", cases(int(os.environ.get("MINTMARK_TEST_SEEDS") or SEEDS)), ids=str)
async def test_killed_at_a_point(case: Case, installation: Installation) -> None:
    random = Random(case.seed)
    world = await World(installation, case.service).open()
    story = STORIES[case.service](world, random)
    try:
        await story.prepare()
        await world.start(f"{case.point}:{case.count}")
        begun = time.monotonic()
        number = await until_it_dies(world, story, random)
        assert world.process.exit_code == -9, world.process.log
        for _ in range(2):  # while it is down
            await story.step(number)
            number += 1
        began = time.monotonic()
        await world.start(ready=False)
        await invariants.hold(world, story.complaints)
        died, recovered = began - begun, time.monotonic() - began
        print(f"{case}: {number} inputs, dead after {died:.1f} s, all well {recovered:.1f} s after the new start")
    finally:
        await story.close()
        await world.close()


async def until_it_dies(world: World, story: Story, random: Random) -> int:
    """Inputs, fast at first, then one at a time until the process is dead; returns how many."""
    for number in range(MOST_INPUTS):
        if world.process.exit_code is not None:
            return number
        await story.step(number)
        if number >= story.inputs:
            await world.process.ended(story.pause_s)
        else:
            await asyncio.sleep(random.choice((0, 0, 0.05, 0.2)))
    assert await world.process.ended(30), f"it did not die after {MOST_INPUTS} inputs:\n{world.process.log}"
    return MOST_INPUTS
