"""Branches: a candidate is proposed, measured beside what is in place, approved by another person, merged."""

from __future__ import annotations

from typing import Any

import pytest
from prompts_story import World, at, world
from test_prompts_protection import measured, registered

from shared.events.evaluator import EvalFailed
from shared.events.upstream import EvalRequested
from shared.testing.installation import eventually

__all__ = ["world"]
pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

GOLDEN = {"golden_set": {"urn": "mm:dataset/golden", "version": 1}, "task": "summarization"}
APPROVED = {"decision": "approved", "reason": "reads well"}


async def propose(world: World, title: str, text: str, **more: Any) -> dict[str, Any]:
    body = {"text": text, "summary": "shorter", **more}
    answer = await world.ada.post(at(title, "/proposals"), json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def of(proposal: dict[str, Any], rest: str = "") -> str:
    return f"/prompts/v1/proposals/{proposal['proposal_id']}{rest}"


async def version_of(world: World, title: str, number: int) -> dict[str, Any]:
    found: dict[str, Any] = (await world.ada.get(at(title), params={"version": number})).json()
    return found


async def test_a_candidate_is_measured_beside_production_approved_and_merged(world: World) -> None:
    base = await world.publish("branch/whole", "old {{ x }}", labels=["production"])
    proposal = await propose(world, "branch/whole", "new {{ x }}")
    assert (proposal["base_version"], proposal["head_version"], proposal["state"]) == (1, 2, "open")
    early = await world.ada.post(of(proposal, "/evaluate"), json=GOLDEN)
    assert early.json()["code"] == "not-registered"
    candidate = await version_of(world, "branch/whole", 2)
    refs = [await registered(world, version) for version in (base, candidate)]
    assert (await world.ada.get(at("branch/whole"))).json()["version"] == 1, "latest passes a candidate by"

    asked = await world.ada.post(of(proposal, "/evaluate"), json=GOLDEN)
    assert asked.status_code == 202, asked.text

    async def requests() -> list[Any]:
        return [one for one in await world.installation.events(EvalRequested) if one.asset.urn == refs[0].urn]

    sent = {one.asset: one for one in await eventually(requests, lambda found: len(found) == 2)}
    assert set(sent) == set(refs) and len({one.golden_set for one in sent.values()}) == 1

    async def comparison() -> dict[str, Any]:
        return dict((await world.ada.get(of(proposal, "/comparisons"))).json()[0])

    assert (await comparison())["status"] == "waiting"
    for ref, value in zip(refs, (0.7, 0.9), strict=True):
        await world.installation.publish(measured(ref, value, evaluation_id=sent[ref].request_id))
    found = await eventually(comparison, lambda one: one["status"] == "measured")
    assert found["measures"]["quality"]["verdict"] == "better"
    assert found["head"]["rows"] == found["base"]["rows"] == 200

    merged_early = await world.ada.post(of(proposal, "/merge"), json={"reason": "now"})
    assert merged_early.json()["code"] == "not-approved"
    assert (await world.ada.post(of(proposal, "/decisions"), json=APPROVED)).json()["code"] == "four-eyes"
    wrong = {**APPROVED, "digest": base["digest"]}
    bob = world.people["bob"]
    assert (await bob.post(of(proposal, "/decisions"), json=wrong)).json()["code"] == "stale-base"
    right = {**APPROVED, "digest": candidate["digest"]}
    assert (await bob.post(of(proposal, "/decisions"), json=right)).json()["decided_by"] == "user:bob"
    merged = await world.ada.post(of(proposal, "/merge"), json={"reason": "better"})
    assert (merged.json()["moved"]["before"], merged.json()["moved"]["after"]) == (1, 2)
    assert [step["what"] for step in merged.json()["proposal"]["steps"]] == [
        "opened", "evaluation requested", "approved", "merged",
    ]  # fmt: skip

    async def latest() -> Any:
        return (await world.ada.get(at("branch/whole"))).json()["version"]

    await eventually(latest, lambda number: number == 2)
    assert (await world.ada.get(at("branch/whole"), params={"at": base["published_at"]})).json()["version"] == 1
    assert (await world.ada.post(of(proposal, "/merge"), json={"reason": "x"})).json()["code"] == "proposal-ended"


async def test_a_stale_base_is_noticed_and_a_revision_needs_its_own_approval(world: World) -> None:
    await world.publish("branch/stale", "old", labels=["production"])
    proposal = await propose(world, "branch/stale", "new")
    bob = world.people["bob"]
    assert (await bob.post(of(proposal, "/decisions"), json=APPROVED)).status_code == 201
    await world.publish("branch/stale", "somebody else's", labels=["production"])
    assert (await world.ada.get(of(proposal))).json()["is_stale"] is True
    stale = await world.ada.post(of(proposal, "/merge"), json={"reason": "now"})
    assert (stale.status_code, stale.json()["code"], stale.json()["now"]) == (409, "stale-base", 3)
    revised = await bob.post(of(proposal, "/revisions"), json={"text": "new on top", "reason": "rebased"})
    assert (revised.json()["base_version"], revised.json()["head_version"]) == (3, 4)
    assert revised.json()["decision"] is None and revised.json()["authors"] == ["user:ada", "user:bob"]
    assert (await bob.post(of(proposal, "/decisions"), json=APPROVED)).json()["code"] == "four-eyes"
    closed = await world.ada.post(of(proposal, "/close"), json={"reason": "given up"})
    assert closed.json()["state"] == "closed"
    assert (await world.ada.get(at("branch/stale"))).json()["version"] == 3
    listed = (await world.ada.get(at("branch/stale", "/proposals"), params={"state": "closed"})).json()
    assert [one["proposal_id"] for one in listed] == [proposal["proposal_id"]]


async def test_a_rejected_candidate_is_not_merged_and_a_failed_evaluation_is_no_score(world: World) -> None:
    base = await world.publish("branch/rejected", "old", labels=["production"])
    proposal = await propose(world, "branch/rejected", "new")
    head = await version_of(world, "branch/rejected", 2)
    for version in (base, head):
        await registered(world, version)
    await world.ada.post(of(proposal, "/evaluate"), json=GOLDEN)
    (asked,) = (await world.ada.get(of(proposal, "/comparisons"))).json()
    assert asked["measures"] == {}

    async def request() -> Any:
        return [one for one in await world.installation.events(EvalRequested) if one.asset.name == head["name"]]

    sent = await eventually(request, lambda found: len(found) == 2)
    failed = EvalFailed(
        evaluation_id=sent[0].request_id, asset=sent[0].asset, code="not-measurable", reason="no template"
    )
    await world.installation.publish(failed)

    async def status() -> Any:
        return (await world.ada.get(of(proposal, "/comparisons"))).json()[0]["status"]

    await eventually(status, lambda found: found == "failed")
    no = {"decision": "rejected", "reason": "rude"}
    assert (await world.people["bob"].post(of(proposal, "/decisions"), json=no)).json()["decision"] == "rejected"
    refused = await world.ada.post(of(proposal, "/merge"), json={"reason": "anyway"})
    assert refused.json()["code"] == "not-approved" and "user:bob rejected it" in refused.json()["detail"]


async def test_a_prompt_may_begin_as_a_proposal(world: World) -> None:
    proposal = await propose(world, "branch/new", "first ever")
    assert proposal["base_version"] is None
    assert (await world.ada.get(at("branch/new"))).status_code == 404
    await world.people["bob"].post(of(proposal, "/decisions"), json=APPROVED)
    assert (await world.ada.post(of(proposal, "/merge"), json={"reason": "begin"})).is_success
    assert (await world.ada.get(at("branch/new"), params={"label": "production"})).json()["version"] == 1


async def test_proposals_stay_in_their_workspace(world: World) -> None:
    proposal = await propose(world, "branch/ours", "x")
    eve = world.people["eve"]
    assert (await eve.get(of(proposal))).status_code == 404
    assert (await eve.get(at("branch/ours", "/proposals"))).status_code == 404
    assert (await eve.get(of(proposal, "/comparisons"))).status_code == 404
    for rest, body in (
        ("/revisions", {"text": "eve's"}),
        ("/evaluate", GOLDEN),
        ("/decisions", APPROVED),
        ("/merge", {"reason": "x"}),
        ("/close", {"reason": "x"}),
    ):
        assert (await eve.post(of(proposal, rest), json=body)).status_code == 404
    assert (await world.people["viewer"].post(of(proposal, "/decisions"), json=APPROVED)).status_code == 403
