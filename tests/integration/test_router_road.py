"""The router's road on a real Kafka and Postgres, with a real gateway process and real models behind it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest
from router_story import ROWS, TRUTH, Traffic, asset, deploy, named, traffic
from sklearn.metrics import roc_auc_score

from shared.events.router import GroupChanged, GroupPromoted, GroupRolledBack, InferenceLogged
from shared.events.upstream import FeedbackReceived
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(120)
GROUP = "live-tumour"
AT = f"/router/v1/groups/{GROUP}"


def version_of(answer: httpx.Response) -> int:
    return int(answer.headers["x-mintmark-version"].rpartition("@")[2])


async def ramp(client: httpx.AsyncClient, challenger: dict[str, Any], weight_bp: int) -> None:
    read = await client.get(AT)
    body = {"challengers": [{"asset": challenger, "weight_bp": weight_bp}], "reason": f"{weight_bp} bp"}
    answer = await client.put(f"{AT}/challengers", json=body, headers={"if-match": read.headers["etag"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["revision"] == read.json()["revision"] + 1


async def through(live: Traffic, rows: range) -> dict[int, httpx.Response]:
    """Each row's answer, eight at a time; every one must be a 200."""
    lanes = asyncio.Semaphore(8)

    async def ask(row: int) -> httpx.Response:
        async with lanes:
            return await live.ask(GROUP, row)

    answers = dict(zip(rows, await asyncio.gather(*map(ask, rows)), strict=True))
    assert {answer.status_code for answer in answers.values()} == {200}
    return answers


async def until_there_are(live: Traffic, versions: int) -> None:
    """Until the gateway knows that so many versions share the group."""

    async def look() -> int:
        return len((await live.http.get(f"/v2/models/{GROUP}")).json()["versions"])

    await eventually(look, lambda count: count == versions, what="the challenger at the gateway")


async def until_some_switch(live: Traffic, rows: list[int]) -> int:
    """Ask with rows of the champion until the challenger answers one of them; returns how often that was."""
    for look in range(1, 10_000):
        if version_of(await live.ask(GROUP, rows[look % len(rows)])) == 2:
            return look
    raise AssertionError("nobody switched to the challenger")


async def test_from_the_first_champion_to_promotion_under_load_and_back(installation: Installation) -> None:
    rita = installation.key("user:rita", "release-manager")
    app = installation.key("app:clinic", "caller")
    await installation.start("router")
    async with installation.client("router", rita) as client, traffic(installation, app) as live:
        one, two = live.load(asset(1), rounds=3), live.load(asset(2), rounds=60)
        await deploy(installation, client, one, two, endpoint=live.server.url)

        # a group with a champion: traffic, and a row an answer
        made = await client.post("/router/v1/groups", json={"name": GROUP, "champion": named(one), "reason": "first"})
        assert (made.status_code, made.headers["etag"]) == (201, '"1"'), made.text
        born = datetime.now(UTC)
        await live.until_group(GROUP)
        first = await through(live, range(200))
        assert {version_of(answer) for answer in first.values()} == {1}

        # 10 %, then 50 %: shares as asked for, and nobody flips back
        await ramp(client, named(two), 1_000)
        await until_there_are(live, 2)
        tenth = await through(live, range(569))
        switched = {row for row, answer in tenth.items() if version_of(answer) == 2}
        assert 0.05 < len(switched) / 569 < 0.16
        await ramp(client, named(two), 5_000)
        looks = await until_some_switch(live, [row for row in tenth if row not in switched][:40])
        half = await through(live, range(569))
        now_two = {row for row, answer in half.items() if version_of(answer) == 2}
        assert 0.42 < len(now_two) / 569 < 0.58
        assert switched < now_two

        # the true labels, and the comparative view as scikit-learn sees it
        truths = [
            {"request_id": answer.headers["x-mintmark-request-id"], "value": int(TRUTH[row])}
            for row, answer in half.items()
        ]
        async with installation.client("router", app) as caller:
            given = await caller.post(f"{AT}/feedback", json=truths)
        assert (given.status_code, given.json()) == (202, {"received": 569, "unmatched": 0})

        async def compared() -> Any:
            answer = await client.get(f"{AT}/comparison")
            assert answer.status_code == 200, answer.text
            return answer.json()

        def is_joined(view: Any) -> bool:
            return sum(figures["labelled"] for figures in view["versions"]) == 569

        view = await eventually(compared, is_joined, what="the labels")
        assert view["n"] == 200 + 569 + looks + 569
        for figures, ref in zip(view["versions"], (one, two), strict=True):
            rows = [row for row, answer in half.items() if version_of(answer) == ref.version]
            scores = live.boosters[ref].predict(ROWS[rows])
            assert (figures["urn"], figures["version"], figures["labelled"]) == (ref.urn, ref.version, len(rows))
            assert abs(figures["auc"] - roc_auc_score(TRUTH[rows], scores)) <= figures["auc_error"] + 1e-9
            assert figures["accuracy"] == pytest.approx(np.mean((scores >= 0.5) == TRUTH[rows]))
            assert 0 < figures["latency_ms_p50"] <= figures["latency_ms_p99"]
        assert [figures["role"] for figures in view["versions"]] == ["champion", "challenger"]

        # promoted and rolled back while traffic runs: nothing fails, all is re-routed, once
        stop, answers = asyncio.Event(), list[tuple[float, int, int]]()

        async def load(lane: int) -> None:
            row = lane
            while not stop.is_set():
                sent = time.monotonic()
                answer = await live.ask(GROUP, row)
                status = answer.status_code
                answers.append((sent, status, version_of(answer) if status == 200 else 0))
                row += 4

        async def answered() -> int:
            return len(answers)

        async def until_all_are(version: int, said: float) -> None:
            """A hundred answers one after the other by this version; prints how long others were still given."""

            async def latest() -> list[int]:
                return [by for sent, _, by in answers if sent > said][-100:]

            await eventually(latest, lambda found: found == [version] * 100, what=f"only answers of {version}")
            others = [sent for sent, _, by in answers if sent > said and by != version]
            print(f"all by version {version} {max(others, default=said) - said:.3f} s after the answer")

        lanes = [asyncio.create_task(load(lane)) for lane in range(4)]
        await eventually(answered, lambda count: count > 100, what="answers under load")
        etag = (await client.get(AT)).headers["etag"]
        before_promotion = datetime.now(UTC)
        body = {"asset": named(two), "reason": "better AUC on live rows"}
        promoted = await client.post(f"{AT}:promote", json=body, headers={"if-match": etag})
        done = time.monotonic()
        assert promoted.status_code == 200, promoted.text
        assert promoted.json()["champion"]["version"] == 2
        assert promoted.json()["evidence"]["champion"]["approver"] == "user:bea"
        await until_all_are(2, done)
        between = datetime.now(UTC)
        back = await client.post(f"{AT}:rollback", json={"reason": "shown to be possible"})
        assert back.status_code == 200, back.text
        await until_all_are(1, time.monotonic())
        stop.set()
        await asyncio.gather(*lanes)
        assert [answer for answer in answers if answer[1] != 200] == []

        # what served at T, in one call each
        for moment, champion in ((born, 1), (before_promotion, 1), (between, 2), (datetime.now(UTC), 1)):
            found = (await client.get(f"{AT}/at", params={"time": moment.isoformat()})).json()
            assert found["champion"]["version"] == champion
        too_early = await client.get(f"{AT}/at", params={"time": "2020-01-01T00:00:00Z"})
        assert (too_early.status_code, too_early.json()["code"]) == (404, "not-found")
        changes = [entry["change"] for entry in (await client.get(f"{AT}/history")).json()]
        assert changes == ["created", "weighted", "weighted", "promoted", "rolled_back"]

        await one_row_tells_all(client, live, next(iter(sorted(now_two))), half)
        await pages_meet_without_gap_or_overlap(client)

        # what was said
        total = 200 + 569 + looks + 569 + len(answers)
        await every_row_is_said_once(installation, total)
        changed = await installation.events(GroupChanged)
        assert [event.revision for event in changed] == [1, 2, 3, 4, 5]
        assert [arm.weight_bp for arm in changed[2].arms] == [5_000, 5_000]
        (promotion,) = await installation.events(GroupPromoted)
        assert (promotion.before, promotion.after, promotion.actor.id) == (one, two, "user:rita")
        (rollback,) = await installation.events(GroupRolledBack)
        assert (rollback.before, rollback.after, rollback.revision) == (two, one, 5)
        assert len(await installation.events(FeedbackReceived)) == 569


