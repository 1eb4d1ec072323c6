"""The comparative view on a real database: rows and labels in any order, corrections, streams, broken splits, ramps."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest
from guide import served
from router_story import asset, deploy, named
from sklearn.metrics import roc_auc_score

from services.router.comparison.aggregates import Moments, Outcome, Said, judged
from services.router.comparison.ledger import Ledger
from services.router.domain import Version, choose
from services.router.handlers.comparisons import Comparisons, Question
from services.router.store import Store
from services.router.worker import Comparer, RampDriver
from shared.clock import utc_now
from shared.db.database import Transaction
from shared.db.queries import load
from shared.events.base import AssetRef
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(150)
AT = "/router/v1/groups/live"
ONE, TWO = asset(1), asset(2)
TAGS: dict[str, Any] = {
    "rule": {"route": {"rule": "beta"}},
    "failover": {"route": {"rule": "beta"}, "failed_over": True},
    "cached": {"cache": "hit"},
}
"""What a gateway notes of a row that the weights did not choose, by its route."""
LEDGER = Ledger(load("services.router.comparison"))
INSERT = """
    INSERT INTO inference_log_live (request_id, workspace, received_at, unit, asset, version, digest, status,
                                    error_code, score, prediction, latency_ms, trace_id, revision, tags, shadow_of)
    VALUES ($1, 'default', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'trace', $12, $13, $14)
"""


def row(of: AssetRef | None, number: int, **more: Any) -> tuple[Outcome, str | None]:
    said: dict[str, Any] = {
        "request_id": uuid4(), "at": datetime.now(UTC), "revision": 1, "asset": of.urn if of else None,
        "version": of.version if of else None, "digest": of.digest if of else None, "unit": f"unit-{number}",
        "status": 200, "error_code": None, "latency_ms": 10.0 + number % 5, "score": 0.5,
    }  # fmt: skip
    outcome = Outcome(**{**said, **more})
    return outcome, None if outcome.score is None else str(int(outcome.score >= 0.5))


Rows = list[tuple[Outcome, str | None]]


async def arrive(installation: Installation, rows: Rows, shadow_of: UUID | None = None) -> None:
    """As the gateways' shipper does it: rows and their aggregates in one transaction."""
    async with installation.services["router"].database.begin("default") as tx:
        await record(tx, rows, shadow_of)


async def record(tx: Transaction, rows: Rows, shadow_of: UUID | None = None) -> None:
    for day in {one.at.astimezone(UTC).date() for one, _ in rows}:
        await tx.connection.execute("SELECT inference_log_day('live', $1)", day)
    await tx.connection.executemany(
        INSERT,
        [
            (one.request_id, one.at, one.unit, one.asset, one.version, one.digest, one.status, one.error_code,
             one.score, prediction, one.latency_ms, one.revision, TAGS.get(one.route), shadow_of)
            for one, prediction in rows
        ],
    )  # fmt: skip
    await LEDGER.record(tx, "live", [outcome for outcome, _ in rows], [shadow_of] if shadow_of else [])


async def begin(installation: Installation, client: httpx.AsyncClient, weight_bp: int | None = 5_000) -> None:
    await deploy(installation, client, ONE, TWO)
    assert (await client.post("/router/v1/groups", json={"name": "live", "champion": named(ONE)})).status_code == 201
    if weight_bp is not None:
        weights = {"challengers": [{"asset": named(TWO), "weight_bp": weight_bp}], "expected_revision": 1}
        assert (await client.put(f"{AT}/challengers", json=weights)).status_code == 200


async def start(installation: Installation, **settings: Any) -> str:
    """The router without gateway and shipper: these tests record their rows themselves."""
    key = installation.key("user:rita", "release-manager")
    await installation.start("router", **settings)
    return key


async def seen(client: httpx.AsyncClient, of: AssetRef, **parameters: Any) -> dict[str, Any]:
    view = (await client.get(f"{AT}/comparison", params=parameters)).json()
    return next((one for one in view["versions"] if one["version"] == of.version), {"n": 0, "labelled": 0})


