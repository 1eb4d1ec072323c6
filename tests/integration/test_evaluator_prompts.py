"""The evaluator measures prompts: every golden row is rendered, asked, compared; what got no answer is no score."""

from __future__ import annotations

import json
from typing import Any

import pytest
from evaluations_story import (
    CHATTY,
    GOLDEN,
    ONE_WORD,
    golden,
    golden_rows,
    oracle,
    registered,
    report_of,
    start,
    wanted,
)
from oracle import Oracle

from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.testing.installation import Installation, eventually

__all__ = ["oracle"]
pytestmark = pytest.mark.timeout(150)


async def test_a_prompt_is_measured_by_what_a_model_makes_of_it(
    installation: Installation, oracle: tuple[Oracle, str]
) -> None:
    model, url = oracle
    rows = golden_rows(150)
    rows[3]["label"] = None
    await start(installation, url, answer_max_tokens=33)
    asset = await registered(installation, CHATTY)
    await golden(installation, rows)
    request = wanted(asset)
    await installation.publish(request, times=2)
    done = await installation.wait_for(EvalCompleted)
    assert (done.evaluation_id, done.asset, done.model) == (request.request_id, asset, "oracle")
    assert (done.rows, done.errors, done.template) == (150, 1, "question-answering")
    exact, f1 = done.measures["exact_match"], done.measures["token_f1"]
    assert (exact.value, exact.low, exact.n) == (0, 0, 149) and 0 < exact.high < 0.05
    assert f1.value == pytest.approx(4 / 9) and f1.low < f1.value < f1.high  # 2 words of 7 said and of 2 expected
    assert done.measures["tokens_per_answer"].value == 7 and not done.measures["tokens_per_answer"].higher_is_better
    assert done.measures["answer_latency_ms.p50"].low > 0
    assert "answer_latency_ms.p99" not in done.measures, "149 answers say nothing of one in a hundred"

    assert len(model.asked) == 149 and model.keys == {b"Bearer mm-key"}
    assert 1 < model.most_at_once <= 16  # 8 a shard, two shards
    body = model.asked[0]
    assert (body["model"], body["temperature"], body["max_tokens"], body["stream"]) == ("oracle", 0, 33, False)
    assert body["messages"][0]["role"] == "user"

    report = await report_of(installation, done)
    assert (report["scored"], report["without_label"], report["unanswered"]) == (149, 1, {})
    assert [shard["stop"] - shard["start"] for shard in report["shards"]] == [50, 50, 50]
    assert report["wrong"]["count"] == 149 and report["wrong"]["rows"][:4] == [1, 2, 3, 5]
    assert report["wrong"]["quoted"] == [], "an internal golden set is not quoted"
    assert "City" not in json.dumps(report)
    async with installation.client("evaluator", installation.key("user:ada", "viewer")) as http:
        shown = (await http.get(f"/evaluator/v1/evaluations/{done.evaluation_id}")).json()
    assert (shown["state"], shown["model"]) == ("done", "oracle")


async def test_wrong_answers_of_a_public_golden_set_are_quoted_and_cut(
    installation: Installation, oracle: tuple[Oracle, str]
) -> None:
    rows = golden_rows(50)
    rows[0]["label"] = "x" * 500
    await start(installation, oracle[1])
    asset = await registered(installation, ONE_WORD)
    await golden(installation, rows, sensitivity="public")
    await installation.publish(wanted(asset, template="classification"))
    done = await installation.wait_for(EvalCompleted)
    assert done.measures["exact_match"].value == 49 / 50 and "token_f1" not in done.measures
    (quoted,) = (await report_of(installation, done))["wrong"]["quoted"]
    assert (quoted["row"], quoted["answer"]) == (1, "City 1.") and len(quoted["expected"]) == 200


async def test_rows_without_an_answer_are_errors_and_patience_is_bounded(
    installation: Installation, oracle: tuple[Oracle, str]
) -> None:
    await start(installation, oracle[1])
    asset = await registered(installation, ONE_WORD)
    await golden(installation, golden_rows(40))
    for model, errors in (("picky", 4), ("busy", 0), ("hiccups", 0), ("curt", 0)):
        request = wanted(asset, model=model)
        await installation.publish(request)
        done = await installation.wait_for(
            EvalCompleted, lambda event, id=request.request_id: event.evaluation_id == id
        )
        assert (done.model, done.rows, done.errors) == (model, 40, errors)
        assert (done.measures["exact_match"].value, done.measures["exact_match"].n) == (1, 40 - errors)
        assert ("tokens_per_answer" in done.measures) == (model != "curt")
        assert (await report_of(installation, done))["unanswered"] == ({"status 400": 4} if errors else {})


