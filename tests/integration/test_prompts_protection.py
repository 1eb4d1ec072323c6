"""Protected labels move to what passed and was approved; versions are ranked by what was measured of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prompts_story import World, at, world

from shared.events.base import Actor, AssetRef, Interval
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import ApprovalDecided, GateDecided, PolicyPublished, RuleOutcome, WaiverSigned
from shared.events.registry import AssetRegistered
from shared.events.upstream import DatasetVersion
from shared.ids import new_id, sha256
from shared.testing.installation import eventually

__all__ = ["world"]
pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

BOUND, OTHER = sha256(b"bound"), sha256(b"other")
POLICY = Actor(id="service:policy", proven=True)


def now() -> datetime:
    return datetime.now(UTC)


async def registered(world: World, made: dict[str, Any], workspace: str = "default") -> AssetRef:
    """The registry's word on a version."""
    asset = AssetRef(urn=f"mm:prompt/{made['name']}", version=made["version"], digest=sha256(made["digest"].encode()))
    event = AssetRegistered(
        asset=asset, submission_id=UUID(made["submission_id"]), kind="prompt", author=POLICY, registered_at=now()
    )
    await world.installation.publish(event, workspace=workspace)

    async def state() -> Any:
        return (await world.ada.get(at(made["name"]), params={"version": made["version"]})).json()["state"]

    await eventually(state, lambda found: found == "registered")
    return asset


def gate(asset: AssetRef, verdict: str, binding: str = BOUND, waiver: UUID | None = None) -> GateDecided:
    rule = RuleOutcome(
        measure="quality", operator=">=", threshold=0.8, outcome="pass", reason="because", waiver_id=waiver
    )
    return GateDecided(
        gate_id=new_id(), asset=asset, verdict=verdict, rules=(rule,), reason="because", policy_version=1,
        binding=binding, decided_at=now(),
    )  # fmt: skip


def approval(asset: AssetRef, decision: str = "approved", **more: Any) -> ApprovalDecided:
    people = {"approver": Actor(id="user:carol", proven=True), "author": Actor(id="user:ada", proven=True)}
    fields = {"binding": BOUND, **people, **more}
    return ApprovalDecided(
        approval_id=new_id(), asset=asset, decision=decision, reason="seen", decided_at=now(), **fields
    )


def measured(asset: AssetRef, value: float, half: float = 0.02, **more: Any) -> EvalCompleted:
    interval = Interval(value=value, low=value - half, high=value + half, n=200, method="bootstrap")
    fields = {"evaluation_id": new_id(), "template": "summarization", "measures": {"quality": interval}, **more}
    return EvalCompleted(
        asset=asset, golden_set=DatasetVersion(urn="mm:dataset/golden", version=1), report=OTHER, rows=200,
        started_at=now(), ended_at=now(), **fields,
    )  # fmt: skip


async def protect(world: World, number: int, *labels: str, workspace: str = "default") -> None:
    document = {"labels": list(labels), "aliases": [], "stages": []}
    event = PolicyPublished(
        policy="protection", number=number, document=document, digest=OTHER, actor=POLICY, published_at=now()
    )
    await world.installation.publish(event, workspace=workspace)

    async def known() -> Any:
        who = world.ada if workspace == "default" else world.people["eve"]
        return (await who.get("/prompts/v1/protection")).json()["labels"]

    await eventually(known, lambda found: found == sorted(labels))


async def move(world: World, made: dict[str, Any], label: str = "guarded") -> tuple[int, str]:
    body = {"version": made["version"], "reason": "try"}
    answer = await world.ada.put(at(made["title"], f"/labels/{label}"), json=body, headers={"if-match": "*"})
    return answer.status_code, answer.json().get("detail", "")


