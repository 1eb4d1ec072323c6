"""What prompts did in traffic: figures of the versions that close over them, apart from what was measured of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prompts_story import World, at, world
from test_prompts_protection import POLICY, measured, registered

from shared.events.base import AssetRef, Interval
from shared.events.registry import AssetRegistered
from shared.events.router import GroupMeasured, LiveFigures
from shared.ids import new_id, sha256
from shared.testing.installation import eventually

__all__ = ["world"]
pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]
BEGIN = datetime(2026, 11, 20, 10, tzinfo=UTC)
METHOD = "confidence sequence"


def a_model(name: str, version: int = 1) -> AssetRef:
    return AssetRef(urn=f"mm:vendor-model/{name}", version=version, digest=sha256(f"{name} {version}".encode()))


def closing(asset: AssetRef, *prompts: AssetRef) -> AssetRegistered:
    """The registry's word on a version that closes over prompts."""
    return AssetRegistered(
        asset=asset, submission_id=new_id(), kind="vendor-model", prompts=prompts, author=POLICY, registered_at=BEGIN
    )


def figures(asset: AssetRef, role: str, requests: int, **measures: float) -> LiveFigures:
    """Each measure within 0.02."""
    intervals = {
        name.replace("__", ":"): Interval(value=value, low=value - 0.02, high=value + 0.02, n=requests, method=METHOD)
        for name, value in measures.items()
    }
    return LiveFigures.model_validate(
        {"asset": asset, "role": role, "requests": requests, "errors": 2, "latency_ms": {"p99": 900.0},
         "measures": intervals}
    )  # fmt: skip


def traffic(group: str, hours: int, *found: LiveFigures) -> GroupMeasured:
    return GroupMeasured(group=group, since=BEGIN, until=BEGIN + timedelta(hours=hours), figures=found)


async def live(who: httpx.AsyncClient, title: str, **query: Any) -> list[dict[str, Any]]:
    return list((await who.get(at(title, "/evidence/live"), params=query)).json())