def split_by_weights(group: Any, count: int, accuracy: dict[int, float], seed: int) -> list[tuple[Outcome, str]]:
    """Rows of units as the group's weights send them, each with its true label."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        unit = f"unit-{seed}-{number}"
        version = choose(group, unit)
        is_right = random.random() < accuracy[version.version]
        ref = AssetRef(urn=version.urn, version=version.version, digest=version.digest)
        score = float(random.random())
        outcome, prediction = row(ref, number, unit=unit, revision=group.revision, score=score)
        truth = prediction if is_right else str(1 - int(prediction or 0))
        found.append((outcome, str(truth)))
    return found


async def labelled_by_route(installation: Installation) -> dict[str, int]:
    async with installation.services["router"].database.begin("default") as tx:
        found = await LEDGER.read(tx, "live", None, None, utc_now())
    counts: dict[str, int] = {}
    for source, sums in found.items():
        counts[source.route] = counts.get(source.route, 0) + sums.moments.get("labelled", Moments()).n
    return {route: count for route, count in counts.items() if count}


async def test_labels_count_where_their_rows_count(installation: Installation) -> None:
    """A rule, the cache and a failover choose whom they like: what is said of their rows is no experiment."""
    async with installation.client("router", await start(installation)) as client:
        await begin(installation, client)
        chosen = [row(ONE, n, score=0.9) for n in range(10)]
        others = [row(ONE, n, score=0.9, route=route) for route in TAGS for n in range(5)]
        await arrive(installation, chosen + others)
        await label(client, [(one.request_id, 1) for one, _ in chosen + others])
        apart = {"weight": 10, "rule": 5, "failover": 5, "cached": 5}

        async def look() -> dict[str, int]:
            return await labelled_by_route(installation)

        await eventually(look, lambda counts: counts == apart, what="labels by route")
        # Corrected: what was said is taken back from where it counted.
        await label(client, [(one.request_id, 0) for one, _ in chosen + others])
        await eventually(lambda: seen(client, ONE), lambda one: one["accuracy"] == 0, what="the corrections")
        assert await look() == apart


async def test_words_that_all_counted_by_weight_once_are_taken_back_from_there(installation: Installation) -> None:
    async with installation.client("router", await start(installation)) as client:
        await begin(installation, client)
        ruled = [row(ONE, n, score=0.9, route="rule") for n in range(5)]
        await arrive(installation, ruled)
        ids = [one.request_id for one, _ in ruled]
        async with installation.services["router"].database.begin("default") as tx:
            await tx.connection.executemany(
                "INSERT INTO feedback (id, workspace, group_name, request_id, metric, label, who, received_at, "
                "next_try_at, counted, counted_by_weight) "
                "VALUES ($1, 'default', 'live', $2, 'label', '1', 'user:rita', now(), NULL, true, true)",
                [(uuid4(), id) for id in ids],
            )
            words = [Said(one._replace(route="weight"), prediction, "label", None, "1") for one, prediction in ruled]
            await LEDGER._add(tx, "live", judged(words))

        async def look() -> dict[str, int]:
            return await labelled_by_route(installation)

        await eventually(look, lambda counts: counts == {"weight": 5}, what="the words of long ago")
        for value in (0, 1):
            await label(client, [(id, value) for id in ids])
            await eventually(lambda: seen(client, ONE), lambda one, value=value: one["accuracy"] == value)
            assert await look() == {"rule": 5}


Judged = dict[str, tuple[float, float]]
"""Labels counted by route, and how many of them the rows had right."""


class Shadowed:
    """A request and its shadow, whose rows come when a test says so, as words are joined; both predict 1."""

    def __init__(self, installation: Installation, client: httpx.AsyncClient) -> None:
        self.installation = installation
        self.client = client
        self.database = installation.services["router"].database
        self.comparer = Comparer(self.database, LEDGER, utc_now, 3600.0)
        self.own = row(ONE, 1, score=0.9)
        self.shadow = row(TWO, 1, score=0.9, route="shadow")
        self.id = self.own[0].request_id

    async def label(self, value: int) -> None:
        await label(self.client, [(self.id, value)])

    async def own_row(self) -> None:
        await arrive(self.installation, [self.own])

    async def shadow_row(self) -> None:
        await arrive(self.installation, [self.shadow], self.id)

    async def judged(self) -> Judged:
        """After everything that was due; routes where all sums are zero are left out."""
        await self.comparer.look()
        async with self.database.begin("default") as tx:
            found = await LEDGER.read(tx, "live", None, None, utc_now())
            left = await tx.connection.fetchval("SELECT count(*) FROM comparison_shadowed")
        assert left == 0
        none = Moments()
        sums = {
            of.route: (one.moments.get("labelled", none), one.moments.get("accuracy", none))
            for of, one in found.items()
        }
        return {route: (labelled.n, right.total) for route, (labelled, right) in sums.items() if labelled.n or right.n}


@pytest.fixture
async def shadowed(installation: Installation) -> AsyncIterator[Shadowed]:
    """The router's own comparer sleeps: it is the tests that join, one step at a time."""
    async with installation.client("router", await start(installation, compare_poll_s=3600.0)) as client:
        await begin(installation, client)
        yield Shadowed(installation, client)


