"""Policy on a real Kafka and Postgres: an evaluation leads to a gate, a second person lets the version through."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from policy_story import (
    ADA,
    ARTEFACT,
    DATASET,
    NOBODY,
    between,
    evaluated,
    gated,
    registered,
    version,
    wish,
)

from shared.events.evaluator import EvalFailed
from shared.events.policy import ApprovalDecided, DatasetApproved, GateDecided, PolicyPublished
from shared.identity import dsse
from shared.identity.identity import trusted_keys
from shared.ids import digest_of, sha256
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)


async def test_an_evaluation_leads_to_a_gate_and_a_second_person_to_a_signed_approval(
    installation: Installation,
) -> None:
    ada, bea = installation.key("user:ada", "approver"), installation.key("user:bea", "approver")
    await installation.start("policy")
    await registered(installation, version())
    gate = await gated(installation, evaluated(version(), between(0.87, 0.89)))
    assert (gate.verdict, gate.policy_version) == ("pass", 1)
    assert {rule.measure: rule.outcome for rule in gate.rules}["roc_auc"] == "pass"
    assert gate.binding == digest_of(
        {
            "asset": version().digest,
            "artefact": ARTEFACT,
            "prompts": [],
            "dataset": DATASET.digest,
            "report": sha256(b"report"),
        }
    )
    published = await installation.wait_for(PolicyPublished)
    assert (published.policy, published.number) == ("gate/classification", 1)

    async with installation.client("policy", ada) as client:
        own = await client.post("/policy/v1/approvals", json=wish(version()))
        assert (own.status_code, own.json()["code"]) == (403, "four-eyes")
    async with installation.client("policy", bea) as client:
        (waiting,) = (await client.get("/policy/v1/approvals")).json()["items"]
        assert (waiting["asset"]["urn"], waiting["gate"]["gate_id"]) == (version().urn, str(gate.gate_id))
        answer = await client.post("/policy/v1/approvals", json=wish(version(), expires_in_days=30))
        assert answer.status_code == 201, answer.text
        assert (await client.get("/policy/v1/approvals")).json()["items"] == []
        evidence = (await client.get("/policy/v1/assets/model/employment/versions/1/evidence")).json()
        assert (evidence["standing"], len(evidence["gates"]), len(evidence["approvals"])) == ("approved", 1, 1)

    approval = await installation.wait_for(ApprovalDecided)
    assert (approval.approver.id, approval.author.id, approval.binding) == ("user:bea", "user:ada", gate.binding)
    envelope = dsse.Envelope.model_validate(approval.statement.model_dump(by_alias=True))
    trusted = trusted_keys(installation.folder / "trust.json")
    stated = json.loads(dsse.verify(envelope, {"policy": trusted["policy"]}, "application/vnd.mintmark.approval+json"))
    assert stated["asset"] == version().model_dump()
    assert (stated["artefact"], stated["binding"], stated["workspace"]) == (ARTEFACT, gate.binding, "default")
    assert (stated["decision"], stated["gate_id"], stated["policy_version"]) == ("approved", str(gate.gate_id), 1)
    assert UUID(stated["approval_id"]) == approval.approval_id
    assert (datetime.fromisoformat(stated["expires_at"]) - datetime.fromisoformat(stated["decided_at"])).days == 30
    changed = json.loads(base64.b64decode(approval.statement.payload)) | {"asset": version(2).model_dump()}
    forged = envelope.model_copy(update={"payload": base64.b64encode(json.dumps(changed).encode()).decode()})
    with pytest.raises(Exception, match="does not fit"):
        dsse.verify(forged, {"policy": trusted["policy"]}, "application/vnd.mintmark.approval+json")


async def test_the_gate_looks_at_the_whole_interval(installation: Installation) -> None:
    await installation.start("policy")
    for number, (auc, verdict, reason) in enumerate(
        [
            (between(0.76, 0.80), "pass", "all 5 rules pass"),
            (between(0.55, 0.60), "reject", "lies wholly below 0.75"),
            (between(0.72, 0.80), "review", "more rows would settle it"),
            (None, "review", "roc_auc was not measured"),
        ],
        start=1,
    ):
        await registered(installation, version(number))
        gate = await gated(installation, evaluated(version(number), auc))
        assert gate.verdict == verdict
        assert reason in gate.reason


async def test_an_evaluation_that_failed_holds_the_version_and_nobody_lets_it_through(
    installation: Installation,
) -> None:
    bea = installation.key("user:bea", "release-manager")
    await installation.start("policy")
    await registered(installation, version())
    failure = EvalFailed(
        evaluation_id=uuid4(), asset=version(), code="model-unreadable", reason="it is no LightGBM file"
    )
    gate = await gated(installation, failure)
    assert gate.verdict == "review"
    assert {rule.outcome for rule in gate.rules} == {"no-data"}
    async with installation.client("policy", bea) as client:
        answer = await client.post("/policy/v1/approvals", json=wish(version()))
        assert (answer.status_code, answer.json()["code"]) == (409, "no-data")


async def test_who_may_let_what_through(installation: Installation) -> None:
    keys = {role: installation.key(f"user:{role}", role) for role in ("approver", "release-manager", "publisher")}
    await installation.start("policy")
    for number, auc in (
        (1, between(0.72, 0.80)),
        (2, between(0.5, 0.6)),
        (3, between(0.8, 0.9)),
        (4, between(0.8, 0.9)),
    ):
        await registered(installation, version(number), author=NOBODY if number == 3 else ADA)
        await gated(installation, evaluated(version(number), auc))

    async def answer(role: str, body: dict[str, Any]) -> tuple[int, str]:
        async with installation.client("policy", keys[role]) as client:
            got = await client.post("/policy/v1/approvals", json=body)
            return got.status_code, got.json().get("code") or got.json()["decision"]

    assert await answer("publisher", wish(version(4))) == (403, "forbidden")
    assert await answer("approver", wish(version(1))) == (403, "release-manager-needed")
    assert await answer("release-manager", wish(version(1))) == (201, "approved")
    assert await answer("release-manager", wish(version(2))) == (409, "gate-rejected")
    assert await answer("approver", wish(version(3))) == (403, "release-manager-needed")
    assert await answer("release-manager", wish(version(3))) == (201, "approved")
    assert await answer("approver", wish(version(9))) == (404, "unknown-version")
    wrong = wish(version(4)) | {"asset": version(4).model_dump() | {"digest": sha256(b"other")}}
    assert await answer("approver", wrong) == (409, "digest-differs")
    assert await answer("approver", wish(version(4), gate_id=str(uuid4()))) == (409, "gate-moved-on")
    assert await answer("approver", wish(version(4), "rejected")) == (201, "rejected")
    assert await answer("approver", wish(version(4))) == (409, "already-decided")
    assert await answer("approver", wish(version(4), reason="")) == (422, "invalid")


async def test_an_installation_that_refuses_unverified_authors(installation: Installation) -> None:
    await installation.start("policy", unverified_author="reject")
    await registered(installation, version(), author=NOBODY)
    gate = await gated(installation, evaluated(version(), between(0.8, 0.9)))
    assert gate.verdict == "reject"
    assert "no signature proves the author" in gate.reason


async def test_a_later_rejection_withdraws_the_approval(installation: Installation) -> None:
    bea = installation.key("user:bea", "approver")
    await installation.start("policy")
    await registered(installation, version())
    await gated(installation, evaluated(version(), between(0.8, 0.9)))
    async with installation.client("policy", bea) as client:
        assert (await client.post("/policy/v1/approvals", json=wish(version()))).status_code == 201
        same = evaluated(version(), between(0.8, 0.9))
        await gated(installation, same)
        assert (await client.get("/policy/v1/approvals")).json()["items"] == [], "the same evidence, the same approval"
        other = evaluated(version(), between(0.8, 0.9), b"another report")
        await gated(installation, other)
        assert len((await client.get("/policy/v1/approvals")).json()["items"]) == 1, "other evidence is a new question"
        worse = await gated(installation, evaluated(version(), between(0.5, 0.6), b"a worse report"))
    withdrawn = await installation.wait_for(ApprovalDecided, lambda event: event.decision == "rejected")
    assert (withdrawn.approver.id, withdrawn.binding, withdrawn.statement) == ("service:policy", worse.binding, None)


async def test_events_that_come_again_have_one_effect(installation: Installation) -> None:
    bea = installation.key("user:bea", "approver")
    await installation.start("policy")
    await registered(installation, version())
    evaluation = evaluated(version(), between(0.8, 0.9))
    await gated(installation, evaluation, times=5)
    await gated(installation, evaluated(version(), between(0.8, 0.9), b"marks the end"))
    assert len(await installation.events(GateDecided)) == 2
    async with installation.client("policy", bea) as client:
        once = {"idempotency-key": "k1"}
        first = await client.post("/policy/v1/approvals", json=wish(version()), headers=once)
        again = await client.post("/policy/v1/approvals", json=wish(version()), headers=once)
        assert first.status_code == again.status_code == 201
        assert first.json() == again.json()
        evidence = (await client.get("/policy/v1/assets/model/employment/versions/1/evidence")).json()
    assert (len(evidence["gates"]), len(evidence["approvals"])) == (2, 1)


async def test_an_evaluation_that_comes_before_its_asset_waits(installation: Installation) -> None:
    await installation.start("policy")
    evaluation = evaluated(version(), between(0.8, 0.9))
    await installation.publish(evaluation)
    await registered(installation, version())
    gate = await installation.wait_for(GateDecided)
    assert gate.evaluation_id == evaluation.evaluation_id


async def test_rules_are_versioned_and_those_in_force_decide(installation: Installation) -> None:
    operator = installation.key("user:op", "operator")
    await installation.start("policy")
    stricter = {"rules": [{"measure": "roc_auc", "operator": ">=", "threshold": 0.9}]}
    async with installation.client("policy", operator) as client:
        shipped = await client.get("/policy/v1/gates/classification")
        assert shipped.json()["version"] == 1
        published = await client.put(
            "/policy/v1/gates/classification", json=stricter, headers={"if-match": shipped.headers["etag"]}
        )
        assert published.json()["version"] == 2
        late = await client.put(
            "/policy/v1/gates/classification", json=stricter, headers={"if-match": shipped.headers["etag"]}
        )
        assert late.status_code == 412
        assert (await client.put("/policy/v1/gates/classification", json=stricter)).json()["version"] == 2
        versions = (await client.get("/policy/v1/gates/classification/versions")).json()
        assert [one["version"] for one in versions] == [2, 1]
        before = await client.get("/policy/v1/gates/classification", params={"at": versions[1]["published_at"]})
        assert before.json()["version"] == 1
        assert (await client.get("/policy/v1/gates/nothing")).json()["code"] == "unknown-gate"
        for bad in ({"rules": []}, {"rules": [{"measure": "x", "operator": ">", "threshold": 1}]}, {"rules": "all"}):
            assert (await client.put("/policy/v1/gates/classification", json=bad)).status_code == 422
    event = await installation.wait_for(PolicyPublished, lambda one: one.number == 2)
    assert event.document["rules"][0]["threshold"] == 0.9
    await registered(installation, version())
    gate = await gated(installation, evaluated(version(), between(0.85, 0.88)))
    assert (gate.verdict, gate.policy_version) == ("reject", 2)


async def test_a_dataset_needs_a_second_person_too(installation: Installation) -> None:
    ada, bea = installation.key("user:ada", "approver"), installation.key("user:bea", "approver")
    await installation.start("policy")
    await registered(installation, version())
    await gated(installation, evaluated(version(), between(0.8, 0.9)))
    path, body = "/policy/v1/datasets/census/versions/1/approval", {"decision": "approved", "reason": "licence checked"}
    async with installation.client("policy", ada) as client:
        assert (await client.post(path, json=body)).json()["code"] == "four-eyes"
        assert (await client.get("/policy/v1/datasets", params={"status": "pending"})).json()["items"][0][
            "status"
        ] == "pending"
    async with installation.client("policy", bea) as client:
        assert (await client.post(path, json=body)).status_code == 201
        assert (await client.post(path, json=body)).json()["code"] == "already-decided"
        assert (await client.get("/policy/v1/datasets")).json()["items"][0]["status"] == "approved"
    approved = await installation.wait_for(DatasetApproved)
    assert (approved.asset, approved.approver.id) == (DATASET, "user:bea")


async def test_a_workspace_sees_and_decides_nothing_of_another(installation: Installation) -> None:
    bea = installation.key("user:bea", "owner")
    carl = installation.key("user:carl", "owner", workspace="other")
    await installation.start("policy")
    await registered(installation, version())
    await gated(installation, evaluated(version(), between(0.8, 0.9)))
    async with installation.client("policy", bea) as client:
        approval = (await client.post("/policy/v1/approvals", json=wish(version()))).json()["approval_id"]
    async with installation.client("policy", carl) as client:
        assert (await client.get("/policy/v1/approvals", params={"status": "decided"})).json()["items"] == []
        assert (await client.get("/policy/v1/datasets")).json()["items"] == []
        assert (await client.get(f"/policy/v1/approvals/{approval}")).status_code == 404
        assert (await client.get("/policy/v1/assets/model/employment/versions/1/evidence")).status_code == 404
        assert (await client.post("/policy/v1/approvals", json=wish(version()))).json()["code"] == "unknown-version"
        assert (await client.get("/policy/v1/ledger")).json()["items"] == []
        assert (await client.get("/policy/v1/ledger/verify")).json()["entries"] == 0
