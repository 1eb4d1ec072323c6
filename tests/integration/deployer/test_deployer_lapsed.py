"""A running version whose approval lapses goes on running, and everybody can see that it has lapsed."""

from __future__ import annotations

from typing import Any

import pytest

from shared.events.deployer import DeployWithdrawn
from shared.testing.installation import eventually

from .world import World

pytestmark = pytest.mark.timeout(120)
GAUGE = "mintmark_deployer_lapsed_deployments"


async def test_a_withdrawn_approval_is_complained_of_and_ends_no_traffic(world: World) -> None:
    await world.begin()
    approval = await world.approve()
    completed = await world.completed(await world.request())
    async with world.installation.client("deployer", world.key) as client:

        async def account() -> Any:
            return (await client.get(f"/deployer/v1/deployments/{completed.deployment_id}")).json()

        async def complaint() -> str | None:
            found: str | None = (await account())["deployment"]["complaint"]
            return found

        assert await complaint() is None
        await world.decide(approval, "rejected")
        found = await eventually(complaint, lambda found: found is not None)
        assert found == f"{world.asset} is approved no more: withdrawn"
        assert f"{GAUGE} 1.0" in (await client.get("/metrics")).text
        world.predicts(completed)
        assert await world.installation.events(DeployWithdrawn) == []

        await world.approve()
        await eventually(complaint, lambda found: found is None)
        assert [step["step"] for step in (await account())["steps"]][-2:] == ["lapsed", "approved again"]
        assert (await account())["deployment"]["state"] == "completed"
        listed = (await client.get("/deployer/v1/deployments")).json()["items"]
        assert [item["complaint"] for item in listed] == [None]


async def test_an_expired_approval_is_complained_of(world: World) -> None:
    await world.begin()
    await world.approve(days=2 / 86_400)
    completed = await world.completed(await world.request())
    async with world.installation.client("deployer", world.key) as client:

        async def complaint() -> str | None:
            found = (await client.get("/deployer/v1/deployments")).json()["items"][0]
            complaint: str | None = found["complaint"]
            return complaint

        found = await eventually(complaint, lambda found: found is not None)
        assert found is not None and "expired at" in found
    world.predicts(completed)
