"""Policy on a real Kafka and Postgres: an evaluation leads to a gate, a second person lets the version through."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.events.base import Actor, Artefact, AssetRef, Interval
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import ApprovalDecided, DatasetApproved, GateDecided, PolicyPublished
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import DatasetFile, DatasetVersion, Manifest
from shared.identity import dsse
from shared.identity.identity import trusted_keys
from shared.ids import digest_of, sha256
from shared.testing.installation import Installation

pytestmark = pytest.mark.timeout(120)
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
ADA = Actor(id="user:ada", proven=True)
NOBODY = Actor(id="unverified", proven=False)
DATASET = AssetRef(urn="mm:dataset/census", version=1, digest=sha256(b"census"))
ARTEFACT = sha256(b"model")


def version(number: int = 1, name: str = "employment") -> AssetRef:
    return AssetRef(urn=f"mm:model/{name}", version=number, digest=sha256(f"{name} {number}".encode()))


def between(low: float, high: float, n: int = 1000) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high, n=n, method="DeLong")


async def registered(installation: Installation, asset: AssetRef, author: Actor = ADA, workspace: str = "default") -> None:
    file = DatasetFile(path="golden.parquet", digest=sha256(b"file"), size=1, rows=1000, split="golden")
    manifest = Manifest(files=(file,), label="employed", sensitive=("SEX",), source="census", licence="public domain")
    await installation.publish(
        DatasetRegistered(asset=DATASET, manifest=manifest, author=author, registered_at=NOW), workspace=workspace
    )
    await installation.publish(
        AssetRegistered(
            asset=asset,
            submission_id=uuid4(),
            kind="model",
            task="classification",
            artefact=Artefact(digest=ARTEFACT, format="lightgbm"),
            golden_set=DatasetVersion(urn=DATASET.urn, version=1),
            author=author,
            registered_at=NOW,
        ),
        workspace=workspace,
    )


def evaluated(asset: AssetRef, auc: Interval | None, report: bytes = b"report", **more: Interval) -> EvalCompleted:
    measures = {"coverage": between(1, 1), **more} | ({"roc_auc": auc} if auc else {})
    return EvalCompleted(
        evaluation_id=uuid4(),
        asset=asset,
        golden_set=DatasetVersion(urn=DATASET.urn, version=1, digest=DATASET.digest),
        template="tabular-classification",
        measures=measures,
        report=sha256(report),
        rows=1000,
        started_at=NOW,
        ended_at=NOW,
    )


async def gated(installation: Installation, evaluation: EvalCompleted | EvalFailed, **more: Any) -> GateDecided:
    """The gate's answer to an evaluation."""
    await installation.publish(evaluation, **more)
    found: GateDecided = await installation.wait_for(GateDecided, lambda gate: gate.evaluation_id == evaluation.evaluation_id)
    return found


def wish(asset: AssetRef, decision: str = "approved", **more: Any) -> dict[str, Any]:
    body = {"asset": {"urn": asset.urn, "version": asset.version}, "decision": decision, "reason": "figures reviewed"}
    return body | more


async def test_an_evaluation_leads_to_a_gate_and_a_second_person_to_a_signed_approval(installation: Installation) -> None:
    ada, bea = installation.key("user:ada", "approver"), installation.key("user:bea", "approver")
    await installation.start("policy")
    await registered(installation, version())
    gate = await gated(installation, evaluated(version(), between(0.87, 0.89)))
    assert (gate.verdict, gate.policy_version) == ("pass", 1)
    assert {rule.measure: rule.outcome for rule in gate.rules}["roc_auc"] == "pass"
    assert gate.binding == digest_of(
        {"asset": version().digest, "artefact": ARTEFACT, "prompts": [], "dataset": DATASET.digest, "report": sha256(b"report")}
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
