"""Reuse before build: what is there is found with evidence, bound or passed over with a reason, and counted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from registry_story import Registry, a_model, model_bytes, registry

from shared.events.base import Actor, AssetRef, Interval
from shared.events.evaluator import EvalCompleted
from shared.events.policy import ClassificationChanged, PolicyPublished
from shared.events.registry import AssetRefused, BindingCreated
from shared.events.router import Arm, GroupChanged
from shared.events.upstream import DatasetVersion, TrainingRequested
from shared.ids import digest_of, sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
V1 = "/registry/v1"
ADA = Actor(id="user:ada", proven=True)
PURPOSE = "Predict from a census record whether a person is employed"


def evaluated(asset: AssetRef, low: float, high: float) -> EvalCompleted:
    now = datetime.now(UTC)
    measure = Interval(value=(low + high) / 2, low=low, high=high, n=9_000, method="bootstrap")
    return EvalCompleted(
        evaluation_id=uuid4(), asset=asset, golden_set=DatasetVersion(urn="mm:dataset/census", version=1),
        template="tabular-classification", measures={"roc_auc": measure}, report=sha256(b"report"), rows=9_000,
        started_at=now, ended_at=now,
    )  # fmt: skip


def protection(number: int, *, intents: bool) -> PolicyPublished:
    document: dict[str, Any] = {"aliases": [], "labels": [], "stages": [], "intents": intents}
    return PolicyPublished(
        policy="protection", number=number, document=document, digest=digest_of(document), actor=ADA,
        published_at=datetime.now(UTC),
    )  # fmt: skip


async def catalog(it: Registry) -> list[AssetRef]:
    """Three models: two that predict employment, of which one forbids commerce; and one about something else."""
    await it.upload(*(model_bytes(number) for number in range(3)))
    return [
        await it.register(
            a_model("employment", model_bytes(0), task="classification", licence="Apache-2.0",
                    tags={"domain": "labour", "language": "en, de"},
                    description="Predicts whether a person is employed, from census records.")),
        await it.register(
            a_model("jobs-pd", model_bytes(1), task="classification", licence="CC-BY-NC-4.0",
                    tags={"domain": "labour"}, description="Employed or not: census record scores of 2019.")),
        await it.register(
            a_model("energy", model_bytes(2), task="forecasting", licence="MIT",
                    description="Forecasts the load of a power grid.")),
    ]  # fmt: skip


async def said(installation: Installation, it: Registry, *events: Any) -> None:
    """Publish, and wait until the first model shows the last of them."""
    for event in events:
        await installation.publish(event)
    await eventually(
        lambda: it.client.get(f"{V1}/assets/model/employment/versions/1"),
        lambda answer: bool(answer.json()["groups"] and answer.json()["evaluations"]),
    )


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_what_is_there_is_ranked_with_evidence_and_bound(installation: Installation) -> None:
    async with registry(installation) as it:
        employment, jobs, _ = await catalog(it)
        arm = Arm(asset=employment, role="champion", weight_bp=10_000)
        at = datetime.now(UTC)
        cheap = ClassificationChanged(urn=jobs.urn, risk="high", cost="high", actor=ADA, reason="it is big")
        await installation.publish(cheap)
        await said(
            installation, it, evaluated(jobs, 0.70, 0.72), evaluated(employment, 0.88, 0.89),
            GroupChanged(group="labour", revision=1, arms=(arm,), reason="first", actor=ADA, at=at),
        )  # fmt: skip
        wish = {
            "team": "labour-office", "action": "build", "purpose": PURPOSE, "kind": "model", "task": "classification",
            "tags": {"domain": "labour"},
            "constraints": {
                "commercial_use": True, "max_cost": "medium", "languages": ["de"],
                "measures": [{"name": "roc_auc", "at_least": 0.85}, {"name": "f1_score", "at_least": 0.5}],
            },
        }  # fmt: skip
        made = await it.client.post(f"{V1}/intents", json=wish)
        assert made.status_code == 201, made.text
        intent = made.json()
        first, second, *rest = intent["candidates"]
        assert first["urn"] == employment.urn and first["excluded_by"] == []
        verdicts = {check["what"]: check["verdict"] for check in first["checks"]}
        assert verdicts == {
            "commercial use": "fits", "cost": "unknown", "roc_auc": "fits", "f1_score": "unknown", "languages": "fits",
        }  # fmt: skip
        assert first["evaluation"]["measures"]["roc_auc"]["low"] == 0.88
        assert first["users"] == [{"kind": "group", "name": "labour", "detail": "champion"}]
        assert first["score"] == pytest.approx(sum(part["value"] * part["weight"] for part in first["parts"]), abs=1e-3)
        assert second["urn"] == jobs.urn, "excluded ones are shown, after those that fit"
        told = " ".join(second["excluded_by"])
        assert "forbids commercial use" in told and "cost class is high" in told and "roc_auc is 0.71" in told
        assert rest == [], "a grid's load has nothing of it"

        body = {"urn": employment.urn, "version": 1, "consumer": "labour-office", "purpose": "letters to employers"}
        ended = (await it.client.post(f"{V1}/intents/{intent['intent_id']}/reuse", json=body)).json()
        assert ended["outcome"]["outcome"] == "reuse"
        again = await it.client.post(f"{V1}/intents/{intent['intent_id']}/reuse", json=body)
        assert problem(again) == (409, "intent-decided")
        event = await installation.wait_for(BindingCreated)
        assert (event.asset, event.consumer) == (employment, "labour-office")

        beside = (await it.client.get(f"{V1}/assets/model/employment/versions/1")).json()
        assert [one["consumer"] for one in beside["consumers"]] == ["labour-office"]
        stage = f"{V1}/assets/model/jobs-pd/versions/1/stage"
        await it.client.post(f"{V1}/bindings", json={**body, "urn": jobs.urn})
        etag = (await it.client.get(stage)).headers["etag"]
        retire = {"json": {"stage": "retired", "reason": "old"}, "headers": {"if-match": etag}}
        refused = await it.client.put(stage, **retire)
        assert problem(refused) == (409, "in-use") and refused.json()["used_by"] == ["consumer labour-office"]
        version = f"{V1}/assets/model/jobs-pd/versions/1"
        seen = (await it.client.get(version)).headers["etag"]
        yank = await it.client.post(f"{version}/yank", json={"reason": "old"}, headers={"if-match": seen})
        assert problem(yank) == (409, "in-use")
        of_jobs = (await it.client.get(f"{V1}/assets/model/jobs-pd/bindings")).json()["items"]
        same = await it.client.post(f"{V1}/bindings", json={**body, "urn": jobs.urn})
        assert same.json()["binding_id"] == of_jobs[0]["binding_id"], "bound once"
        released = f"{V1}/bindings/{of_jobs[0]['binding_id']}/release"
        assert (await it.client.post(released, json={"reason": "moved on"})).json()["release_reason"] == "moved on"
        assert (await it.client.put(stage, **retire)).status_code == 200
        assert problem(await it.client.post(f"{V1}/bindings", json={**body, "urn": jobs.urn})) == (409, "not-reusable")
        uses = (await it.client.get(f"{V1}/bindings", params={"consumer": "labour-office"})).json()["items"]
        assert [one["urn"] for one in uses] == [employment.urn]
        both = (await it.client.get(f"{V1}/bindings", params={"consumer": "labour-office", "released": True})).json()
        assert len(both["items"]) == 2

        rate = (await it.client.get(f"{V1}/reuse")).json()
        assert (rate["intents"], rate["reused"], rate["built"], rate["rate"]) == (1, 1, 0, 1.0)
        assert rate["by_task"][0]["task"] == "classification" and rate["by_team"][0]["team"] == "labour-office"
        assert {one["urn"] for one in rate["most_reused"]} == {employment.urn, jobs.urn}


async def test_nothing_new_is_built_without_looking(installation: Installation) -> None:
    key = installation.key("user:eve", "owner", workspace="elsewhere")
    async with registry(installation) as it:
        employment, *_ = await catalog(it)
        await it.upload(*(model_bytes(number) for number in range(3, 9)))
        await installation.publish(protection(1, intents=True))
        await eventually(
            lambda: it.client.get(f"{V1}/protection"), lambda answer: answer.json()["intents"], what="protection"
        )
        next_one = await it.submit(a_model("employment", model_bytes(3)))
        assert next_one["state"] == "registered", "another version of what is there is nothing new"

        def new(number: int, intent: str | None = None, name: str = "job-status") -> Any:
            training = {"intent_id": intent} if intent else {}
            return a_model(
                name, model_bytes(number), task="classification", training=training, description="who is employed"
            )

        refused = await it.submit(new(4))
        assert (refused["state"], refused["code"]) == ("refused", "intent-required")
        assert f"{employment.urn}@2" in refused["reason"], "the nearest is named"
        training = TrainingRequested(
            request_id=uuid4(), base=employment, dataset=DatasetVersion(urn="mm:dataset/census", version=1), name="new"
        )
        await installation.publish(training, key=it.key)
        answer = await installation.wait_for(AssetRefused, lambda event: event.urn == "mm:model/new")
        assert answer.code == "intent-required" and answer.submission_id is None

        wish = {"team": "labour-office", "purpose": PURPOSE, "task": "classification"}
        intent = (await it.client.post(f"{V1}/intents", json=wish)).json()
        path = f"{V1}/intents/{intent['intent_id']}/build"
        open_yet = await it.submit(new(5, intent["intent_id"]))
        assert open_yet["code"] == "intent-required" and "no outcome yet" in open_yet["reason"]
        missing = await it.client.post(path, json={"why_not": {}, "reason": "ours is better"})
        assert problem(missing) == (422, "why-not-missing")
        assert missing.json()["missing"] == intent["to_explain"] != []
        why_not = dict.fromkeys(intent["to_explain"], "it does not know part-time work")
        stranger = await it.client.post(path, json={"why_not": {**why_not, "mm:model/x@1": "no"}, "reason": "r"})
        assert problem(stranger) == (422, "invalid")
        built = await it.client.post(path, json={"why_not": why_not, "reason": "part-time work matters here"})
        assert built.json()["outcome"]["why_not"] == why_not

        registered = await it.submit(new(6, intent["intent_id"]))
        assert registered["state"] == "registered", registered
        version = (await it.client.get(f"{V1}/assets/model/job-status/versions/1")).json()
        assert "intent_id" not in version["content"]["training"], "why it was built is no part of what it is"
        node = {"node": f"intent:{intent['intent_id']}", "direction": "descendants"}
        lineage = (await it.client.get(f"{V1}/lineage", params=node)).json()
        assert [edge["destination"] for edge in lineage["edges"]] == ["mm:model/job-status@1"]
        unknown = await it.submit(new(7, str(uuid4()), "another"))
        assert unknown["code"] == "intent-required" and "there is no intent" in unknown["reason"]

        mlflow = "/registry/api/2.0/mlflow"
        model = {"name": "Job Status (v2)"}
        assert (await it.client.post(f"{mlflow}/registered-models/create", json=model)).status_code == 200
        version_of = {**model, "source": "s3://bucket/model"}
        bypassed = await it.client.post(f"{mlflow}/model-versions/create", json=version_of)
        assert bypassed.status_code == 400 and "mintmark.intent_id" in bypassed.json()["message"]
        tags = [{"key": "mintmark.intent_id", "value": intent["intent_id"]}]
        named = await it.client.post(f"{mlflow}/model-versions/create", json={**version_of, "tags": tags})
        assert named.status_code == 200, named.text

        async with installation.client("registry", key) as other:
            assert (await other.get(f"{V1}/intents/{intent['intent_id']}")).status_code == 404
            assert (await other.get(f"{V1}/intents")).json()["items"] == []
            foreign = {"urn": employment.urn, "version": 1, "consumer": "spy", "purpose": "look"}
            assert (await other.post(f"{V1}/bindings", json=foreign)).status_code == 404
            assert (await other.get(f"{V1}/reuse")).json()["intents"] == 0