async def test_a_protected_label_moves_only_to_what_was_let_through(world: World) -> None:
    made = await world.publish("guarded/prompt", labels=["guarded"])  # a fresh workspace protects nothing
    await protect(world, 1, "guarded")
    say = world.installation.publish
    second = await world.publish("guarded/prompt", "second {{ x }}")

    async def refused_because(words: str) -> None:
        async def tried() -> tuple[int, str]:
            return await move(world, second)

        await eventually(tried, lambda found: found[0] == 403 and words in found[1], what=words)

    await refused_because("the registry has not registered it")
    asset = await registered(world, second)
    await refused_because("no gate has decided on it; nobody has approved it")
    await say(gate(asset, "review"))
    await refused_because("its gate says review")
    await say(gate(asset, "pass"))
    await refused_because("version 2: nobody has approved it")
    await say(approval(asset, "rejected"))
    await refused_because("user:carol decided: rejected")
    await say(approval(asset, binding=OTHER))
    await refused_because("its approval was of another evaluation")
    await say(approval(asset, expires_at=now() - timedelta(seconds=1)))
    await refused_because("its approval expired")
    waiver = new_id()
    await say(gate(asset, "pass", waiver=waiver))
    await say(approval(asset))
    await refused_because("a waiver that its gate rests on is no longer in force")
    signed = WaiverSigned(
        waiver_id=waiver, asset=asset, measure="quality", signers=(POLICY, Actor(id="user:dan", proven=True)),
        reason="a trial", expires_at=now() + timedelta(days=1),
    )  # fmt: skip
    await say(signed)

    async def moved() -> int:
        return (await move(world, second))[0]

    await eventually(moved, lambda status: status == 200)
    back = await world.ada.post(at("guarded/prompt", "/labels/guarded/rollback"), json={"reason": "x"})
    assert back.json()["code"] == "label-protected" and "version 1" in back.json()["detail"]
    with_label = await world.ada.post(at("guarded/prompt", "/versions"), json={"text": "3", "labels": ["guarded"]})
    assert with_label.json()["code"] == "label-protected"
    assert (await world.ada.get(at("guarded/prompt"))).json()["version"] == 2, "nothing was published"
    langfuse = await world.ada.patch(
        "/prompts/api/public/v2/prompts/guarded%2Fprompt/versions/1", json={"newLabels": ["free", "guarded"]}
    )
    assert langfuse.status_code == 403 and langfuse.json()["error"] == "ForbiddenError"
    assert (await world.ada.get(at("guarded/prompt", "/labels/free"))).status_code == 404, "none was moved"
    assert (await world.ada.put(at("guarded/prompt", "/labels/free"), json={"version": made["version"]})).is_success
    split = await world.ada.put(at("guarded/prompt", "/labels/guarded/split"), json={"arms": {"free": 9_000}})
    assert split.json()["code"] == "split-refused"
    await say(signed.model_copy(update={"withdrawn_at": now()}))
    removed = await world.ada.delete(at("guarded/prompt", "/labels/guarded"), headers={"if-match": "*"})
    assert removed.json()["code"] == "label-protected"
    await protect(world, 2, "guarded", "guarded-too")

    async def tried() -> tuple[int, str]:
        return await move(world, second, "guarded-too")

    await eventually(tried, lambda found: "a waiver that its gate rests on" in found[1])


async def test_an_arm_moves_as_what_it_is_an_arm_of(world: World) -> None:
    made = await world.publish("split early", labels=["split-guarded", "arm", "free-arm"])
    unseen = await world.publish("split early", "second {{ x }}")

    async def split(**arms: int) -> int:
        path = at("split early", "/labels/split-guarded/split")
        return (await world.ada.put(path, json={"arms": arms}, headers={"if-match": "*"})).status_code

    assert await split(arm=5_000) == 200
    await protect(world, 3, "split-guarded")
    status, detail = await move(world, unseen, "arm")
    assert status == 403 and "'arm' is an arm of 'split-guarded', which is protected" in detail
    removed = await world.ada.delete(at("split early", "/labels/arm"), headers={"if-match": "*"})
    assert removed.json()["code"] == "label-protected"
    assert (await move(world, unseen, "free-arm"))[0] == 200, "no split gives it"
    assert (await move(world, made, "arm"))[0] == 200, "it points there already"
    assert await split() == 200
    assert (await move(world, unseen, "arm"))[0] == 200, "the split is over"