async def test_a_label_counts_for_a_shadow_whose_row_comes_after_it(shadowed: Shadowed) -> None:
    await shadowed.own_row()
    await shadowed.label(1)
    assert await shadowed.judged() == {"weight": (1, 1)}
    await shadowed.shadow_row()
    both = {"weight": (1, 1), "shadow": (1, 1)}
    assert await shadowed.judged() == both
    assert await shadowed.judged() == both, "once"
    await shadowed.label(0)
    assert await shadowed.judged() == {"weight": (1, 0), "shadow": (1, 0)}
    second = row(ONE, 1, score=0.9, route="shadow")
    await arrive(shadowed.installation, [second], shadowed.id)
    await shadowed.label(1)  # before the join: the word that it replaces never counted for the second shadow
    found = await shadowed.judged()
    assert found["weight"] == (1, 1)
    async with shadowed.database.begin("default") as tx:
        sums = await LEDGER.read(tx, "live", None, None, utc_now())
    of_shadows = {of.version: one.moments["accuracy"][:2] for of, one in sums.items() if of.route == "shadow"}
    assert of_shadows == {1: (1, 1), 2: (1, 1)}


async def test_a_correction_takes_nothing_back_of_a_shadow_that_nothing_was_added_for(shadowed: Shadowed) -> None:
    await shadowed.own_row()
    await shadowed.label(1)
    await shadowed.judged()
    await shadowed.label(0)
    assert await shadowed.judged() == {"weight": (1, 0)}  # of a shadow whose row never comes nothing is said
    await shadowed.label(1)
    await shadowed.shadow_row()
    assert await shadowed.judged() == {"weight": (1, 1), "shadow": (1, 1)}


async def test_a_correction_leaves_what_was_added_for_a_shadows_row_that_is_gone(shadowed: Shadowed) -> None:
    """Erased or too old: its sums stay as they were, and so they are not taken from either."""
    await shadowed.own_row()
    await shadowed.shadow_row()
    await shadowed.label(1)
    both = {"weight": (1, 1), "shadow": (1, 1)}
    assert await shadowed.judged() == both
    async with shadowed.database.begin("default") as tx:
        filters = [{"column": "request_id", "op": "=", "value": str(shadowed.shadow[0].request_id)}]
        gone = await tx.connection.fetchrow("SELECT * FROM erase_rows('live', NULL, $1)", filters)
        assert (gone["row_count"], gone["word_count"]) == (1, 0)
    await shadowed.label(0)
    assert await shadowed.judged() == {"weight": (1, 0), "shadow": (1, 1)}


async def test_a_label_waits_for_its_requests_own_row_even_if_a_shadows_is_there(shadowed: Shadowed) -> None:
    await shadowed.shadow_row()
    await shadowed.label(1)
    assert await shadowed.judged() == {}
    await shadowed.own_row()
    assert await shadowed.judged() == {"weight": (1, 1), "shadow": (1, 1)}


async def test_a_shadows_row_that_comes_while_words_are_joined_is_not_missed(shadowed: Shadowed) -> None:
    await shadowed.own_row()
    await shadowed.label(1)
    async with shadowed.database.begin("default") as joiner:
        assert await LEDGER.join(joiner, "live") == 1
        await asyncio.wait_for(shadowed.shadow_row(), 30)  # waits for nobody
        assert await LEDGER.join_shadowed(joiner, "live") == 1  # the joiner's own words are seen
    assert await shadowed.judged() == {"weight": (1, 1), "shadow": (1, 1)}


async def test_words_that_are_joined_while_a_shadows_row_is_on_its_way_are_not_missed(shadowed: Shadowed) -> None:
    await shadowed.own_row()
    async with shadowed.database.begin("default") as shipper:
        await record(shipper, [shadowed.shadow], shadowed.id)
        await shadowed.label(1)  # unknown to the shipper, and counted before its row can be seen
        async with shadowed.database.begin("default") as joiner:
            assert await LEDGER.join(joiner, "live") == 1
        assert await shadowed.judged() == {"weight": (1, 1)}
    assert await shadowed.judged() == {"weight": (1, 1), "shadow": (1, 1)}


