"""That a version answers no longer is said, with who took it away or why it was not put back; only when it is so."""

from __future__ import annotations

import shutil

import pytest

from shared.events.deployer import DeployProgressed, DeployWithdrawn
from shared.testing.installation import eventually

from .world import World

pytestmark = pytest.mark.timeout(120)


async def test_whoever_undeploys_is_named_once_nothing_is_left(world: World) -> None:
    await world.begin()
    await world.approve()
    first = await world.completed(await world.request())
    second = await world.completed(await world.request())
    async with world.installation.client("deployer", world.key) as client:
        for taken in (second, first):
            answer = await client.post(f"/deployer/v1/deployments/{taken.deployment_id}:undeploy")
            assert answer.status_code == 202, answer.text
            await world.installation.wait_for(
                DeployProgressed,
                lambda event, taken=taken: (event.request_id, event.step) == (taken.request_id, "undeployed"),
            )
            assert world.served() == ([("default.tumour", "1")] if taken is second else [])
    said = await eventually(lambda: world.installation.events(DeployWithdrawn), lambda found: bool(found))
    assert [event.deployment_id for event in said] == [first.deployment_id]
    (event,) = said
    assert (event.asset, event.target, event.endpoint) == (first.asset, first.target, first.endpoint)
    assert (event.code, event.actor.id, event.actor.proven) == ("undeployed", "user:rita", True)
    assert event.reason == "undeployed by user:rita" and event.withdrawn_at > first.completed_at


async def test_what_may_not_be_put_back_is_withdrawn_with_the_reason(world: World) -> None:
    await world.begin()
    approval = await world.approve()
    asked = await world.request()
    completed = await world.completed(asked)
    await world.decide(approval, "rejected")
    await world.installation.services["deployer"].stop()
    world.server.kill()
    shutil.rmtree(world.server.repository)
    world.server.start()
    await world.installation.start("deployer", model_server_url=world.server.url)
    event = await world.installation.wait_for(DeployWithdrawn)
    assert (event.deployment_id, event.code) == (completed.deployment_id, "not-approved")
    assert event.actor.id == "service:deployer" and "withdrawn" in event.reason
    assert (await world.failed(asked)).code == "not-approved"


async def test_what_never_completed_is_not_withdrawn(world: World) -> None:
    await world.begin()
    await world.failed(await world.request())
    assert await world.installation.events(DeployWithdrawn) == []
