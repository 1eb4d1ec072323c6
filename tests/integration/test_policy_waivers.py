"""Waivers on real services: two people set a rule aside, signed, until it expires; and what is protected."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from guide import blocks, run, served
from policy_story import ADA, NOW, between, evaluated, gated, registered, version, wish

from shared.events.base import AssetRef
from shared.events.policy import ApprovalDecided, GateDecided, PolicyPublished, WaiverSigned
from shared.events.registry import AssetRegistered
from shared.identity import dsse
from shared.identity.identity import trusted_keys
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)


def a_waiver(asset: AssetRef, measure: str, **more: Any) -> dict[str, Any]:
    body = {"asset": {"urn": asset.urn, "version": asset.version}, "measure": measure, "reason": "a pilot of 50 people"}
    return body | more


async def test_two_people_set_a_rule_aside_and_take_it_back(installation: Installation) -> None:
    ada = installation.key("user:ada", "owner")
    bea, mia = installation.key("user:bea", "approver"), installation.key("user:mia", "release-manager")
    await installation.start("policy")
    await registered(installation, version())
    gate = await gated(installation, evaluated(version(), between(0.60, 0.64)))
    assert gate.verdict == "reject"
    waivers = "/policy/v1/waivers"
    async with (
        installation.client("policy", ada) as author,
        installation.client("policy", bea) as approver,
        installation.client("policy", mia) as manager,
    ):
        own = await author.post(waivers, json=a_waiver(version(), "roc_auc"))
        assert (own.status_code, own.json()["code"]) == (403, "four-eyes")
        nothing = await approver.post(waivers, json=a_waiver(version(), "log_loss"))
        assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing-to-waive")
        assert "roc_auc" in nothing.json()["detail"]
        unknown = await approver.post(waivers, json=a_waiver(version(9), "roc_auc"))
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-version")

        proposed = await approver.post(waivers, json=a_waiver(version(), "roc_auc", expires_in_days=30))
        assert (proposed.status_code, proposed.json()["status"]) == (201, "proposed")
        assert proposed.json()["observed"] == pytest.approx(0.62)
        one = f"{waivers}/{proposed.json()['waiver_id']}"
        again = await approver.post(f"{one}/decision", json={"reason": "I want it"})
        assert (again.status_code, again.json()["code"]) == (403, "release-manager-needed")
        refused = await approver.post("/policy/v1/approvals", json=wish(version()))
        assert (refused.status_code, refused.json()["code"]) == (409, "gate-rejected")

        signed = await manager.post(f"{one}/decision", json={"reason": "the pilot is small"})
        assert (signed.status_code, signed.json()["status"]) == (200, "signed")
        said = await installation.wait_for(WaiverSigned)
        assert [signer.id for signer in said.signers] == ["user:bea", "user:mia"]
        assert said.statement is not None and said.withdrawn_at is None
        envelope = dsse.Envelope.model_validate(said.statement.model_dump(by_alias=True))
        keys = trusted_keys(installation.settings("policy").platform.trust_file)
        payload = json.loads(dsse.verify(envelope, keys, "application/vnd.mintmark.waiver+json"))
        assert (payload["measure"], payload["asset"]["digest"]) == ("roc_auc", version().digest)
        assert base64.b64decode(said.statement.payload)

        passed = await installation.wait_for(GateDecided, lambda gate: gate.verdict == "pass")
        rule = {rule.measure: rule for rule in passed.rules}["roc_auc"]
        assert (rule.outcome, rule.was, rule.waiver_id) == ("pass", "reject", said.waiver_id)
        assert passed.binding == gate.binding

        let_through = await approver.post("/policy/v1/approvals", json=wish(version()))
        assert let_through.status_code == 201, let_through.text
        assert let_through.json()["expires_at"] == signed.json()["expires_at"]

        # A later evaluation as bad as the first passes by the same waiver; a rule that it does not name still counts.
        later = await gated(installation, evaluated(version(), between(0.59, 0.63), report=b"again"))
        assert later.verdict == "pass"
        slow = evaluated(version(), between(0.59, 0.63), report=b"slow", **{"latency_ms.p99": between(5_000, 6_000)})
        assert (await gated(installation, slow)).verdict == "reject"
        await gated(installation, evaluated(version(), between(0.59, 0.63)))
        assert (await approver.post("/policy/v1/approvals", json=wish(version()))).status_code == 201

        taken = await manager.post(f"{one}/withdrawal", json={"reason": "the pilot is over"})
        assert (taken.status_code, taken.json()["status"]) == (200, "withdrawn")
        await installation.wait_for(WaiverSigned, lambda event: event.withdrawn_at is not None)
        await installation.wait_for(
            ApprovalDecided, lambda event: event.decision == "rejected" and "roc_auc" in event.reason
        )
        evidence = (await author.get("/policy/v1/assets/model/employment/versions/1/evidence")).json()
        assert (evidence["gates"][0]["verdict"], evidence["standing"]) == ("reject", "rejected")
        twice = await manager.post(f"{one}/withdrawal", json={"reason": "again"})
        assert (twice.status_code, twice.json()["code"]) == (409, "waiver-decided")
        listed = (await approver.get(waivers, params={"status": "withdrawn"})).json()["items"]
        assert [waiver["measure"] for waiver in listed] == ["roc_auc"]


async def test_a_version_that_nothing_evaluates_passes_by_a_waiver_of_the_evaluation(
    installation: Installation,
) -> None:
    bea, mia = installation.key("user:bea", "approver"), installation.key("user:mia", "release-manager")
    stranger = installation.key("user:eve", "owner", workspace="other")
    await installation.start("policy")
    vendor = AssetRef(urn="mm:vendor-model/assistant", version=1, digest=sha256(b"assistant"))
    await installation.publish(
        AssetRegistered(asset=vendor, submission_id=uuid4(), kind="vendor-model", author=ADA, registered_at=NOW)
    )
    async with (
        installation.client("policy", bea) as approver,
        installation.client("policy", mia) as manager,
        installation.client("policy", stranger) as other,
    ):
        await eventually(
            lambda: approver.get("/policy/v1/assets/vendor-model/assistant/versions/1/evidence"),
            lambda answer: answer.status_code == 200,
        )
        early = await approver.post("/policy/v1/approvals", json=wish(vendor))
        assert (early.status_code, early.json()["code"]) == (409, "not-evaluated")
        only = await approver.post("/policy/v1/waivers", json=a_waiver(vendor, "roc_auc"))
        assert (only.status_code, only.json()["code"]) == (409, "nothing-to-waive")
        proposed = (await approver.post("/policy/v1/waivers", json=a_waiver(vendor, "evaluation"))).json()
        one = f"/policy/v1/waivers/{UUID(proposed['waiver_id'])}"
        assert (await other.get(one)).status_code == 404
        assert (await other.post(f"{one}/decision", json={"reason": "mine now"})).status_code == 404
        refused = await manager.post(f"{one}/decision", json={"decision": "refused", "reason": "ask the vendor first"})
        assert refused.json()["status"] == "refused"
        late = await manager.post(f"{one}/decision", json={"reason": "after all"})
        assert (late.status_code, late.json()["code"]) == (409, "waiver-decided")

        proposed = (await approver.post("/policy/v1/waivers", json=a_waiver(vendor, "evaluation"))).json()
        await manager.post(f"/policy/v1/waivers/{proposed['waiver_id']}/decision", json={"reason": "a pilot"})
        gate = await installation.wait_for(GateDecided)
        assert (gate.verdict, gate.evaluation_id) == ("pass", None)
        approved = await approver.post("/policy/v1/approvals", json=wish(vendor))
        assert approved.status_code == 201, approved.text


async def test_the_guide_is_run_as_it_stands(installation: Installation) -> None:
    """docs/how-to/let-a-version-through.md."""
    owner = installation.key("user:ada", "owner")
    bea, mia = installation.key("user:bea", "approver"), installation.key("user:mia", "release-manager")
    await installation.start("policy")
    vendor = AssetRef(urn="mm:vendor-model/assistant", version=1, digest=sha256(b"assistant"))
    await installation.publish(
        AssetRegistered(asset=vendor, submission_id=uuid4(), kind="vendor-model", author=ADA, registered_at=NOW)
    )
    async with installation.client("policy", bea) as client, served(installation, "policy") as url:
        await eventually(
            lambda: client.get("/policy/v1/assets/vendor-model/assistant/versions/1/evidence"),
            lambda answer: answer.status_code == 200,
        )
        environment = {
            "MINTMARK_URL": url, "MINTMARK_API_KEY": owner, "APPROVER_KEY": bea, "MANAGER_KEY": mia
        }  # fmt: skip
        waiver, protection = blocks("let-a-version-through.md", "sh")
        assert '"status":"signed"' in await run(environment, "sh", "-ec", waiver)
        assert '"aliases":["champion"]' in await run(environment, "sh", "-ec", protection)
        assert (await installation.wait_for(GateDecided)).verdict == "pass"


async def test_what_is_protected_is_policy_with_versions(installation: Installation) -> None:
    owner, reader = installation.key("user:ada", "owner"), installation.key("user:bob", "viewer")
    await installation.start("policy")
    async with installation.client("policy", owner) as client, installation.client("policy", reader) as viewer:
        fresh = await viewer.get("/policy/v1/protection")
        assert fresh.json()["version"] == 0 and fresh.json()["aliases"] == fresh.json()["stages"] == []
        forbidden = await viewer.put("/policy/v1/protection", json={"aliases": ["champion"]})
        assert forbidden.status_code == 403
        body = {"aliases": ["champion"], "labels": ["production"], "stages": ["production"]}
        first = await client.put(
            "/policy/v1/protection",
            json=body,
            params={"reason": "go live"},
            headers={"if-match": fresh.headers["etag"]},
        )
        assert (first.status_code, first.json()["version"]) == (200, 1)
        said = await installation.wait_for(PolicyPublished, lambda event: event.policy == "protection")
        assert said.document == body | {"intents": False}
        stale = await client.put("/policy/v1/protection", json={}, headers={"if-match": fresh.headers["etag"]})
        assert stale.status_code == 412
        assert (await client.put("/policy/v1/protection", json=body)).json()["version"] == 1
        assert (await client.put("/policy/v1/protection", json={})).json()["version"] == 2
        assert [row["version"] for row in (await viewer.get("/policy/v1/protection/versions")).json()] == [2, 1]
        assert (await client.put("/policy/v1/protection", json={"stages": ["live"]})).status_code == 422
