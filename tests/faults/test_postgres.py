"""Postgres crashes and recovers under load: 503 meanwhile, every 2xx is durable, and the pools heal by themselves."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from uuid import uuid4

import httpx
import pytest

from shared.artefacts import open_store
from shared.events.base import Artefact
from shared.events.upstream import AssetSubmitted, Training
from shared.ids import sha256
from shared.testing.installation import eventually
from tests.faults import invariants
from tests.faults.own import own_installation
from tests.faults.stories.registry import RegistryStory
from tests.faults.world import World

pytestmark = pytest.mark.timeout(240)
LANES = 4
DATA = b"tree\nversion=v4\n"


@dataclass
class Load:
    """Submissions by HTTP without pause; one that gets a 503 is sent again with the same Idempotency-Key."""

    world: World
    story: RegistryStory
    over: asyncio.Event = field(default_factory=asyncio.Event)
    answers: list[tuple[float, int, str]] = field(default_factory=list)

    async def taken(self) -> float:
        """When the last one was taken, by the monotonic clock; 0 when none was."""
        return max((at for at, status, _ in self.answers if status == 202), default=0.0)

    async def lane(self, name: str) -> None:
        headers = {"authorization": f"Bearer {self.world.key}"}
        async with httpx.AsyncClient(base_url=self.world.process.url, headers=headers, timeout=30) as http:
            while not self.over.is_set():
                event = AssetSubmitted(
                    submission_id=uuid4(),
                    kind="model",
                    name=name,
                    artefact=Artefact(digest=sha256(DATA), format="lightgbm"),
                    training=Training(run_id=str(uuid4())),
                )
                self.story.submitted[event.submission_id] = event.urn
                await self._send(http, event)

    async def _send(self, http: httpx.AsyncClient, event: AssetSubmitted) -> None:
        body, headers = event.model_dump(mode="json"), {"idempotency-key": str(event.submission_id)}
        while True:
            answer = await http.post("/registry/v1/submissions", json=body, headers=headers)
            code = "" if answer.is_success else str(answer.json()["code"])
            self.answers.append((time.monotonic(), answer.status_code, code))
            if answer.status_code != 503:
                return
            await asyncio.sleep(0.05)


async def test_postgres_crashes_under_load(tmp_path: Path) -> None:
    async with own_installation(tmp_path) as (infrastructure, installation):
        world = await World(installation, "registry").open()
        story = RegistryStory(world, Random(1))
        load = Load(world, story)
        await open_store(installation.platform()).put_bytes(DATA)
        try:
            await story.prepare()
            process = await world.start()
            lanes = [world.beside(load.lane(f"lane-{number}")) for number in range(LANES)]
            for number in range(20):
                await story.step(number)
            await asyncio.sleep(0.5)
            assert await load.taken() > 0
            await asyncio.to_thread(infrastructure.stop_postgres, "immediate")
            await asyncio.sleep(1.5)
            await asyncio.to_thread(infrastructure.start_postgres)
            started = time.monotonic()
            for number in range(20, 30):
                await story.step(number)
            await eventually(load.taken, lambda last: last > started, what="one taken after Postgres came back")
            load.over.set()
            await asyncio.gather(*lanes)

            found = {(status, code) for _, status, code in load.answers}
            assert found <= {(202, ""), (503, "unavailable"), (409, "outcome-unknown")}, found
            assert (503, "unavailable") in found
            taken = [at for at, status, _ in load.answers if status == 202]
            healed = min(at for at in taken if at > started) - started
            took = await invariants.hold(world, story.complaints)
            assert process.exit_code is None
            print(
                f"{len(taken)} taken, {len(load.answers) - len(taken)} put off; healed {healed:.2f} s after Postgres, "
                f"all well {took:.1f} s later"
            )
        finally:
            load.over.set()
            await world.close()