async def test_without_a_gateway_or_a_group_it_says_what_to_set(installation: Installation) -> None:
    await start(installation, None)
    asset = await registered(installation, ONE_WORD)
    await golden(installation, golden_rows(3))
    await installation.publish(wanted(asset))
    failed = await installation.wait_for(EvalFailed)
    assert failed.code == "gateway-not-set" and "MINTMARK_EVALUATOR_GATEWAY_URL" in failed.reason
    await installation.services["evaluator"].stop()
    await start(installation, "http://127.0.0.1:9", answers_group=None, most_attempts=1)
    request = wanted(asset)
    await installation.publish(request)
    failed = await installation.wait_for(EvalFailed, lambda event: event.evaluation_id == request.request_id)
    assert failed.code == "gateway-not-set" and "MINTMARK_EVALUATOR_ANSWERS_GROUP" in failed.reason
    named = wanted(asset, model="somebody")
    await installation.publish(named)
    failed = await installation.wait_for(EvalFailed, lambda event: event.evaluation_id == named.request_id)
    assert failed.code == "gateway-unavailable" and "ConnectError" in failed.reason, "nobody is there"


async def test_rows_of_a_workspace_do_not_go_to_the_gateway_of_another(
    installation: Installation, oracle: tuple[Oracle, str]
) -> None:
    await start(installation, oracle[1], gateway_workspace="other")
    asset = await registered(installation, ONE_WORD)
    await golden(installation, golden_rows(3))
    await installation.publish(wanted(asset))
    failed = await installation.wait_for(EvalFailed)
    assert failed.code == "gateway-not-set" and "MINTMARK_EVALUATOR_GATEWAY_WORKSPACE" in failed.reason
    assert oracle[0].asked == []


async def test_a_gateway_that_comes_back_is_asked_again(installation: Installation, oracle: tuple[Oracle, str]) -> None:
    model, url = oracle
    model.is_away = True
    await start(installation, url)
    asset = await registered(installation, ONE_WORD)
    await golden(installation, golden_rows(10))
    await installation.publish(wanted(asset))
    await eventually(lambda: _soon(len(model.asked)), lambda count: count >= 30)
    model.is_away = False
    done = await installation.wait_for(EvalCompleted)
    assert (done.rows, done.errors, done.measures["exact_match"].value) == (10, 0, 1)
    assert await installation.events(EvalFailed) == []


async def _soon(value: Any) -> Any:
    return value


async def test_shards_that_are_done_are_not_asked_again_after_a_crash(
    installation: Installation, oracle: tuple[Oracle, str]
) -> None:
    model, url = oracle
    await start(installation, url, lease_s=1.0, answers_at_once=1)
    asset = await registered(installation, ONE_WORD)
    await golden(installation, golden_rows(600))
    await installation.publish(wanted(asset))
    service = installation.services["evaluator"]

    async def kept() -> int:
        async with service.database.begin("*") as tx:
            return int(await tx.connection.fetchval("SELECT count(*) FROM shard WHERE result IS NOT NULL"))

    await eventually(kept, lambda count: 1 < count < 9)
    await service.stop()
    await start(installation, url, lease_s=1.0)
    done = await installation.wait_for(EvalCompleted)
    assert (done.rows, done.errors, done.measures["exact_match"].n) == (600, 0, 600)
    assert "answer_latency_ms.p99" in done.measures
    assert len(await installation.events(EvalCompleted)) == 1
    assert 600 <= len(model.asked) <= 600 + 2 * 64, "two shards were at work"


async def test_prompts_are_measured_when_somebody_asks_also_over_http(
    installation: Installation, oracle: tuple[Oracle, str]
) -> None:
    key = installation.key("user:ada", "publisher")
    await start(installation, oracle[1])
    await golden(installation, b'question,label\n"Say, in one word:\ncountry 7",City 7\n', format="csv")
    asset = await registered(installation, CHATTY, golden_set=GOLDEN)
    body = {"urn": asset.urn, "version": 1}
    async with installation.client("evaluator", key) as http:

        async def ask(**more: Any) -> Any:
            return await http.post("/evaluator/v1/evaluations", json={**body, **more})

        async def refused() -> str:
            return str((await ask(template="poetry")).json()["code"])

        await eventually(refused, lambda code: code == "template-unknown")
        assert await installation.events(EvalFailed) == [], "registration asks for nothing"
        assert (await ask(model="")).status_code == 422
        made = await ask(model="picky")
        assert made.status_code == 202, made.text
        done = await installation.wait_for(EvalCompleted)
        assert (str(done.evaluation_id), done.model) == (made.json()["id"], "picky")
        assert (done.template, done.measures["exact_match"].value) == ("question-answering", 1)
    assert "\n" in oracle[0].asked[0]["messages"][0]["content"]