def told(found: list[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    return sorted((one["group"], one["asset"], one["role"], one["requests"]) for one in found)


async def test_live_evidence_is_what_the_versions_did_that_close_over_a_prompt(world: World) -> None:
    say = world.installation.publish
    first = await registered(world, await world.publish("live/answer", "one {{ x }}", labels=["production"]))
    second = await registered(world, await world.publish("live/answer", "two {{ x }}"))
    old, new, alien = a_model("assistant", 1), a_model("assistant", 2), a_model("other-assistant")
    # The figures come before anybody said what closes over what, and twice.
    await say(
        traffic("chat", 2, figures(old, "champion", 900, accuracy=0.8), figures(new, "challenger", 100),
                figures(new, "shadow", 50), figures(alien, "former", 7)),
        times=2,
    )  # fmt: skip
    assert await live(world.ada, "live/answer") == []
    await say(closing(old, first))
    await say(closing(new, second))

    async def of_first() -> list[dict[str, Any]]:
        return await live(world.ada, "live/answer", version=1)

    async def of_second() -> list[dict[str, Any]]:
        return await live(world.ada, "live/answer")

    (one,) = await eventually(of_first, bool, what="figures of the first version")
    assert told([one]) == [("chat", str(old), "champion", 900)]
    assert (one["since"], one["until"], one["errors"]) == ("2026-11-20T10:00:00Z", "2026-11-20T12:00:00Z", 2)
    assert one["latency_ms"] == {"p99": 900.0} and one["measures"]["accuracy"]["method"] == METHOD
    both = [("chat", str(new), "challenger", 100), ("chat", str(new), "shadow", 50)]
    await eventually(of_second, lambda found: told(found) == both, what="figures of the second version")

    # An older word changes nothing, nor does another workspace's; a newer one takes its place.
    await say(traffic("chat", 1, figures(old, "champion", 1), figures(new, "challenger", 1)))
    await say(traffic("chat", 9, figures(old, "champion", 3)), workspace="other")
    await say(traffic("chat", 3, figures(old, "former", 950), figures(new, "champion", 300, accuracy=0.7)))
    newer = [("chat", str(new), "champion", 300), ("chat", str(new), "shadow", 50)]
    await eventually(of_second, lambda found: told(found) == newer, what="the newer word")
    assert told(await of_first()) == [("chat", str(old), "former", 950)]
    async with world.installation.services["prompts"].database.begin("default") as tx:
        assert await tx.connection.fetchval("SELECT count(*) FROM live_figures WHERE group_name = 'chat'") == 4

    # A version of the same number with other content is not what was closed over.
    forged = closing(alien, second.model_copy(update={"digest": sha256(b"forged")}))
    await say(forged)
    await say(closing(a_model("marker"), second))
    await say(traffic("late", 1, figures(a_model("marker"), "champion", 5)))
    await eventually(of_second, lambda found: "late" in {one["group"] for one in found}, what="what was said last")
    assert str(alien) not in {one["asset"] for one in await of_second()}
    assert (await world.people["eve"].get(at("live/answer", "/evidence/live"))).status_code == 404
    assert (await world.ada.get(at("live/answer", "/evidence"))).json() == [], "traffic is no evaluation"


async def test_prompts_are_ranked_live_by_intervals_and_apart_from_evaluations(world: World) -> None:
    say = world.installation.publish
    accuracy = {
        "rank-live/best": 0.90,
        "rank-live/as good": 0.89,
        "rank-live/worse": 0.60,
        "rank-live/unlabelled": None,
    }
    found: list[LiveFigures] = []
    for number, (title, value) in enumerate(accuracy.items()):
        asset = a_model(f"ranked-{number}")
        prompt = await registered(world, await world.publish(title, f"{title} {{{{ x }}}}", labels=["production"]))
        await say(closing(asset, prompt))
        found.append(figures(asset, "champion", 500, **({} if value is None else {"accuracy": value}), error_rate=0.01))
    untried = await registered(world, await world.publish("rank-live/untried", "six {{ x }}"))
    await say(measured(untried, 0.99))
    await say(traffic("rank", 1, *found))
    await say(traffic("rank-too", 1, figures(found[2].asset, "champion", 300, accuracy=0.99, metric__revenue=7.5)))

    async def ranking(**query: str) -> list[dict[str, Any]]:
        answer = await world.ada.get("/prompts/v1/ranking", params=query)
        assert answer.status_code == 200 and answer.json()["source"] == query.get("source", "evaluation"), answer.text
        return [one for one in answer.json()["items"] if one["title"].startswith("rank-live/")]

    def ranks(items: list[dict[str, Any]]) -> list[tuple[str, int | None, str]]:
        return [(one["title"].removeprefix("rank-live/"), one["rank"], one["evidence"]) for one in items]

    async def in_group() -> list[dict[str, Any]]:
        return await ranking(source="live", group="rank", measure="accuracy")

    items = await eventually(in_group, lambda items: sum(one["rank"] is not None for one in items) == 3, what="ranks")
    assert ranks(items)[:3] == [("best", 1, "measured"), ("as good", 1, "measured"), ("worse", 3, "measured")]
    assert set(ranks(items)[3:]) == {("unlabelled", None, "no evidence"), ("untried", None, "no evidence")}
    best = items[0]
    assert (best["group"], best["asset"], best["role"]) == ("rank", str(found[0].asset), "champion")
    assert (best["since"], best["at"], best["rows"]) == ("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z", 500)
    assert (best["task"], best["golden_set"], best["evaluation_id"]) == (None, None, None)
    assert best["measure"]["n"] == 500 and best["measure"]["method"] == METHOD

    async def in_every_group() -> list[dict[str, Any]]:
        return await ranking(source="live", measure="accuracy")

    everywhere = await eventually(
        in_every_group, lambda items: sum(one["rank"] is not None for one in items) == 4, what="the second group"
    )
    assert (everywhere[0]["title"], everywhere[0]["group"], everywhere[0]["rank"]) == ("rank-live/worse", "rank-too", 1)
    by_revenue = await ranking(source="live", measure="metric:revenue")
    assert ranks(by_revenue)[0] == ("worse", 1, "measured")

    # By evaluations only what was evaluated has a rank: traffic is not mixed in.
    evaluated = await eventually(ranking, lambda items: any(one["rank"] is not None for one in items), what="ranks")
    assert [one["title"] for one in evaluated if one["rank"] is not None] == ["rank-live/untried"]
    assert {(one["group"], one["asset"], one["since"]) for one in evaluated} == {(None, None, None)}
    for query in ({"source": "live", "task": "summarization"}, {"source": "live", "model": "x"}, {"group": "rank"}):
        assert (await world.ada.get("/prompts/v1/ranking", params=query)).status_code == 422, query
    assert (await world.ada.get("/prompts/v1/ranking", params={"source": "golden"})).status_code == 422
    strangers = await world.people["eve"].get("/prompts/v1/ranking", params={"source": "live"})
    assert strangers.json()["items"] == []
