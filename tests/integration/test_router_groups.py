"""Groups without traffic: names, approvals, races, workspaces, Kafka's side of the road."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from router_story import asset, decided, deploy, deployed, deployment, named, statement

from shared.events.router import GroupChanged, GroupPromoted
from shared.events.upstream import FeedbackReceived
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
GROUPS = "/router/v1/groups"


async def tables(installation: Installation) -> list[str]:
    async with installation.services["router"].database.begin("default") as tx:
        rows = await tx.connection.fetch("SELECT tablename FROM pg_tables WHERE tablename LIKE 'inference_log_%'")
    return sorted(row["tablename"] for row in rows)


BAD_NAMES = (
    "", "Live", "a b", "a_b", "1st", "-a", 'x"; DROP TABLE model_group; --', "x'--", "a" * 49, "a" * 200,
    "раyments", "naïve", "a\u200b", "a\n", "../a",
)  # fmt: skip


async def test_a_name_that_is_no_safe_identifier_is_refused_and_leaves_nothing(installation: Installation) -> None:
    key = installation.key("user:rita", "release-manager")
    await installation.start("router")
    async with installation.client("router", key) as client:
        await deploy(installation, client, asset(1))
        for name in BAD_NAMES:
            answer = await client.post(GROUPS, json={"name": name, "champion": named(asset(1))})
            assert (answer.status_code, answer.json()["code"]) == (422, "group-name-refused"), name
            assert "begins with a letter" in answer.json()["detail"]
        assert (await client.get(GROUPS)).json()["items"] == []
    assert await tables(installation) == []


async def test_only_what_is_deployed_and_approved_may_take_traffic(installation: Installation) -> None:
    key = installation.key("user:rita", "release-manager")
    await installation.start("router")
    good, forged, expired, foreign, moved = (asset(number) for number in range(1, 6))
    renewed = asset(6)
    async with installation.client("router", key) as client:
        long_ago = datetime.now(UTC) - timedelta(days=1)
        await deploy(installation, client, good)
        stranger = statement(installation, forged, key=Ed25519PrivateKey.generate())
        await deploy(installation, client, forged, approval=stranger)
        await deploy(installation, client, expired, approval=statement(installation, expired, expires_at=long_ago))
        await deploy(installation, client, foreign, approval=statement(installation, foreign, workspace="other"))
        await deploy(installation, client, moved, approval=statement(installation, good))
        await deploy(installation, client, renewed, approval=statement(installation, renewed, expires_at=long_ago))

        nowhere = await client.post(GROUPS, json={"name": "g", "champion": named(asset(99))})
        assert (nowhere.status_code, nowhere.json()["code"]) == (409, "not-deployed")
        for version, reason in ((forged, "signature"), (expired, "expired"), (foreign, "other"), (moved, "is of")):
            answer = await client.post(GROUPS, json={"name": "g", "champion": named(version)})
            assert (answer.status_code, answer.json()["code"]) == (403, "not-approved"), answer.text
            assert reason in answer.json()["detail"]
        assert await tables(installation) == []

        assert (await client.post(GROUPS, json={"name": "g", "champion": named(good)})).status_code == 201
        for version in (forged, expired, foreign, moved):
            weights = {"challengers": [{"asset": named(version), "weight_bp": 1}], "expected_revision": 1}
            answers = [
                await client.put(f"{GROUPS}/g/challengers", json=weights),
                await client.post(f"{GROUPS}/g:promote", json={"asset": named(version), "expected_revision": 1}),
            ]
            assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "not-approved")}

        # approved again: a newer statement lets it in; rejected: out, until approved once more
        await installation.publish(decided(renewed, "approved", statement(installation, renewed)))
        await deployment(client, renewed, None)
        await installation.publish(decided(renewed, "rejected"))
        assert (await deployment(client, renewed, "rejected: drifted"))["objection"]
        barred = await client.post(f"{GROUPS}/g:promote", json={"asset": named(renewed), "expected_revision": 1})
        assert (barred.status_code, barred.json()["code"]) == (403, "not-approved")
        await installation.publish(decided(renewed, "approved", statement(installation, renewed)))
        await deployment(client, renewed, None)
        promoted = await client.post(f"{GROUPS}/g:promote", json={"asset": named(renewed), "expected_revision": 1})
        assert promoted.status_code == 200, promoted.text
    (event,) = await installation.events(GroupPromoted)
    assert event.evidence["champion"]["binding"].startswith("sha256:")


async def test_a_version_that_was_approved_keeps_its_endpoint_when_a_forged_deployment_comes(
    installation: Installation,
) -> None:
    key = installation.key("user:rita", "release-manager")
    await installation.start("router")
    one, two = asset(1), asset(2)
    async with installation.client("router", key) as client:
        await deploy(installation, client, one, endpoint="http://127.0.0.1:1")
        stranger = statement(installation, one, key=Ed25519PrivateKey.generate())
        await installation.publish(deployed(one, stranger, "http://evil.example"), source="mintmark/deployer")
        await deploy(installation, client, two)  # same key: it is heard after the forged one
        assert (await deployment(client, one))["endpoint"] == "http://127.0.0.1:1"
        await deploy(installation, client, one, endpoint="http://127.0.0.1:2")

        async def look() -> str:
            return str((await deployment(client, one))["endpoint"])

        await eventually(look, lambda endpoint: endpoint == "http://127.0.0.1:2", what="the newer endpoint")


async def test_of_fifty_promotions_at_once_exactly_one_wins(installation: Installation) -> None:
    key = installation.key("user:rita", "release-manager")
    await installation.start("router")
    one, two, three = (asset(number) for number in (1, 2, 3))
    async with installation.client("router", key) as client:
        await deploy(installation, client, one, two, three)
        made = await client.post(GROUPS, json={"name": "race", "champion": named(one)})
        etag = made.headers["etag"]

        async def promote(number: int) -> tuple[int, str]:
            body = {"asset": named((two, three)[number % 2]), "reason": f"racer {number}"}
            if number % 3:
                answer = await client.post(f"{GROUPS}/race:promote", json=body, headers={"if-match": etag})
            else:
                answer = await client.post(f"{GROUPS}/race:promote", json={**body, "expected_revision": 1})
            return answer.status_code, answer.json().get("code", "")

        outcomes = Counter(await asyncio.gather(*(promote(number) for number in range(50))))
        assert outcomes == {(200, ""): 1, (409, "revision-conflict"): 49}
        history = (await client.get(f"{GROUPS}/race/history")).json()
        assert [entry["change"] for entry in history] == ["created", "promoted"]
        unsaid = await client.post(f"{GROUPS}/race:promote", json={"asset": named(one)})
        assert (unsaid.status_code, unsaid.json()["code"]) == (428, "precondition-required")
        odd = await client.post(f"{GROUPS}/race:promote", json={"asset": named(one)}, headers={"if-match": "W/x"})
        assert (odd.status_code, odd.json()["code"]) == (412, "precondition-failed")
    assert len(await eventually_all(installation, 2)) == 2
    assert len(await installation.events(GroupPromoted)) == 1


async def eventually_all(installation: Installation, count: int) -> list[GroupChanged]:
    async def look() -> list[GroupChanged]:
        return await installation.events(GroupChanged)

    return await eventually(look, lambda found: len(found) >= count, what="group.changed")


async def test_a_workspace_sees_nothing_of_another(installation: Installation) -> None:
    rita = installation.key("user:rita", "release-manager")
    otto = installation.key("user:otto", "owner", workspace="other")
    await installation.start("router")
    ours, theirs = asset(1), asset(1, "theirs")
    async with installation.client("router", rita) as client, installation.client("router", otto) as other:
        await deploy(installation, client, ours)
        await deploy(installation, other, theirs, workspace="other")
        assert (await client.post(GROUPS, json={"name": "ours", "champion": named(ours)})).status_code == 201
        assert [one["asset"]["urn"] for one in (await other.get("/router/v1/deployments")).json()["items"]] == [
            theirs.urn
        ]
        taken = await other.post(GROUPS, json={"name": "ours", "champion": named(theirs)})
        assert (taken.status_code, taken.json()["code"]) == (409, "group-name-taken")
        assert ours.urn not in taken.text
        stolen = await other.post(GROUPS, json={"name": "mine", "champion": named(ours)})
        assert (stolen.status_code, stolen.json()["code"]) == (409, "not-deployed")
        assert (await other.get(GROUPS)).json()["items"] == []

        request = uuid4()
        reads = ["", "/history", "/at?time=2030-01-01T00:00:00Z", "/comparison", "/inferences"]
        reads += [f"/inferences/{request}", f"/inferences/{request}/why"]
        answers = [await other.get(f"{GROUPS}/ours{path}") for path in reads]
        answers += [
            await other.put(f"{GROUPS}/ours/challengers", json={"challengers": [], "expected_revision": 1}),
            await other.post(f"{GROUPS}/ours:promote", json={"asset": named(ours), "expected_revision": 1}),
            await other.post(f"{GROUPS}/ours:rollback", json={}),
            await other.post(f"{GROUPS}/ours/feedback", json={"request_id": str(request), "value": 1}),
        ]
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "unknown-group")}
        missing = await client.get(f"{GROUPS}/ours/inferences/{request}")
        assert (missing.status_code, missing.json()["code"]) == (404, "unknown-request")


async def test_roles_read_route_move_and_give_feedback_apart(installation: Installation) -> None:
    rita = installation.key("user:rita", "release-manager")
    app, viewer = installation.key("app:clinic", "caller"), installation.key("user:vera", "viewer")
    await installation.start("router")
    one = asset(1)
    async with installation.client("router", rita) as client:
        await deploy(installation, client, one)
        assert (await client.post(GROUPS, json={"name": "g", "champion": named(one)})).status_code == 201
    word = {"request_id": str(uuid4()), "value": True}
    async with installation.client("router", app) as client:
        assert (await client.get(f"{GROUPS}/g")).status_code == 403
        assert (await client.post(f"{GROUPS}/g/feedback", json=word)).json() == {"received": 1, "unmatched": 1}
    async with installation.client("router", viewer) as client:
        assert (await client.get(f"{GROUPS}/g")).status_code == 200
        assert (await client.post(f"{GROUPS}/g:rollback", json={})).status_code == 403
        assert (await client.post(f"{GROUPS}/g/feedback", json=word)).status_code == 403


async def test_feedback_from_a_pipeline_counts_once_and_names_its_author(installation: Installation) -> None:
    rita, clinic = installation.key("user:rita", "release-manager"), installation.key("pipeline:clinic", "publisher")
    await installation.start("router")
    async with installation.client("router", rita) as client:
        await deploy(installation, client, asset(1))
        assert (await client.post(GROUPS, json={"name": "g", "champion": named(asset(1))})).status_code == 201
        event = FeedbackReceived(group="g", request_id=uuid4(), value=True, observed_at=datetime.now(UTC))
        await installation.publish(event, key=clinic, times=3)
        own = {"request_id": str(event.request_id), "metric": "revenue", "value": 12.5}
        assert (await client.post(f"{GROUPS}/g/feedback", json=own)).status_code == 202

        async def look() -> list[tuple[str, str, str | None, float | None]]:
            async with installation.services["router"].database.begin("default") as tx:
                rows = await tx.connection.fetch("SELECT who, metric, label, value FROM feedback ORDER BY metric")
            return [tuple(row) for row in rows]

        await eventually(look, lambda rows: len(rows) == 2, what="feedback")
        own_event = await installation.wait_for(FeedbackReceived, lambda found: found.metric == "revenue")
        assert own_event.request_id == event.request_id
        # Our own events come back to us and change nothing: what they say may have been erased since.
        erased = event.model_copy(update={"metric": "erased"})
        await installation.publish(erased, key=rita, source="mintmark/router")
        await installation.publish(erased.model_copy(update={"metric": "visits"}), key=clinic)
        await eventually(look, lambda rows: len(rows) > 2, what="the word after it")
        assert await look() == [
            ("pipeline:clinic", "label", "1", 1.0),
            ("user:rita", "revenue", None, 12.5),
            ("pipeline:clinic", "visits", None, 1.0),
        ]
        for value in (None, [1], {"a": 1}, "x" * 201, ""):
            answer = await client.post(f"{GROUPS}/g/feedback", json=[own, {**own, "value": value}])
            assert answer.status_code == 422, value
        too_many = await client.post(f"{GROUPS}/g/feedback", json=[own] * 10_001)
        assert too_many.status_code == 422
    assert len(await look()) == 3


async def test_ten_thousand_words_in_one_call(installation: Installation) -> None:
    rita = installation.key("user:rita", "release-manager")
    await installation.start("router")
    async with installation.client("router", rita) as client:
        await deploy(installation, client, asset(1))
        assert (await client.post(GROUPS, json={"name": "g", "champion": named(asset(1))})).status_code == 201
        words = [{"request_id": str(uuid4()), "value": number % 2} for number in range(10_000)]
        answer = await client.post(f"{GROUPS}/g/feedback", json=words)
        assert (answer.status_code, answer.json()) == (202, {"received": 10_000, "unmatched": 10_000})
