"""Model servers that stall, cut and lie: every failure has a code, and is a row too."""

from __future__ import annotations

import asyncio

import pytest

from .stub import GOOD
from .world import World, a_version

FAILURES = {
    "close-always": (502, "upstream-failed"),
    "cut": (502, "upstream-failed"),
    "garbage": (502, "upstream-garbage"),
    "not-json": (502, "upstream-garbage"),
    "teapot": (418, "upstream-418"),
    "broken": (500, "upstream-500"),
}


@pytest.mark.parametrize("model", FAILURES)
async def test_a_model_server_that_fails_is_answered_with_a_code_and_a_row(world: World, name: str, model: str) -> None:
    status, code = FAILURES[model]
    await fails(world, name, model, status, code)


async def test_a_model_server_that_stalls_is_a_504_and_a_row(hasty: World, name: str) -> None:
    await fails(hasty, name, "stall", 504, "upstream-timeout")


async def fails(world: World, name: str, model: str, status: int, code: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), model))
    response = await world.infer(name)
    (row,) = await world.rows(name)
    assert (response.status_code, row["status"], row["error_code"]) == (status, status, code)
    assert str(row["request_id"]) == response.headers["x-mintmark-request-id"]
    assert row["version"] == 5 and row["input"] is not None and row["score"] is None
    if code.startswith("upstream-4") or code.startswith("upstream-5"):
        assert response.content in (b'{"error": "short and stout"}', b"not json either")
    else:
        problem = response.json()
        assert response.headers["content-type"] == "application/problem+json"
        assert (problem["code"], problem["error"]) == (code, problem["detail"])


async def test_a_model_server_that_is_not_there_is_a_502_and_a_row(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), endpoint="http://127.0.0.1:1"))
    assert (await world.infer(name)).status_code == 502
    assert [row["error_code"] for row in await world.rows(name)] == ["upstream-failed"]


@pytest.mark.parametrize("model", ["chunked", "until-close", "early-hints", "impostor"])
async def test_every_way_of_framing_an_answer_is_understood(world: World, name: str, model: str) -> None:
    version = await world.deploy(a_version(5), model)
    await world.make_group(name, version)
    for _ in range(3):
        response = await world.infer(name)
        assert (response.status_code, response.content) == (200, GOOD)
        assert response.headers["x-mintmark-version"] == str(version)
    assert response.headers.get("x-own") == ("kept" if model == "impostor" else None)


async def test_an_answer_sent_twice_never_becomes_the_next_requests(world: World, name: str) -> None:
    await world.make_group(name, await world.deploy(a_version(5), "twice"))
    assert [(await world.infer(name)).content for _ in range(5)] == [GOOD] * 5


async def test_a_kept_connection_closed_under_a_request_is_retried_once_on_a_fresh_one(world: World, name: str) -> None:
    model = f"close-idle.{name}"
    await world.make_group(name, await world.deploy(a_version(5), model))
    assert [(await world.infer(name)).status_code for _ in range(3)] == [200] * 3
    assert world.stub.seen[model] == 5  # 1 answered; 2 closed, 3 answered; 4 closed, 5 answered
    assert len(await world.rows(name)) == 3


async def test_a_timed_out_connection_is_not_used_again(hasty: World, name: str) -> None:
    model = f"slow.{name}"
    hasty.stub.delay_s = 1.3
    await hasty.make_group(name, await hasty.deploy(a_version(5), model))
    assert (await hasty.infer(name)).status_code == 504
    await asyncio.sleep(0.5)
    hasty.stub.delay_s = 0.0
    assert (await hasty.infer(name)).status_code == 200
