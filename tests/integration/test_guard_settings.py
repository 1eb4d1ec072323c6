"""Guards that come with a version and classes that come by event: heard, kept, and held against the group's own."""

from __future__ import annotations

import asyncpg
import pytest
from router_story import asset, deployed, named, statement

from shared.events.policy import ClassificationChanged
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
GROUPS = "/router/v1/groups"
GUARD = {"name": "pii", "kind": "pii", "on": "both", "action": "mask", "when_it_fails": "closed"}


async def test_a_group_may_tighten_what_its_version_brings_and_not_loosen_it(installation: Installation) -> None:
    key = installation.key("user:otto", "release-manager", "operator")
    await installation.start("router")
    event = deployed(asset(1), statement(installation, asset(1))).model_copy(update={"guardrails": (GUARD,)})
    await installation.publish(event, source="mintmark/deployer")
    async with installation.client("router", key) as client:
        await eventually(
            lambda: client.post(GROUPS, json={"name": "g", "champion": named(asset(1))}),
            lambda answer: answer.status_code == 201,
        )
        path = f"{GROUPS}/g/settings/guardrails"
        loose = {"settings": {"guards": [{**GUARD, "action": "flag"}]}, "reason": "", "expected_revision": 1}
        refused = await client.put(path, json=loose)
        assert (refused.status_code, refused.json()["code"], refused.json()["guard"]) == (422, "guard-weakened", "pii")
        assert "'pii'" in refused.json()["detail"]
        assert (await client.get(f"{GROUPS}/g")).json()["revision"] == 1
        tight = {**loose, "settings": {"guards": [{**GUARD, "action": "block"}]}}
        assert (await client.put(path, json=tight)).status_code == 200
        other = {"settings": {"guards": []}, "reason": "inherited as it is", "expected_revision": 2}
        assert (await client.put(path, json=other)).status_code == 200


async def test_the_last_classification_of_an_asset_is_kept(installation: Installation) -> None:
    await installation.start("router")
    for number, (risk, cap) in enumerate((("limited", "250.00"), ("high", None)), 1):
        event = ClassificationChanged.model_validate(
            {"urn": asset(1).urn, "risk": risk, "cost": "low", "monthly_cap": cap, "reason": "annual review",
             "actor": {"id": "user:bea", "proven": True}}
        )  # fmt: skip
        await installation.publish(event, source="mintmark/policy", sequence=number)
    connection = await asyncpg.connect(
        installation.dsn("router"), server_settings={"search_path": "router", "mintmark.workspace": "*"}
    )
    try:
        await eventually(
            lambda: connection.fetchrow("SELECT risk, cost, monthly_usd, who FROM asset_class"),
            lambda row: row is not None and tuple(row) == ("high", "low", None, "user:bea"),
        )
    finally:
        await connection.close()
