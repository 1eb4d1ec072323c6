"""The router's road on a real Kafka and Postgres, with a real gateway process and real models behind it."""

from __future__ import annotations

import pytest
from router_story import asset, deploy, named, traffic

from shared.events.router import GroupChanged
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)


async def test_a_group_answers_at_the_gateway_and_every_answer_has_its_row(installation: Installation) -> None:
    manager = installation.key("user:rita", "release-manager", "caller")
    await installation.start("router")
    async with installation.client("router", manager) as client, traffic(installation, manager) as live:
        one = live.load(asset(1), rounds=5)
        await deploy(installation, client, one, endpoint=live.server.url)
        made = await client.post("/router/v1/groups", json={"name": "live-tumour", "champion": named(one)})
        assert (made.status_code, made.headers["etag"]) == (201, '"1"'), made.text
        await live.until_group("live-tumour")
        answer = await live.ask("live-tumour", 0)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-mintmark-version"] == str(one)
        async with installation.services["router"].database.begin("default") as tx:
            (row,) = await tx.connection.fetch("SELECT * FROM inference_log_live_tumour")
        assert (str(row["request_id"]), row["revision"]) == (answer.headers["x-mintmark-request-id"], 1)
        assert row["shap"]["features"]
    changed = await installation.wait_for(GroupChanged)
    assert [(arm.asset, arm.weight_bp) for arm in changed.arms] == [(one, 10_000)]