async def one_row_tells_all(
    client: httpx.AsyncClient, live: Traffic, row: int, answers: dict[int, httpx.Response]
) -> None:
    """Input, score, SHAP values that add up, the label that came later, and why it went where it went."""
    request_id = answers[row].headers["x-mintmark-request-id"]
    found = (await client.get(f"{AT}/inferences/{request_id}")).json()
    assert [tensor["data"][0] for tensor in found["input"]["inputs"]] == [float(value) for value in ROWS[row]]
    log_odds = np.log(found["score"] / (1 - found["score"]))
    assert found["shap"]["base"][0] + sum(found["shap"]["values"][0]) == pytest.approx(log_odds, abs=1e-6)
    assert (found["version"], found["revision"], found["unit"]) == (2, 3, f"patient-{row}")
    assert [(said["metric"], said["label"]) for said in found["feedback"]] == [("label", str(TRUTH[row]))]
    why = (await client.get(f"{AT}/inferences/{request_id}/why")).json()
    assert (why["revision"], why["chosen"]["version"], why["served"]["version"]) == (3, 2, 2)
    assert [(arm["role"], arm["weight_bp"]) for arm in why["arms"]] == [("champion", 5_000), ("challenger", 5_000)]
    assert f"bucket {why['bucket']} of 10000 belonged to the challenger" in why["explanation"]


async def pages_meet_without_gap_or_overlap(client: httpx.AsyncClient) -> None:
    seen: list[str] = []
    parameters: dict[str, Any] = {"version": 2, "status": 200, "max_results": 150}
    while True:
        page = (await client.get(f"{AT}/inferences", params=parameters)).json()
        assert {row["version"] for row in page["items"]} == {2}
        seen += [row["request_id"] for row in page["items"]]
        if page["next_page_token"] is None:
            break
        parameters["page_token"] = page["next_page_token"]
    view = (await client.get(f"{AT}/comparison")).json()
    assert len(seen) == len(set(seen)) == view["versions"][1]["n"]
    of_unit = (await client.get(f"{AT}/inferences", params={"unit": "patient-7"})).json()["items"]
    assert {row["unit"] for row in of_unit} == {"patient-7"}


async def every_row_is_said_once(installation: Installation, total: int) -> None:
    async def look() -> list[Any]:
        return [row.request_id for batch in await installation.events(InferenceLogged) for row in batch.rows]

    said = await eventually(look, lambda rows: len(rows) >= total, what="inference.logged")
    assert len(said) == len(set(said)) == total
