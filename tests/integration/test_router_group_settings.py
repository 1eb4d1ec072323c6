"""What groups are told beside who serves them: set with compare-and-swap, logged, and told to the gateways."""

from __future__ import annotations

import asyncio
from collections import Counter

import asyncpg
import pytest
from router_story import asset, deploy, named

from services.router.group_settings import SECTIONS
from shared.db.database import EVERY_WORKSPACE
from shared.events.router import GroupChanged
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)
GROUPS = "/router/v1/groups"


async def test_a_section_is_set_read_back_and_its_history_kept(installation: Installation) -> None:
    key = installation.key("user:otto", "release-manager", "operator")
    await installation.start("router")
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        await client.post(GROUPS, json={"name": "g", "champion": named(asset(1))})
        fresh = (await client.get(f"{GROUPS}/g/settings")).json()
        assert (fresh["revision"], set(fresh["settings"])) == (1, set(SECTIONS))
        assert fresh["settings"]["rows"]["when_spool_full"] == "refuse"

        body = {"settings": {"when_spool_full": "drop"}, "reason": "answers matter more", "expected_revision": 1}
        answer = await client.put(f"{GROUPS}/g/settings/rows", json=body)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["revision"], answer.headers["etag"]) == (2, '"2"')
        body = {"settings": {"retention_days": 30}, "reason": "as the law says"}
        answer = await client.put(f"{GROUPS}/g/settings/rows", json=body, headers={"if-match": '"2"'})
        assert answer.json()["settings"]["rows"]["when_spool_full"] == "refuse"  # whole: what is left out is default

        history = (await client.get(f"{GROUPS}/g/settings/rows/history")).json()
        told = [(one["revision"], one["settings"]["when_spool_full"], one["who"], one["why"]) for one in history]
        assert told == [(2, "drop", "user:otto", "answers matter more"), (3, "refuse", "user:otto", "as the law says")]
        group = (await client.get(f"{GROUPS}/g")).json()
        assert (group["revision"], group["change"]) == (3, "configured")
        assert group["evidence"] == {"section": "rows", "value": {"retention_days": 30}}
    await installation.wait_for(GroupChanged, lambda change: change.revision == 3)
    assert [change.revision for change in await installation.events(GroupChanged)] == [1, 2, 3]


async def test_what_is_no_setting_is_refused_and_changes_nothing(installation: Installation) -> None:
    key = installation.key("user:otto", "release-manager", "operator")
    caller = installation.key("user:carl", "caller")
    await installation.start("router")
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        await client.post(GROUPS, json={"name": "g", "champion": named(asset(1))})
        at = {"expected_revision": 1}
        for settings in ({"when_spool_ful": "drop"}, {"retention_days": 0}, {"retention_days": "ten"}, [], None):
            answer = await client.put(f"{GROUPS}/g/settings/rows", json={"settings": settings, **at})
            assert answer.status_code == 422, settings
        assert (await client.put(f"{GROUPS}/g/settings/rows", json={"settings": {}})).status_code == 428
        assert (await client.put(f"{GROUPS}/h/settings/rows", json={"settings": {}, **at})).status_code == 404
        assert (await client.put(f"{GROUPS}/g/settings/rose", json={"settings": {}, **at})).status_code == 404
        unknown = await client.get(f"{GROUPS}/g/settings/rose/history")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-section")
        assert (await client.get(f"{GROUPS}/g")).json()["revision"] == 1

    async with installation.client("router", caller) as client:
        answer = await client.put(f"{GROUPS}/g/settings/rows", json={"settings": {}, **at})
        assert answer.status_code == 403


async def test_a_name_of_nothing_is_refused_with_what_is_most_like_it(installation: Installation) -> None:
    key = installation.key("user:otto", "owner")
    await installation.start("router")
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1), asset(2), asset(3, "small"))
        await client.post(GROUPS, json={"name": "live", "champion": named(asset(1))})
        provider = {"name": "eu-west", "kind": "oip", "base_url": "http://127.0.0.1:9"}
        assert (await client.post("/router/v1/providers", json=provider)).status_code == 201
        beta = {"name": "beta", "when": [{"unit": True, "present": True}]}

        async def put(section: str, settings: dict[str, object]) -> tuple[int, object, object]:
            body = {"settings": settings, "expected_revision": 1}
            answer = await client.put(f"{GROUPS}/live/settings/{section}", json=body)
            return answer.status_code, answer.json().get("field"), answer.json().get("near")

        async def target(**of: object) -> tuple[int, object, object]:
            tiers = [{"name": "t", "targets": [{"version": named(asset(2))}, of]}]
            return await put("routing", {"failover": tiers})

        one, two, small = f"{asset(1).urn}@1", f"{asset(2).urn}@2", "mm:model/small@3"
        assert await put("routing", {"rules": [{**beta, "to": named(asset(2))}]}) == (422, "rules.0.to", [one])
        split = [{"to": named(asset(2)), "weight_bp": 10_000}]
        assert await put("routing", {"rules": [{**beta, "split": split}]}) == (422, "rules.0.split.0.to", [one])
        field = "failover.0.targets.1"
        assert await target(version=named(asset(7))) == (422, f"{field}.version", [two, one])
        misspelt = {"urn": "mm:model/smal", "version": 3}
        assert await target(version=misspelt) == (422, f"{field}.version", [small])
        assert await target(provider="eu-wets", model="m") == (422, f"{field}.provider", ["eu-west"])
        assert await target(provider="eu-west", version=named(asset(2))) == (422, f"{field}.version", [])
        judge = {"name": "j", "kind": "judge", "on": "output", "action": "block", "when_it_fails": "open"}
        judge |= {"group": "lives", "prompt": "Is this bad? {text}"}
        assert await put("guardrails", {"guards": [judge]}) == (422, "guards.0.group", ["live"])
        assert (await client.get(f"{GROUPS}/live")).json()["revision"] == 1
        assert (await target(provider="eu-west", model="m"))[0] == 200


async def test_of_many_at_once_one_is_in_force(installation: Installation) -> None:
    key = installation.key("user:otto", "release-manager", "operator")
    await installation.start("router")
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        await client.post(GROUPS, json={"name": "g", "champion": named(asset(1))})
        bodies = [{"settings": {"retention_days": days}, "expected_revision": 1} for days in range(1, 11)]
        answers = await asyncio.gather(*(client.put(f"{GROUPS}/g/settings/rows", json=body) for body in bodies))
        assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 9}
        assert len((await client.get(f"{GROUPS}/g/settings/rows/history")).json()) == 1
    with pytest.raises(asyncpg.RestrictViolationError):
        async with installation.services["router"].database.begin(EVERY_WORKSPACE) as tx:
            await tx.connection.execute("UPDATE group_setting SET value = '{}'")