async def test_what_is_protected_is_each_workspaces_own(world: World) -> None:
    await protect(world, 5, "production", workspace="other")
    await protect(world, 6, workspace="other")
    made = await world.publish("unguarded")
    assert (await move(world, made, "production"))[0] == 200
    old = PolicyPublished(
        policy="protection", number=4, document={"labels": ["x"]}, digest=OTHER, actor=POLICY, published_at=now()
    )
    await world.installation.publish(old, workspace="other")
    gates = PolicyPublished(
        policy="gate/default", number=9, document={"labels": ["y"]}, digest=OTHER, actor=POLICY, published_at=now()
    )
    await world.installation.publish(gates, workspace="other")
    await protect(world, 7, "z", workspace="other")


async def test_versions_are_ranked_by_intervals_and_no_evidence_is_said(world: World) -> None:
    names = ("rank/best", "rank/as good", "rank/worse", "rank/unknown")
    values = {"rank/best": 0.90, "rank/as good": 0.89, "rank/worse": 0.60}
    refs = {}
    for name in names:
        refs[name] = await registered(world, await world.publish(name, f"{name} {{{{ x }}}}", labels=["production"]))
    for name, value in values.items():
        await world.installation.publish(measured(refs[name], value, model="gpt-x"))
    await world.installation.publish(measured(refs["rank/worse"], 0.99, model="another"))
    failed = EvalFailed(evaluation_id=new_id(), asset=refs["rank/unknown"], code="not-measurable", reason="no template")
    await world.installation.publish(failed)

    async def ranking(**query: str) -> list[dict[str, Any]]:
        answer = await world.ada.get("/prompts/v1/ranking", params={"task": "summarization", **query})
        return [one for one in answer.json()["items"] if one["title"].startswith("rank/")]

    found = await eventually(
        lambda: ranking(model="gpt-x"), lambda items: sum(one["rank"] is not None for one in items) == 3
    )
    assert [(one["title"], one["rank"], one["evidence"]) for one in found] == [
        ("rank/best", 1, "measured"),
        ("rank/as good", 1, "measured"),
        ("rank/worse", 3, "measured"),
        ("rank/unknown", None, "no evidence"),
    ]
    assert found[0]["measure"]["low"] == pytest.approx(0.88) and found[0]["model"] == "gpt-x"
    by_other = await eventually(lambda: ranking(model="another"), lambda items: items[0]["rank"] == 1)
    assert by_other[0]["title"] == "rank/worse" and {one["evidence"] for one in by_other[1:]} == {"no evidence"}

    async def evidence() -> list[dict[str, Any]]:
        return list((await world.ada.get(at("rank/unknown", "/evidence"))).json())

    (one,) = await eventually(evidence, lambda items: len(items) == 1)
    assert (one["code"], one["measures"]) == ("not-measurable", {})
    assert (await world.people["eve"].get("/prompts/v1/ranking")).json()["items"] == []


async def test_a_prompt_is_bound_to_models_and_use_cases(world: World) -> None:
    await world.publish("bound", labels=["production"])
    body = {"model": "gpt-x", "use_case": "claims triage"}
    assert (await world.ada.put(at("bound", "/bindings"), json=body)).json()["label"] == "production"
    assert (await world.ada.put(at("bound", "/bindings"), json={**body, "label": "canary"})).is_success
    found = (await world.ada.get("/prompts/v1/bindings", params={"use_case": "claims triage"})).json()
    assert [(one["title"], one["model"], one["label"]) for one in found] == [("bound", "gpt-x", "canary")]
    assert (await world.people["eve"].get("/prompts/v1/bindings")).json() == []
    assert (await world.people["eve"].put(at("bound", "/bindings"), json=body)).status_code == 404
    assert (await world.ada.delete(at("bound", "/bindings"), params=body)).status_code == 204
    assert (await world.ada.delete(at("bound", "/bindings"), params=body)).status_code == 404
