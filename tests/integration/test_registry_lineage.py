"""Lineage and everything next to an asset, from the events of the whole road; search; workspaces apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from registry_story import ROWS, Registry, a_dataset, a_model, model_bytes, registry

from shared.events.base import Actor, AssetRef, Interval
from shared.events.deployer import DeployCompleted, DeployFailed, DeployWithdrawn
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import (
    ApprovalDecided,
    ClassificationChanged,
    DatasetApproved,
    Envelope,
    GateDecided,
    WaiverSigned,
)
from shared.events.router import Arm, GroupChanged, GroupPromoted, GroupRolledBack
from shared.events.upstream import DatasetVersion, RunCompleted, Training
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
ADA, BOB = Actor(id="user:ada", proven=True), Actor(id="user:bob", proven=True)
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
REPORT = sha256(b"report")


async def the_road(it: Registry, asset: AssetRef, census: AssetRef) -> dict[str, str]:
    """Everything that other services say of one version; the names of the nodes that it makes."""
    golden = DatasetVersion(urn=census.urn, version=1, digest=census.digest)
    envelope = Envelope.model_validate(
        {"payloadType": "x", "payload": "e30=", "signatures": [{"keyid": "k", "sig": "s"}]}
    )
    auc = Interval(value=0.8, low=0.78, high=0.82, n=1000, method="delong")
    evaluation, gate, approval, deployment, waiver = (uuid4() for _ in range(5))
    events = [
        RunCompleted(run_id="17", name="x", status="finished", datasets=(golden,), started_at=NOW, ended_at=NOW),
        DatasetApproved(asset=census, decision="approved", approver=BOB, reason="it is public", decided_at=NOW),
        DeployCompleted(
            request_id=uuid4(), deployment_id=deployment, asset=asset, target="local", endpoint="http://127.0.0.1:1",
            model_name="m", bundle=REPORT, approval_id=approval, statement=envelope, completed_at=NOW,
        ),
        DeployFailed(request_id=uuid4(), event_id="e", asset=asset, target="edge", code="none", reason="none such"),
        ApprovalDecided(
            approval_id=approval, asset=asset, decision="approved", approver=BOB, author=ADA, reason="fine",
            binding=REPORT, statement=envelope, decided_at=NOW,
        ),
        GateDecided(
            gate_id=gate, asset=asset, evaluation_id=evaluation, verdict="pass", reason="all rules pass",
            policy_version=1, binding=REPORT, decided_at=NOW,
        ),
        EvalCompleted(
            evaluation_id=evaluation, asset=asset, golden_set=golden, template="t", measures={"roc_auc": auc},
            report=REPORT, rows=1000, started_at=NOW, ended_at=NOW,
        ),
        EvalFailed(evaluation_id=uuid4(), asset=asset, code="timeout", reason="it took too long"),
        WaiverSigned(waiver_id=waiver, asset=asset, measure="fairness", signers=(ADA, BOB), reason="x", expires_at=NOW),
        ClassificationChanged(urn=asset.urn, risk="high", cost="low", actor=BOB, reason="credit"),
        GroupChanged(
            group="live", revision=1, arms=(Arm(asset=asset, role="champion", weight_bp=10_000),), actor=BOB, at=NOW
        ),
    ]  # fmt: skip
    for event in events:
        await it.installation.publish(event, key=it.key if isinstance(event, RunCompleted) else None)
    return {
        "evaluation": f"evaluation:{evaluation}",
        "gate": f"gate:{gate}",
        "approval": f"approval:{approval}",
        "deployment": f"deployment:{deployment}",
        "waiver": f"waiver:{waiver}",
        "group": "group:live",
    }


async def settled(it: Registry, node: str, nodes: set[str], **query: Any) -> dict[str, Any]:
    """The lineage of a node once these nodes are in it."""

    async def look() -> dict[str, Any]:
        answer = await it.client.get("/registry/v1/lineage", params={"node": node, **query})
        found: dict[str, Any] = answer.json() if answer.status_code == 200 else {"nodes": [], "edges": []}
        return found

    return await eventually(look, lambda found: nodes <= {node["id"] for node in found["nodes"]}, what=f"{nodes}")


async def test_the_whole_road_hangs_on_a_version(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(ROWS, model_bytes(), model_bytes(1))
        census = await it.register(a_dataset())
        training = Training(run_id="17", dataset=DatasetVersion(urn=census.urn, version=1), base=("mm:model/older",))
        asset = await it.register(a_model(training=training))
        made = await the_road(it, asset, census)
        nodes = set(made.values()) | {"mm:dataset/census@1", "run:17", "mm:model/older", str(asset)}
        graph = await settled(it, str(asset), nodes)
        edges = {(edge["source"], edge["association"], edge["destination"]) for edge in graph["edges"]}
        here = str(asset)
        assert {
            ("mm:dataset/census@1", "ContributedTo", "run:17"),
            ("mm:dataset/census@1", "ContributedTo", here),
            ("run:17", "Produced", here),
            ("mm:model/older", "DerivedFrom", here),
            (here, "ContributedTo", made["evaluation"]),
            (made["evaluation"], "ContributedTo", made["gate"]),
            (here, "AssociatedWith", made["gate"]),
            (here, "AssociatedWith", made["approval"]),
            (made["approval"], "ContributedTo", made["deployment"]),
            (here, "ContributedTo", made["deployment"]),
            (here, "AssociatedWith", "group:live"),
        } <= edges

        up = (await it.client.get("/registry/v1/lineage", params={"node": here, "direction": "ascendants"})).json()
        assert {node["id"] for node in up["nodes"]} == {here, "run:17", "mm:dataset/census@1", "mm:model/older"}
        poisoned = await settled(it, "mm:dataset/census@1", {"group:live"}, direction="descendants")
        depths = {node["id"]: (node["kind"], node["depth"]) for node in poisoned["nodes"]}
        assert depths["group:live"] == ("group", 2) and depths[here] == ("model", 1)
        near = (
            await it.client.get(
                "/registry/v1/lineage",
                params={"node": "mm:dataset/census@1", "direction": "descendants", "max_depth": 1},
            )
        ).json()
        assert "group:live" not in {node["id"] for node in near["nodes"]}

        async def look() -> dict[str, Any]:
            found: dict[str, Any] = (await it.client.get("/registry/v1/assets/model/credit-pd")).json()["newest"]
            return found

        beside = await eventually(look, lambda found: len(found["deployments"]) == 2 and found["classification"])
        assert {evaluation.get("code") for evaluation in beside["evaluations"]} == {None, "timeout"}
        assert beside["gate"]["verdict"] == "pass" and beside["approval"]["approver"]["id"] == "user:bob"
        assert beside["classification"]["risk"] == "high" and beside["groups"][0]["role"] == "champion"
        assert beside["waivers"][0]["measure"] == "fairness"
        dataset = (await it.client.get("/registry/v1/assets/dataset/census")).json()["newest"]
        assert dataset["approval"]["decision"] == "approved"

        # Undeployed: the newest word on the deployment, which it stays a part of.
        (deployed,) = (one for one in beside["deployments"] if "bundle" in one)
        gone = DeployWithdrawn(
            request_id=uuid4(), deployment_id=deployed["deployment_id"], asset=asset, target="local",
            endpoint="http://127.0.0.1:1", code="undeployed", reason="undeployed by user:bob", actor=BOB,
            withdrawn_at=NOW + timedelta(hours=1),
        )  # fmt: skip
        await installation.publish(gone)
        beside = await eventually(look, lambda found: any("withdrawn_at" in one for one in found["deployments"]))
        assert {one["code"] for one in beside["deployments"]} == {"none", "undeployed"}
        graph = await settled(it, here, {made["deployment"]})

        # The same bytes under another name are the same thing.
        twin = await it.register(a_model("credit-pd-copy"))
        edges_of_twin = (
            await it.client.get("/registry/v1/lineage", params={"node": str(twin), "max_depth": 1})
        ).json()["edges"]
        assert (here, "SameAs") in {(edge["source"], edge["association"]) for edge in edges_of_twin}

        for bad in ({"node": "mm:model/none@1"}, {"node": "group:none"}):
            assert (await it.client.get("/registry/v1/lineage", params=bad)).status_code == 404
        for bad in ({"node": here, "max_depth": "99"}, {"node": here, "direction": "sideways"}, {"node": ""}, {}):
            assert (await it.client.get("/registry/v1/lineage", params=bad)).status_code == 422


async def test_a_group_is_followed_in_whatever_order_it_is_heard(installation: Installation) -> None:
    async with registry(installation) as it:
        one, two, three = await it.models(3)

        def changed(revision: int, champion: AssetRef, challenger: AssetRef, at: datetime) -> GroupChanged:
            arms = (
                Arm(asset=champion, role="champion", weight_bp=9_000),
                Arm(asset=challenger, role="challenger", weight_bp=1_000),
            )
            return GroupChanged(group="live", revision=revision, arms=arms, actor=BOB, at=at)

        async def serving() -> set[str]:
            answer = await it.client.get("/registry/v1/lineage?node=group:live&direction=ascendants&max_depth=1")
            return {edge["source"] for edge in answer.json().get("edges", [])}

        await installation.publish(changed(1, one, two, NOW))
        await eventually(serving, lambda found: found == {str(one), str(two)})
        later = NOW + timedelta(hours=1)
        await installation.publish(
            GroupPromoted(group="live", revision=3, before=one, after=three, actor=BOB, at=later)
        )
        await eventually(serving, lambda found: found == {str(two), str(three)})
        await installation.publish(changed(2, one, three, NOW))  # older than what is known
        back = GroupRolledBack(
            group="live", revision=4, before=three, after=one, actor=BOB, at=later + timedelta(hours=1)
        )
        await installation.publish(back)
        await eventually(serving, lambda found: found == {str(one), str(two)})
        then = await it.client.get(
            "/registry/v1/lineage",
            params={"node": "group:live", "max_depth": 1, "at": (later + timedelta(minutes=1)).isoformat()},
        )
        assert {edge["source"] for edge in then.json()["edges"]} == {str(two), str(three)}


async def test_search_by_words_and_fields_in_pages(installation: Installation) -> None:
    async with registry(installation) as it:
        await it.upload(*(model_bytes(number) for number in range(12)))
        for number in range(10):
            tags = {"team": "labour" if number % 2 else "credit", "k=1": "a=b", "long": "x" * 5000}
            event = a_model(
                f"employment-{number}", model_bytes(number), tags=tags, task="classification", licence="Apache-2.0",
                description=f"Predicts who is employed, run {number}",
            )  # fmt: skip
            await it.register(event)
        await it.register(a_model("credit.score_v2", model_bytes(10), description="default risk", task="regression"))

        async def names(query: str) -> list[str]:
            answer = await it.client.get(f"/registry/v1/search?{query}")
            assert answer.status_code == 200, answer.text
            return [version["name"] for version in answer.json()["items"]]

        assert len(await names("q=employing+predict")) == 10  # stems: employed, predicts
        assert await names("q=employed+3") == ["employment-3"]
        assert await names("q=score") == await names("q=credit.score_v2") == ["credit.score_v2"]
        assert len(await names("tag.team=labour&q=employed")) == 5
        assert len(await names("tag.k%3D1=a%3Db")) == 10 and await names("tag.k=1=a=b") == []
        assert len(await names("kind=model&task=classification&licence=Apache-2.0&author=user:ada")) == 10
        assert await names("kind=dataset") == [] and await names("q=the") == [] and await names("q=%27%29%3B+--") == []
        assert (await names(""))[:2] == ["credit.score_v2", "employment-9"]
        seen, token = [], None
        while True:
            more = f"&page_token={token}" if token else ""
            page = (await it.client.get(f"/registry/v1/search?q=employed&page_size=3{more}")).json()
            seen += [version["name"] for version in page["items"]]
            token = page["next_page_token"]
            if token is None:
                break
        assert seen == [f"employment-{number}" for number in range(9, -1, -1)]
        page = (await it.client.get("/registry/v1/search?q=employed&page_size=3")).json()
        other = await it.client.get(f"/registry/v1/search?q=other&page_size=3&page_token={page['next_page_token']}")
        assert other.status_code == 422
        for bad in (
            "colour=red",
            "kind=spell",
            "stage=limbo",
            "page_size=0",
            "page_size=9999",
            "tag.=x",
            "q=" + "x" * 2000,
            "q=%00",
            "tag.a=%00",
            "name=%00",
        ):
            assert (await it.client.get(f"/registry/v1/search?{bad}")).status_code == 422, bad


async def test_another_workspace_sees_nothing_and_changes_nothing(installation: Installation) -> None:
    stranger = installation.key("user:eve", "owner", workspace="elsewhere")
    async with registry(installation) as it:
        await it.upload(ROWS, model_bytes())
        census = await it.register(a_dataset())
        event = a_model()
        asset = await it.register(event)
        put = await it.client.put(
            "/registry/v1/assets/model/credit-pd/aliases/champion",
            json={"version": 1, "reason": "x"},
            headers={"if-none-match": "*"},
        )
        assert put.status_code == 200
        base, body = "/registry/v1/assets/model/credit-pd", {"version": 1, "reason": "x", "stage": "production"}
        async with installation.client("registry", stranger) as eve:
            missing = [
                await eve.get(path)
                for path in (
                    base,
                    f"{base}/versions",
                    f"{base}/versions/1",
                    f"{base}/versions/1/stage",
                    f"{base}/versions/1/stage/history",
                    f"{base}/aliases",
                    f"{base}/aliases/champion",
                    f"{base}/aliases/champion/history",
                    f"{base}/production",
                    f"/registry/v1/submissions/{event.submission_id}",
                    f"/registry/v1/artefacts/{sha256(model_bytes())}",
                    f"/registry/v1/lineage?node={asset}",
                    f"/registry/v1/lineage?node={census}",
                )
            ]
            why, any_state = {"reason": "x"}, {"if-match": "*"}
            missing += [
                await eve.put(f"{base}/aliases/champion", json={"version": 1, "reason": "x"}, headers=any_state),
                await eve.put(f"{base}/versions/1/stage", json={**why, "stage": body["stage"]}, headers=any_state),
                await eve.delete(f"{base}/aliases/champion?reason=x", headers=any_state),
                await eve.post(f"{base}/aliases/champion/rollback", json=why),
                await eve.post(f"{base}/production/rollback", json=why),
            ]
            assert [answer.status_code for answer in missing] == [404] * len(missing)
            assert (await eve.get("/registry/v1/search")).json()["items"] == []
            # A dataset of another workspace is unknown, and the same name is another asset.
            headers = {"content-type": "application/json"}
            foreign = a_model("mine", golden_set=DatasetVersion(urn=census.urn, version=1))
            answer = await eve.post("/registry/v1/submissions", content=foreign.model_dump_json(), headers=headers)
            assert answer.json()["code"] == "unknown-dataset"
            assert (await eve.get(base)).status_code == 404
        assert (await it.client.get(f"{base}/aliases/champion")).json()["revision"] == 1