async def test_a_join_waits_for_nobody_who_erases_words(shadowed: Shadowed) -> None:
    await shadowed.own_row()
    await shadowed.label(1)
    assert await shadowed.judged() == {"weight": (1, 1)}
    await shadowed.shadow_row()
    with pytest.raises(RolledBack):
        async with shadowed.database.begin("default") as eraser:
            await eraser.connection.execute("DELETE FROM feedback WHERE counted")
            await shadowed.label(0)
            for step in (LEDGER.join, LEDGER.join_shadowed):
                async with shadowed.database.begin("default") as tx:
                    assert await asyncio.wait_for(step(tx, "live"), 30) == 1
            raise RolledBack

    async def look() -> Judged:
        return await shadowed.judged()

    both = {"weight": (1, 0), "shadow": (1, 0)}
    await eventually(look, lambda found: found == both, what="the correction, which was put off")


class RolledBack(Exception):
    """What an eraser did comes to nothing."""


async def group_now(installation: Installation) -> Any:
    async with installation.services["router"].database.begin("default") as tx:
        entry = await Store(load("services.router")).group(tx, "live")
    assert entry is not None
    return entry.group


async def label(client: httpx.AsyncClient, said: list[tuple[UUID, Any]], metric: str = "label") -> dict[str, Any]:
    body = [{"request_id": str(request_id), "metric": metric, "value": value} for request_id, value in said]
    answer = await client.post(f"{AT}/feedback", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


async def until_labelled(client: httpx.AsyncClient, of: AssetRef, count: int) -> dict[str, Any]:
    return await eventually(lambda: seen(client, of), lambda one: one["labelled"] == count, what="labels")


async def test_labels_before_and_after_rows_are_joined_and_once(installation: Installation) -> None:
    async with installation.client("router", await start(installation)) as client:
        await begin(installation, client)
        early, late = [row(ONE, n, score=n / 20) for n in range(20)], [row(ONE, n, score=n / 20) for n in range(20)]
        truth = {outcome.request_id: int((outcome.score or 0) > 0.4) for outcome, _ in early + late}

        assert (await label(client, [(one.request_id, 1) for one, _ in early]))["unmatched"] == 20
        await asyncio.sleep(3)  # looked for in vain several times: put off for seconds already
        began = time.monotonic()
        await arrive(installation, early)
        assert (await seen(client, ONE))["n"] == 20  # there with the row, folded or not
        await until_labelled(client, ONE, 20)
        print(f"labels that waited for their rows: joined {time.monotonic() - began:.2f} s after the rows")

        await arrive(installation, late)
        began = time.monotonic()
        await label(client, [(one.request_id, 1) for one, _ in late])
        found = await until_labelled(client, ONE, 40)
        print(f"labels of known rows: joined in {time.monotonic() - began:.2f} s")
        assert found["accuracy"] == pytest.approx(0.5)

        # corrected, twice, and said again: the latest word counts once, the others stay as history
        await label(client, [(one.request_id, 0) for one, _ in late])
        await label(client, [(one.request_id, truth[one.request_id]) for one, _ in early + late])
        await label(client, [(one.request_id, 7.5) for one, _ in early], metric="revenue")
        rows = early + late
        exact = np.mean([int(prediction or 0) == truth[one.request_id] for one, prediction in rows])

        async def look() -> dict[str, Any]:
            return await seen(client, ONE)

        right = await eventually(
            look, lambda one: one["accuracy"] == pytest.approx(exact) and "revenue" in one["metrics"]
        )
        assert right["labelled"] == 40 and right["metrics"]["revenue"] == [20, 7.5]
        expected = roc_auc_score([truth[one.request_id] for one, _ in rows], [one.score for one, _ in rows])
        assert abs(right["auc"] - expected) <= right["auc_error"] + 1e-9
        history = (await client.get(f"{AT}/inferences/{late[0][0].request_id}")).json()["feedback"]
        assert [word["value"] for word in history] == [truth[late[0][0].request_id], 0, 1]


async def test_spans_errors_and_rows_without_a_version(installation: Installation) -> None:
    async with installation.client("router", await start(installation)) as client:
        await begin(installation, client)
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        ages = [timedelta(minutes=m) for m in (0, 1, 61, 300)] + [timedelta(days=d) for d in (1, 3, 40, 200)]
        rows = [row(ONE, n, at=now - age, revision=2) for n, age in enumerate(ages)]
        rows += [row(ONE, 90, status=502, error_code="upstream-failed"), row(None, 91, status=400, score=None)]
        await arrive(installation, rows)
        for _ in range(2):  # not folded yet, or just so; and then
            for since, until, count in (
                (None, None, 9),
                (now - timedelta(hours=2), None, 4),
                (now - timedelta(days=2), now, 4),
                (now - timedelta(days=60), None, 8),
                (now - timedelta(days=60), now - timedelta(days=2), 2),
                (now + timedelta(hours=1), None, 0),
            ):
                limits = {"since": since and since.isoformat(), "until": until and until.isoformat()}
                found = await seen(client, ONE, **{name: value for name, value in limits.items() if value})
                assert found["n"] == count, limits
            await asyncio.sleep(1.5)
        whole = await seen(client, ONE)
        assert (whole["errors"], whole["errors_by_class"]) == (1, {"upstream-failed": 1})
        view = (await client.get(f"{AT}/comparison")).json()
        assert [one["role"] for one in view["versions"]] == ["none", "champion"]
        assert view["n"] == 10
        async with installation.services["router"].database.begin("default") as tx:
            assert await tx.connection.fetchval("SELECT count(*) FROM comparison_delta") == 0
        for query in ("guard=nonsense:1", "guard=error_rate", "primary=nonsense", "alpha=0", "guard=latency:-1"):
            assert (await client.get(f"{AT}/comparison?{query}")).status_code == 422, query
        other = installation.services["router"].database
        async with other.begin("elsewhere") as tx:
            assert await tx.connection.fetchval("SELECT count(*) FROM comparison_sum") == 0


async def test_a_verdict_then_a_promotion_with_the_split_as_evidence(installation: Installation) -> None:
    async with installation.client("router", await start(installation)) as client:
        await begin(installation, client)
        rows = split_by_weights(await group_now(installation), 3_000, {1: 0.75, 2: 0.85}, 1)
        await arrive(installation, [(outcome, str(int((outcome.score or 0) >= 0.5))) for outcome, _ in rows])
        await label(client, [(outcome.request_id, truth) for outcome, truth in rows])

        async def look() -> Any:
            return (await client.get(f"{AT}/comparison?guard=error_rate:0.05&guard=latency:0.2")).json()

        view = await eventually(look, lambda one: one["verdicts"][0]["kind"] == "better")
        (verdict,) = view["verdicts"]
        print(verdict["sentence"])
        assert verdict["primary"]["metric"] == "accuracy" and 0.05 < verdict["primary"]["value"] < 0.15
        assert verdict["primary"]["low"] > 0 and {guard["standing"] for guard in verdict["guards"]} == {"held"}
        assert view["sample_ratio"]["p"] > 0.001 and not view["sample_ratio"]["mismatch"]
        body = {"asset": named(TWO), "expected_revision": 2}
        promoted = await client.post(f"{AT}:promote", json=body)
        assert promoted.status_code == 200, promoted.text
        assert promoted.json()["evidence"]["sample_ratio"]["forced"] is False


async def test_a_broken_split_blocks_promotion_unless_forced_with_a_reason(installation: Installation) -> None:
    async with installation.client("router", await start(installation)) as client:
        await begin(installation, client)
        await arrive(installation, [row(TWO if n % 3 else ONE, n, revision=2) for n in range(2_000)])
        view = (await client.get(f"{AT}/comparison")).json()
        assert view["sample_ratio"]["mismatch"] and view["verdicts"][0]["kind"] == "mismatch"
        print(view["verdicts"][0]["sentence"])
        body = {"asset": named(TWO), "expected_revision": 2}
        refused = await client.post(f"{AT}:promote", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "sample-ratio-mismatch")
        silent = await client.post(f"{AT}:promote", json={**body, "force": True, "reason": " "})
        assert (silent.status_code, silent.json()["code"]) == (422, "force-needs-reason")
        forced = await client.post(f"{AT}:promote", json={**body, "force": True, "reason": "a load test, known"})
        assert forced.status_code == 200, forced.text
        said = forced.json()["evidence"]["sample_ratio"]
        assert said["forced"] and said["mismatch"] and forced.json()["why"] == "a load test, known"


async def test_the_stream_moves_with_the_traffic(installation: Installation) -> None:
    key = await start(installation)
    async with installation.client("router", key) as client:
        await begin(installation, client)
    headers = {"authorization": f"Bearer {key}"}
    async with (
        served(installation, "router") as url,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as client,
    ):
        unknown = await client.get("/router/v1/groups/nope/comparison/stream")
        assert unknown.status_code == 404
        async with client.stream("GET", f"{AT}/comparison/stream") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            assert (await data(lines))["n"] == 0
            delays = []
            for count in range(1, 4):
                await arrive(installation, [row(ONE, count, revision=2)])
                began = time.monotonic()
                while (await data(lines))["n"] < count:
                    pass
                delays.append(time.monotonic() - began)
            print(f"from commit to event: {', '.join(f'{one:.2f}' for one in delays)} s")


async def data(lines: Any) -> dict[str, Any]:
    async for line in lines:
        if line.startswith("data: "):
            return dict(json.loads(line.removeprefix("data: ")))
    raise AssertionError("the stream ended")


async def until(client: httpx.AsyncClient, done: Any, what: str) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        return dict((await client.get(f"{AT}/ramp")).json())

    return await eventually(look, done, what=what)


ANALYSIS = {"metric": "accuracy", "success": {"min": -0.02}, "interval": "1s", "count": 2}


async def traffic(
    installation: Installation, client: httpx.AsyncClient, count: int, accuracy: dict[int, float], seed: int
) -> None:
    rows = split_by_weights(await group_now(installation), count, accuracy, seed)
    await arrive(installation, [(outcome, str(int((outcome.score or 0) >= 0.5))) for outcome, _ in rows])
    await label(client, [(outcome.request_id, truth) for outcome, truth in rows])


async def test_a_ramp_goes_up_is_analysed_promotes_and_is_watched(installation: Installation) -> None:
    async with installation.client("router", await start(installation, ramp_poll_s=0.2)) as client:
        await begin(installation, client, None)
        plan = {
            "challenger": named(TWO),
            "steps": [
                {"setMirrorRoute": {"percentage": 20}}, {"setWeight": 10}, {"pause": {}}, {"setWeight": 50},
                {"analysis": ANALYSIS}, {"pause": {"duration": "1s"}},
            ],
            "watch": {"duration": "2s", "analyses": [{"metric": "error_rate", "success": {"max": 0.2}, "interval": 1}]},
        }  # fmt: skip
        started = await client.post(f"{AT}/ramp", json={"plan": plan, "reason": "version 2", "expected_revision": 1})
        assert started.status_code == 201, started.text
        again = await client.post(f"{AT}/ramp", json={"plan": plan})
        assert (again.status_code, again.json()["code"]) == (409, "ramp-running")

        waiting = await until(client, lambda one: one["phase"] == "paused", "the pause")
        assert (waiting["why"], waiting["weight_bp"], waiting["mirror_bp"]) == ("step", 1_000, 2_000)
        group = (await client.get(AT)).json()
        assert [(arm["role"], arm["weight_bp"]) for arm in group["arms"]] == [
            ("champion", 9_000), ("challenger", 1_000), ("shadow", 2_000)
        ]  # fmt: skip
        assert (await client.post(f"{AT}/ramp:resume", json={})).status_code == 200
        await until(client, lambda one: one["step"] == 4, "half of the traffic")
        await traffic(installation, client, 2_500, {1: 0.7, 2: 0.9}, 3)
        promoted = await until(client, lambda one: one["promoted_revision"], "the promotion")
        await traffic(installation, client, 300, {1: 0.7, 2: 0.9}, 4)
        done = await until(client, lambda one: one["phase"] == "completed", "the end of the watch")
        print("ramp:", [entry["what"] for entry in reversed(done["log"])])
        group = (await client.get(AT)).json()
        assert group["champion"]["version"] == 2 and [arm["role"] for arm in group["arms"]] == ["champion"]
        assert group["revision"] == promoted["promoted_revision"] and group["who"] == "user:rita"
        assert group["evidence"]["sample_ratio"]["mismatch"] is False
        measured = [entry["details"] for entry in done["log"] if entry["what"] == "measured"]
        assert any(one["metric"] == "accuracy" and one["outcome"] == "successful" for one in measured)
        assert (await client.post(f"{AT}/ramp:abort", json={})).json()["code"] == "no-ramp"


async def test_a_bad_challenger_is_taken_back_and_a_bad_promotion_too(installation: Installation) -> None:
    async with installation.client("router", await start(installation, ramp_poll_s=0.2)) as client:
        await begin(installation, client, None)
        plan = {"challenger": named(TWO), "steps": [{"setWeight": 50}, {"analysis": {**ANALYSIS, "interval": 1}}]}
        assert (await client.post(f"{AT}/ramp", json={"plan": plan})).status_code == 201
        await until(client, lambda one: one["step"] == 1, "half of the traffic")
        await traffic(installation, client, 2_000, {1: 0.9, 2: 0.6}, 5)
        failed = await until(client, lambda one: one["phase"] == "rolled_back", "the rollback")
        reason = next(entry["details"]["reason"] for entry in failed["log"] if entry["what"] == "taken back")
        assert "accuracy" in reason
        assert [arm["weight_bp"] for arm in (await client.get(AT)).json()["arms"]] == [10_000]

        watch = {"duration": "60s", "analyses": [{"metric": "accuracy", "success": {"min": -0.05}, "interval": 1}]}
        plan = {"challenger": named(TWO), "steps": [{"setWeight": 50}, {"pause": {"duration": "2s"}}], "watch": watch}
        assert (await client.post(f"{AT}/ramp", json={"plan": plan})).status_code == 201
        await until(client, lambda one: one["step"] == 1, "half of the traffic")
        await traffic(installation, client, 1_000, {1: 0.9, 2: 0.9}, 6)
        await until(client, lambda one: one["phase"] == "watching", "the promotion")
        assert (await client.get(AT)).json()["champion"]["version"] == 2
        await traffic(installation, client, 1_000, {1: 0.9, 2: 0.5}, 7)
        began = time.monotonic()
        await until(client, lambda one: one["phase"] == "rolled_back", "the rollback of the promotion")
        print(f"a bad promotion was rolled back {time.monotonic() - began:.1f} s after its labels came")
        group = (await client.get(AT)).json()
        assert (group["change"], group["champion"]["version"]) == ("rolled_back", 1)


async def test_people_pause_abort_and_get_in_the_way(installation: Installation) -> None:
    async with installation.client("router", await start(installation, ramp_poll_s=0.2)) as client:
        await begin(installation, client, None)
        assert (await client.get(f"{AT}/ramp")).json()["code"] == "no-ramp"
        plan = {"challenger": named(TWO), "steps": [{"setWeight": 10}, {"pause": {"duration": "1h"}}]}
        stale = await client.post(f"{AT}/ramp", json={"plan": plan}, headers={"if-match": '"9"'})
        assert (stale.status_code, stale.json()["code"]) == (409, "revision-conflict")
        unknown = {"challenger": named(asset(77)), "steps": [{"setWeight": 10}]}
        assert (await client.post(f"{AT}/ramp", json={"plan": unknown})).json()["code"] == "not-deployed"
        odd = {"challenger": named(TWO), "steps": [{"setWeight": 10, "pause": {}}]}
        assert (await client.post(f"{AT}/ramp", json={"plan": odd})).status_code == 422
        assert (await client.post(f"{AT}/ramp", json={"plan": plan})).status_code == 201
        await until(client, lambda one: one["step"] == 1, "10 %")
        assert (await client.post(f"{AT}/ramp:pause", json={})).json()["why"] == "person"
        assert (await client.post(f"{AT}/ramp:pause", json={})).json()["code"] == "ramp-refused"
        assert (await client.post(f"{AT}/ramp:resume", json={})).json()["phase"] == "running"
        weights = {"challengers": [{"asset": named(TWO), "weight_bp": 1}], "expected_revision": 2}
        assert (await client.put(f"{AT}/challengers", json=weights)).status_code == 200
        database = installation.services["router"].database
        async with database.begin("default") as tx:  # as if its hour were over
            await tx.connection.execute("UPDATE ramp SET next_at = now()")
        changed = await until(client, lambda one: one["phase"] == "paused", "the other's change to be seen")
        assert changed["why"] == "changed"
        aborted = (await client.post(f"{AT}/ramp:abort", json={"reason": "no"})).json()
        assert aborted["phase"] == "aborted"
        assert [arm["weight_bp"] for arm in (await client.get(AT)).json()["arms"]] == [10_000]


async def test_a_bandit_moves_the_traffic_to_what_earns_more(installation: Installation) -> None:
    async with installation.client("router", await start(installation, ramp_poll_s=0.2)) as client:
        await begin(installation, client, None)
        plan = {"kind": "bandit", "challengers": [named(TWO)], "metric": "accuracy", "floor": 5, "interval": 1}
        started = await client.post(f"{AT}/ramp", json={"plan": plan})
        assert started.status_code == 201, started.text

        async def share() -> int:
            arms = (await client.get(AT)).json()["arms"]
            return int(arms[-1]["weight_bp"]) if len(arms) > 1 else 0

        await eventually(share, lambda weight: weight == 5_000, what="even weights while nothing is known")
        await traffic(installation, client, 800, {1: 0.6, 2: 0.9}, 8)
        await eventually(share, lambda weight: weight == 9_500, what="all but the champion's floor")
        assert (await client.post(f"{AT}/ramp:abort", json={})).json()["phase"] == "aborted"
        assert await share() == 9_500


async def test_a_ramp_is_one_workers_until_its_lease_runs_out(installation: Installation) -> None:
    async with installation.client("router", await start(installation, ramp_poll_s=3600.0)) as client:
        await begin(installation, client, None)
        plan = {"challenger": named(TWO), "steps": [{"setWeight": 10}, {"pause": {"duration": "1h"}}]}
        assert (await client.post(f"{AT}/ramp", json={"plan": plan})).status_code == 201
        ramps = next(one for one in installation.services["router"].workers if isinstance(one, RampDriver)).ramps
        owners = [uuid4() for _ in range(8)]
        claims = await asyncio.gather(*(ramps.claim(owner) for owner in owners))
        ((dead, claim),) = [(owner, found[0]) for owner, found in zip(owners, claims, strict=True) if found]
        assert await ramps.claim(uuid4()) == []  # its worker was killed here; nobody else has it yet
        database = installation.services["router"].database
        async with database.begin("default") as tx:  # as if 30 s had passed
            await tx.connection.execute("UPDATE ramp SET lease_until = now() - interval '1 s'")
        heir = uuid4()
        assert await ramps.claim(heir) == [claim]
        await asyncio.gather(*(ramps.step(*claim, owner) for owner in (dead, heir, heir)))
        told = (await client.get(f"{AT}/ramp")).json()
        assert [entry["what"] for entry in told["log"]] == ["weighted", "started"]
        assert (await client.get(AT)).json()["revision"] == 2


async def test_two_drivers_and_comparers_do_everything_once(installation: Installation) -> None:
    async with installation.client("router", await start(installation)) as client:
        await begin(installation, client)
        database = installation.services["router"].database
        others = [Comparer(database, LEDGER, utc_now, 0.01) for _ in range(3)]
        running = [asyncio.create_task(other.run()) for other in others]
        rows = [row(ONE if n % 2 else TWO, n, revision=2) for n in range(400)]
        await asyncio.gather(*(arrive(installation, rows[at : at + 20]) for at in range(0, 400, 20)))
        await asyncio.gather(
            *(
                label(client, [(one.request_id, n % 2) for one, _ in rows[at : at + 50]])
                for n, at in enumerate(range(0, 400, 50))
            ),
            *(label(client, [(one.request_id, 1) for one, _ in rows[at : at + 50]]) for at in range(0, 400, 50)),
        )
        await until_labelled(client, ONE, 200)
        await until_labelled(client, TWO, 200)
        await asyncio.sleep(1)
        assert (await seen(client, ONE))["n"] == (await seen(client, TWO))["n"] == 200
        comparisons = Comparisons(database, Store(load("services.router")), LEDGER, utc_now)
        found = await comparisons.view("default", "live", Question())
        assert found.n == 400 and found.group.champion == Version(ONE.urn, ONE.version, ONE.digest)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_ten_thousand_labels_at_once(installation: Installation) -> None:
    async with installation.client("router", await start(installation)) as client:
        await begin(installation, client)
        rows = [row(ONE if n % 2 else TWO, n, revision=2, score=(n % 100) / 100) for n in range(10_000)]
        await arrive(installation, rows)
        began = time.monotonic()
        await label(client, [(one.request_id, n % 2) for n, (one, _) in enumerate(rows)])
        given = time.monotonic()
        await until_labelled(client, ONE, 5_000)
        print(f"10,000 labels: taken in {given - began:.2f} s, all joined {time.monotonic() - given:.2f} s later")
