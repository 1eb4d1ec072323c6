"""What a group's versions did in traffic is told to other services: when it moved, once, and as the view shows it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from router_story import deploy, named
from test_router_comparison import AT, LEDGER, ONE, TWO, arrive, begin, label, row, start

from services.router.handlers.measuring import Measuring
from services.router.store import Store
from shared.clock import utc_now
from shared.db.queries import load
from shared.events.router import GroupMeasured, LiveFigures
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(150)
SELDOM_S = 3_600.0


def measuring(installation: Installation, every_s: float) -> Measuring:
    """As another process of the router would have it."""
    database = installation.services["router"].database
    return Measuring(database, Store(load("services.router")), LEDGER, utc_now, every_s)


async def told(installation: Installation, count: int) -> list[GroupMeasured]:
    return await eventually(
        lambda: installation.events(GroupMeasured), lambda found: len(found) >= count, what=f"{count} group.measured"
    )


async def folded(installation: Installation) -> None:
    async def left() -> int:
        async with installation.services["router"].database.begin("default") as tx:
            waiting = "SELECT count(*) FROM feedback WHERE next_try_at IS NOT NULL"
            sums = "SELECT count(*) FROM comparison_delta"
            return int(await tx.connection.fetchval(waiting)) + int(await tx.connection.fetchval(sums))

    await eventually(left, lambda count: count == 0, what="everything folded")


def of(event: GroupMeasured, version: int, role: str) -> LiveFigures:
    return next(one for one in event.figures if (one.asset.version, one.role) == (version, role))


async def shown(client: httpx.AsyncClient, version: int, role: str) -> dict[str, Any]:
    view = (await client.get(f"{AT}/comparison")).json()
    return next(one for one in view["versions"] if (one["version"], one["role"]) == (version, role))


async def test_rows_are_told_once_and_feedback_on_them_again(installation: Installation) -> None:
    async with installation.client("router", await start(installation, measured_every_s=0.1)) as client:
        await begin(installation, client)
        made = (await client.get(AT)).json()
        rows = [row(ONE if n % 2 else TWO, n, revision=2, score=n / 300) for n in range(300)]
        rows += [row(ONE, 300 + n, revision=2, status=502, error_code="upstream-failed", score=None) for n in range(3)]
        rows += [row(TWO, 400 + n, revision=2, route="shadow") for n in range(5)]
        await arrive(installation, [*rows, row(None, 500, status=400, score=None)])

        (first,) = await told(installation, 1)
        assert (first.group, first.key) == ("live", "mm:group/live")
        assert first.since.isoformat() == made["created_at"].replace("Z", "+00:00") and first.since < first.until
        assert {(one.asset, one.role, one.requests, one.errors) for one in first.figures} == {
            (ONE, "champion", 153, 3), (TWO, "challenger", 150, 0), (TWO, "shadow", 5, 0),
        }  # fmt: skip
        champion, view = of(first, 1, "champion"), await shown(client, 1, "champion")
        assert champion.latency_ms == {name: view[f"latency_ms_{name}"] for name in ("p50", "p95", "p99")}
        failing = champion.measures["error_rate"]
        assert (failing.value, failing.n, failing.higher_is_better) == (pytest.approx(view["error_rate"]), 153, False)
        assert 0 <= failing.low < failing.value < failing.high < 1 and "confidence sequence" in failing.method
        assert champion.measures["score"].value == pytest.approx(view["mean_score"])
        assert champion.measures["latency"].low <= 12 <= champion.measures["latency"].high
        assert "accuracy" not in champion.measures, "nobody said what was right"
        assert of(first, 2, "shadow").measures == {}, "five rows are no interval"

        await folded(installation)
        assert await measuring(installation, 0.001).due() == [], "nothing moved, so there is nothing to say"
        assert len(await installation.events(GroupMeasured)) == 1

        right = [(one.request_id, int(n % 10 > 0) if said == "1" else int(n % 10 == 0))
                 for n, (one, said) in enumerate(rows[:300])]  # fmt: skip
        await label(client, right)
        await label(client, [(one.request_id, 7.5) for one, _ in rows[:300:2]], metric="revenue")
        endless = [{"request_id": str(rows[0][0].request_id), "metric": "revenue", "value": 1e200}]
        refused = await client.post(f"{AT}/feedback", json=endless)
        assert (refused.status_code, refused.json()["code"]) == (422, "feedback-refused"), refused.text

        async def last() -> GroupMeasured:
            return (await installation.events(GroupMeasured))[-1]

        second = await eventually(
            last, lambda event: {"accuracy", "metric:revenue"} <= of(event, 2, "challenger").measures.keys()
        )
        assert second.until > first.until and second.since == first.since
        of_two, view = of(second, 2, "challenger"), await shown(client, 2, "challenger")
        accuracy = of_two.measures["accuracy"]
        assert (accuracy.value, accuracy.n) == (pytest.approx(view["accuracy"]), 150) == (pytest.approx(0.8), 150)
        assert accuracy.low < 0.8 < accuracy.high <= 1
        assert of_two.measures["auc"].value == pytest.approx(view["auc"]) and of_two.measures["auc"].high <= 1
        assert (of_two.measures["metric:revenue"].value, of_two.measures["metric:revenue"].n) == (7.5, 150)


async def test_two_processes_tell_of_a_group_once_and_no_more_often_than_set(installation: Installation) -> None:
    async with installation.client("router", await start(installation, measured_every_s=SELDOM_S)) as client:
        await begin(installation, client)
        await arrive(installation, [row(ONE, n, revision=2) for n in range(10)])
        await told(installation, 1)
        await arrive(installation, [row(TWO, n, revision=2) for n in range(10)])
        await folded(installation)
        assert await measuring(installation, SELDOM_S).due() == [], "it was told of a moment ago"
        assert await measuring(installation, SELDOM_S).tell("default", "live") is False
        assert await measuring(installation, 0.001).due() == [("default", "live")]
        others = [measuring(installation, 0.001) for _ in range(5)]
        said = await asyncio.gather(*(other.tell("default", "live") for other in others))
        assert sorted(said) == [False, False, False, False, True]
        _, second = await told(installation, 2)
        assert {one.asset for one in second.figures} == {ONE, TWO}
        assert await measuring(installation, 0.001).tell("default", "live") is False
        async with installation.services["router"].database.begin("elsewhere") as tx:
            assert await tx.connection.fetchval("SELECT count(*) FROM group_measured") == 0


async def test_who_served_before_is_told_of_too(installation: Installation) -> None:
    async with installation.client("router", await start(installation, measured_every_s=0.1)) as client:
        await deploy(installation, client, ONE, TWO)
        made = await client.post("/router/v1/groups", json={"name": "live", "champion": named(ONE)})
        assert made.status_code == 201, made.text
        promoted = await client.post(f"{AT}:promote", json={"asset": named(TWO), "expected_revision": 1})
        assert promoted.status_code == 200, promoted.text
        await arrive(installation, [row(ONE, 1, revision=1), row(TWO, 2, revision=2)])
        (event,) = await told(installation, 1)
        assert {(one.asset, one.role) for one in event.figures} == {(ONE, "former"), (TWO, "champion")}
