"""SIGTERM while requests and events are in hand: they end, the outbox is published, the process leaves by itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from random import Random
from uuid import uuid4

import httpx
import pytest

from shared.artefacts import open_store
from shared.events.base import Artefact
from shared.events.upstream import AssetSubmitted, Training
from shared.ids import sha256
from shared.testing.installation import Installation, eventually
from tests.faults import invariants
from tests.faults.stories.registry import RegistryStory
from tests.faults.world import World

pytestmark = pytest.mark.timeout(120)
LANES = 4
DRAIN_S = 30.0
IN_FLIGHT_S = 0.5
"""A request that was sent so long before the signal has reached the server."""


@dataclass
class Load:
    """Submissions by HTTP, each sent once; `answers` are (sent at, status; 0 when the connection ended)."""

    world: World
    body: AssetSubmitted
    answers: list[tuple[float, int]] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)

    async def so_far(self) -> int:
        return len(self.taken)

    async def lane(self) -> None:
        """One after the other, until the server is gone."""
        headers = {"authorization": f"Bearer {self.world.key}"}
        async with httpx.AsyncClient(base_url=self.world.process.url, headers=headers, timeout=20) as http:
            while True:
                event = self.body.model_copy(
                    update={"submission_id": uuid4(), "training": Training(run_id=str(uuid4()))}
                )
                sent = time.monotonic()
                try:
                    key = {"idempotency-key": str(event.submission_id)}
                    body = event.model_dump(mode="json")
                    answer = await http.post("/registry/v1/submissions", json=body, headers=key)
                except httpx.TransportError:
                    self.answers.append((sent, 0))
                    return
                self.answers.append((sent, answer.status_code))
                if answer.is_success:
                    self.taken.append(str(event.submission_id))


async def test_sigterm_ends_what_is_in_hand_and_loses_nothing(installation: Installation) -> None:
    world = await World(installation, "registry").open()
    story = RegistryStory(world, Random(1))
    data = b"tree\nversion=v4\n"
    await open_store(installation.platform()).put_bytes(data)
    artefact = Artefact(digest=sha256(data), format="lightgbm")
    load = Load(world, AssetSubmitted(submission_id=uuid4(), kind="model", name="loaded", artefact=artefact))
    try:
        await story.prepare()
        process = await world.start()
        lanes = [asyncio.create_task(load.lane()) for _ in range(LANES)]
        for number in range(24):
            await story.step(number)
        await eventually(load.so_far, lambda count: count > 2 * LANES, what="submissions under load")
        signalled = time.monotonic()
        process.terminate()
        assert await process.ended(DRAIN_S), f"it still runs {DRAIN_S:.0f} s after SIGTERM:\n{process.log}"
        drained = time.monotonic() - signalled
        await asyncio.gather(*lanes)
        assert process.exit_code == 0, process.log
        assert {status for _, status in load.answers} <= {202, 0}, load.answers
        lost = [sent for sent, status in load.answers if status == 0 and sent < signalled - IN_FLIGHT_S]
        assert not lost, f"{len(lost)} requests in flight were not answered"
        assert [tuple(row) for row in await world.rows("SELECT count(*) FROM outbox")] == [(0,)]

        await world.start()
        await invariants.hold(world, lambda: answered(world, story, load))
        print(f"{len(load.taken)} requests taken, drained in {drained:.2f} s")
    finally:
        await world.close()


async def answered(world: World, story: RegistryStory, load: Load) -> list[str]:
    """What was answered 202 is registered. A request whose answer was lost may be, too."""
    rows = await world.rows("SELECT submission_id, urn FROM version")
    registered = {str(row["submission_id"]) for row in rows}
    found = [f"submission {one} was taken and is not registered" for one in load.taken if one not in registered]
    story.submitted |= {row["submission_id"]: row["urn"] for row in rows if row["urn"] == "mm:model/loaded"}
    return found + await story.complaints()
