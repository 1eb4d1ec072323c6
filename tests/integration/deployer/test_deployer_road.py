"""The deployer on a real Kafka and Postgres, with a real model server: what is approved is served, nothing else is."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.deployer.model_server.testing import breast_cancer
from shared.events.base import AssetRef
from shared.events.deployer import DeployCompleted, DeployFailed, DeployProgressed
from shared.events.upstream import DeployRequested
from shared.ids import sha256
from shared.testing.installation import eventually

from .world import FEATURES, World

pytestmark = pytest.mark.timeout(120)
HEADERS = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"by-hand-1"),
    ("ce_source", b"test/hand"),
    ("ce_type", b"deploy.requested.v1"),
    ("ce_subject", b"mm:model/tumour"),
    ("ce_workspace", b"default"),
    ("content-type", b"application/json"),
]


async def test_an_approved_version_is_served_and_the_event_says_where_and_why(world: World) -> None:
    await world.begin()
    approval = await world.approve()
    asked = await world.request(requested_by="user:rita")
    completed = await world.completed(asked)
    assert (completed.endpoint, completed.model_name) == (world.server.url, "default.tumour")
    assert (completed.approval_id, completed.statement) == (approval.approval_id, approval.statement)
    assert [tensor.name for tensor in completed.signature.inputs] == breast_cancer(FEATURES)[2]
    world.predicts(completed)
    assert await world.store.size(completed.bundle) is not None
    steps = [event.step for event in await world.installation.events(DeployProgressed)]
    assert steps == ["requested", "approved", "bundled", "loaded", "completed"]


async def test_what_is_not_approved_is_refused_with_its_code_and_nothing_is_served(world: World) -> None:
    await world.begin()
    await world.approve()
    asked = await world.request(asset=world.asset.model_copy(update={"digest": sha256(b"other")}))
    assert (await world.failed(asked)).code == "wrong-digest"
    asked = await world.request(target="moon")
    assert (await world.failed(asked)).code == "unknown-target"

    await world.register(2)
    failed = await world.failed(await world.request())
    assert (failed.code, failed.asset) == ("not-approved", world.asset)

    other = (await world.register(3)).model_copy(update={"digest": sha256(b"other")})
    await world.approve(asset=other)
    assert (await world.failed(await world.request())).code == "wrong-digest"

    await world.register(4)
    await world.approve(days=-1)
    assert (await world.failed(await world.request())).code == "approval-expired"

    await world.register(5)
    await world.approve(signer="deployer")  # in policy's name, with another key
    failed = await world.failed(await world.request())
    assert failed.code == "signature-refused" and "does not fit" in failed.reason

    await world.register(6)
    await world.approve(workspace="elsewhere")
    assert (await world.failed(await world.request())).code == "not-approved"

    await world.register(7)
    await world.approve(artefact=sha256(b"other bytes"))
    assert (await world.failed(await world.request())).code == "wrong-digest"

    unknown = AssetRef(urn="mm:model/nobody", version=1, digest=sha256(b"nobody"))
    assert (await world.failed(await world.request(asset=unknown))).code == "unknown-asset"

    await world.register(8)
    approval = await world.approve()
    await world.decide(approval, "rejected")
    assert (await world.failed(await world.request())).code == "not-approved"

    await world.register(9)
    approval = await world.approve()
    await world.gate(approval, "reject")
    failed = await world.failed(await world.request())
    assert failed.code == "not-approved" and "rejects" in failed.reason
    assert world.served() == []


async def test_an_artefact_whose_bytes_changed_or_are_gone_is_not_deployed(world: World) -> None:
    await world.begin()
    await world.approve()
    path = world.store.path(world.artefact)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    failed = await world.failed(await world.request())
    assert (failed.code, world.served()) == ("artefact-damaged", [])
    path.unlink()
    assert (await world.failed(await world.request())).code == "artefact-missing"


async def test_a_request_that_nobody_proved_is_refused(world: World) -> None:
    await world.begin()
    await world.approve()
    assert (await world.failed(await world.request(signed=False))).code == "unproven"
    assert (await world.failed(await world.request(signed=False, requested_by="user:rita"))).code == "unproven"
    assert (await world.failed(await world.request(requested_by="user:eve"))).code == "requester-mismatch"
    await world.installation.send_raw("deploy.requested", b"{}", HEADERS, world.asset.urn.encode())
    invalid = await world.installation.wait_for(DeployFailed, lambda event: event.event_id == "by-hand-1")
    assert (invalid.code, invalid.request_id) == ("invalid", None)
    assert world.served() == []


async def test_unproven_requests_are_taken_where_the_installation_says_so(world: World) -> None:
    await world.begin(unverified="allow")
    await world.approve()
    assert (await world.failed(await world.request(signed=False, requested_by="user:rita"))).code == "unproven"
    world.predicts(await world.completed(await world.request(signed=False)))


async def test_a_request_that_comes_again_has_one_effect(world: World) -> None:
    await world.begin()
    await world.approve()
    asked = DeployRequested(request_id=uuid4(), asset=world.asset)
    await world.installation.publish(asked, key=world.key, event_id="the-same", times=3)
    await world.completed(asked)
    await world.installation.publish(asked, key=world.key)  # another event, the same request
    reused = asked.model_copy(update={"parameters": {"replicas": 2}})
    event_id = await world.installation.publish(reused, key=world.key)
    refused = await world.installation.wait_for(DeployFailed, lambda event: event.event_id == event_id)
    assert (refused.code, refused.request_id) == ("request-reused", None)
    assert len(await world.installation.events(DeployCompleted)) == 1
    assert len([e for e in await world.installation.events(DeployProgressed) if e.step == "bundled"]) == 1


async def test_a_version_deployed_again_under_a_new_approval_is_served_from_the_same_bundle(world: World) -> None:
    await world.begin()
    await world.approve()
    first = await world.completed(await world.request())
    approval = await world.approve()
    second = await world.completed(await world.request())
    assert (second.bundle, second.approval_id) == (first.bundle, approval.approval_id)
    assert second.deployment_id != first.deployment_id


async def test_a_request_that_overtakes_its_approval_waits_for_it(world: World) -> None:
    await world.begin(patience_s=20)
    asked = await world.request()
    await world.installation.wait_for(DeployProgressed, lambda event: event.request_id == asked.request_id)
    await world.approve()
    world.predicts(await world.completed(asked))


async def test_over_http_it_is_asked_for_followed_and_taken_away(world: World) -> None:
    publisher = world.installation.key("user:pia", "publisher")
    await world.begin()
    await world.approve()
    body = {"asset": {"urn": world.asset.urn, "version": 1}}
    async with world.installation.client("deployer", publisher) as client:
        assert (await client.post("/deployer/v1/deployments", json=body)).status_code == 403
    async with world.installation.client("deployer", world.key) as client:
        answer = await client.post("/deployer/v1/deployments", json={"asset": {"urn": "mm:model/no", "version": 1}})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown-asset")

        async def registered() -> httpx.Response:
            return await client.post("/deployer/v1/deployments", json=body)

        answer = await eventually(registered, lambda found: found.status_code == 202)
        deployment = answer.json()
        assert deployment["state"] == "requested" and deployment["requested_by"]["id"] == "user:rita"
        where = f"/deployer/v1/deployments/{deployment['deployment_id']}"

        async def account() -> Any:
            return (await client.get(where)).json()

        found = await eventually(account, lambda found: found["deployment"]["state"] == "completed")
        steps = [step["step"] for step in found["steps"]]
        assert steps == ["requested", "approved", "bundled", "loaded", "completed"]
        assert found["decision"]["statement"]["signatures"][0]["keyid"] == "policy"
        page = (await client.get("/deployer/v1/deployments", params={"urn": world.asset.urn})).json()
        assert [item["deployment_id"] for item in page["items"]] == [deployment["deployment_id"]]

        await world.route("live", 1)
        assert (await eventually(account, lambda found: found["groups"] == ["live"]))["groups"] == ["live"]
        answer = await client.post(f"{where}:undeploy")
        assert (answer.status_code, answer.json()["code"]) == (409, "carries-traffic")
        await world.route("live", 2, routed=False)
        await eventually(account, lambda found: found["groups"] == [])
        assert (await client.post(f"{where}:undeploy")).json()["state"] == "undeploying"
        await eventually(account, lambda found: found["deployment"]["state"] == "undeployed")
        assert world.served() == []
        assert (await client.post(f"{where}:undeploy")).json()["state"] == "undeployed"
    async with world.installation.client("deployer", world.key) as client:
        assert (await client.get(f"/deployer/v1/deployments/{uuid4()}")).json()["code"] == "unknown-deployment"
