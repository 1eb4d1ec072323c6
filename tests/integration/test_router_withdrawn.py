"""A version that is undeployed: a challenger leaves its groups, a champion is said to be gone and comes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from router_story import asset, deploy, deployed, deployment, named, statement, traffic

from shared.events.base import Actor, AssetRef
from shared.events.deployer import DeployCompleted, DeployWithdrawn
from shared.events.router import GroupChanged
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(180)
GROUPS = "/router/v1/groups"
RITA = Actor(id="user:rita", proven=True)


def withdrawn(of: DeployCompleted, at: datetime | None = None) -> DeployWithdrawn:
    return DeployWithdrawn(
        request_id=of.request_id,
        deployment_id=of.deployment_id,
        asset=of.asset,
        target=of.target,
        endpoint=of.endpoint,
        code="undeployed",
        reason="undeployed by user:rita",
        actor=RITA,
        withdrawn_at=at or datetime.now(UTC),
    )


async def group(client: httpx.AsyncClient, name: str = "live") -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"{GROUPS}/{name}")).json()
    return found


async def test_the_router_and_its_gateway_go_by_what_is_withdrawn(installation: Installation) -> None:
    key, app = installation.key("user:rita", "release-manager"), installation.key("app:clinic", "caller")
    await installation.start("router")
    async with installation.client("router", key) as client, traffic(installation, app) as live:
        one, two = live.load(asset(1), rounds=3), live.load(asset(2), rounds=5)
        await deploy(installation, client, one, two, endpoint=live.server.url)
        heard = {event.asset: event for event in await installation.events(DeployCompleted)}
        assert (await client.post(GROUPS, json={"name": "live", "champion": named(one)})).status_code == 201
        weights = {"challengers": [{"asset": named(two), "weight_bp": 10_000}], "expected_revision": 1}
        assert (await client.put(f"{GROUPS}/live/challengers", json=weights)).status_code == 200
        await live.until_group("live")
        await answered(live, "live", two)

        await installation.publish(withdrawn(heard[two]))
        changed = await installation.wait_for(GroupChanged, lambda event: event.revision == 3)
        assert [arm.asset for arm in changed.arms] == [one] and changed.arms[0].weight_bp == 10_000
        assert changed.actor == RITA and f"{two} was withdrawn: undeployed by user:rita" in changed.reason
        await answered(live, "live", one)
        barred = await client.post(f"{GROUPS}/live:promote", json={"asset": named(two), "expected_revision": 3})
        assert (barred.status_code, barred.json()["code"]) == (409, "not-deployed")

        await installation.publish(withdrawn(heard[one]))
        seen = await eventually(lambda: group(client), lambda found: found["unavailable"] is not None)
        assert (seen["revision"], seen["champion"]) == (3, one.model_dump())
        assert "was withdrawn at" in seen["unavailable"] and "undeployed by user:rita" in seen["unavailable"]
        listed = (await client.get(GROUPS)).json()["items"]
        assert [item["unavailable"] for item in listed] == [seen["unavailable"]]
        assert (await client.get("/router/v1/deployments")).json()["items"] == []
        refused = await eventually(lambda: live.ask("live", 1), lambda answer: answer.status_code != 200)
        assert (refused.status_code, refused.json()["code"]) == (503, "version-not-servable")
        assert refused.json()["detail"] == seen["unavailable"]
        ready = await live.http.get("/v2/models/live/ready")
        assert (ready.status_code, ready.json()["error"]) == (503, seen["unavailable"])

        await deploy(installation, client, one, endpoint=live.server.url)
        await answered(live, "live", one)
        assert (await group(client))["unavailable"] is None


async def test_words_on_two_topics_may_come_in_any_order(installation: Installation) -> None:
    key = installation.key("user:rita", "release-manager")
    await installation.start("router")
    now = datetime.now(UTC)
    one, two = asset(1), asset(2)
    first, other = deployed(one, statement(installation, one)), deployed(two, statement(installation, two))
    again = deployed(one, statement(installation, one)).model_copy(update={"completed_at": now + timedelta(minutes=2)})
    async with installation.client("router", key) as client:
        # Withdrawn before it was heard that it had completed at all.
        await installation.publish(withdrawn(first, now + timedelta(minutes=1)))
        await installation.publish(first)
        await installation.publish(other)
        await deployment(client, two)
        await eventually(lambda: rows(client), lambda found: found == [two.model_dump()])
        # Deployed again, and the word of the first deployment's end comes after that.
        await installation.publish(again)
        await deployment(client, one)
        late = first.model_copy(update={"completed_at": now + timedelta(seconds=30)})
        await installation.publish(withdrawn(late, now + timedelta(minutes=1)))
        # An end that is heard before the newest beginning, while an older one is known.
        beginning = other.model_copy(
            update={"completed_at": now + timedelta(minutes=3), "deployment_id": late.request_id}
        )
        await installation.publish(withdrawn(beginning, now + timedelta(minutes=4)))
        await eventually(lambda: rows(client), lambda found: found == [one.model_dump()])
        await installation.publish(beginning)
        three = asset(3)
        await installation.publish(deployed(three, statement(installation, three)))
        await deployment(client, three)
        assert await rows(client) == [one.model_dump(), three.model_dump()]


async def rows(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    return [item["asset"] for item in (await client.get("/router/v1/deployments")).json()["items"]]


async def answered(live: Any, name: str, by: AssetRef) -> None:
    """Wait until the version answers for the group; nothing but answers is seen meanwhile."""

    async def look() -> httpx.Response:
        found: httpx.Response = await live.ask(name, 1)
        return found

    await eventually(look, lambda answer: answer.headers.get("x-mintmark-version") == str(by), what=f"answers of {by}")
