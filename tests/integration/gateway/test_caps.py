"""Caps at the edge: budgets that 200 parallel calls over two gateways cannot overspend, limits, prices and classes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import openai
import orjson
import pytest

from services.router.gateway.testing.recorded import GREETING, INPUT, OUTPUT
from services.router.gateway.testing.stub import Exchange as Stubbed
from services.router.gateway.testing.stub import served
from services.router.group_settings.caps import Caps
from shared.testing.installation import eventually

from .stub import StubServer
from .test_clients import HELLO, KEY, Clients, clients, provider_timeout_s
from .told import emitted, tell
from .world import Postgres, World, a_version, a_world, hosted

__all__ = ["clients", "provider_timeout_s"]  # fixtures


def a_price(urn: str, **parts: str) -> dict[str, Any]:
    return {"urn": urn, **parts}


def budget(usd: str, **more: Any) -> dict[str, Any]:
    return {"scope": "group", "usd": usd, "period": "month", **more}


async def test_two_gateways_and_two_hundred_calls_at_once_never_overspend_a_budget(
    postgres: Postgres, db: asyncpg.Connection, stub: StubServer, keys: dict[str, str], tmp_path: Path, name: str
) -> None:
    async with AsyncExitStack() as stack:
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "keys.json").write_bytes((tmp_path / "keys.json").read_bytes())
        one = await stack.enter_async_context(a_world(postgres, db, stub, keys, tmp_path / "one"))
        version = await one.deploy(a_version(1))
        group = await one.make_group(name, version)
        caps = {"prices": [a_price(version.urn, per_request="0.01")], "budgets": [budget("1.00")]}
        group = await tell(one, group, caps=caps)
        two = await stack.enter_async_context(a_world(postgres, db, stub, keys, tmp_path / "two"))
        await two.until_served(group)

        answers = await asyncio.gather(*((one if n % 2 else two).infer(name) for n in range(200)))
        passed = [answer for answer in answers if answer.status_code == 200]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert 80 <= len(passed) <= 100  # what a gateway leased and did not spend yet is refused at the other one
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["code"] == "budget-exceeded"
        assert int(refused.headers["retry-after"]) > 0

        async def until_refused(world: World) -> httpx.Response:
            while (answer := await world.infer(name)).status_code == 200:
                passed.append(answer)
            return answer

        # What the gateways hold is given back where nobody needs it, and then spent to the last cent and no further.
        for world in (one, two):
            await world.gateway.protection.lessor._return(world.gateway.protection.allowances.all_free())
        await eventually(lambda: until_refused(one), lambda _: len(passed) == 100)
        rows = [*await one.rows(name), *await two.rows(name)]
        unique = {row["request_id"]: row for row in rows}.values()
        assert sum((row["cost_usd"] or Decimal(0) for row in unique), Decimal(0)) == Decimal("1.00")
        assert {row["error_code"] for row in unique if row["status"] == 429} == {"budget-exceeded"}
        (event,) = await emitted(db, "budget.exceeded", f"mm:budget/group/{name}")
        assert (event["cap"], event["group"]) == ("1", name)


async def test_a_budget_holds_over_a_restart(
    postgres: Postgres, db: asyncpg.Connection, stub: StubServer, keys: dict[str, str], tmp_path: Path, name: str
) -> None:
    async with a_world(postgres, db, stub, keys, tmp_path) as world:
        version = await world.deploy(a_version(1))
        caps = {"prices": [a_price(version.urn, per_request="0.01")], "budgets": [budget("0.10")]}
        group = await tell(world, await world.make_group(name, version), caps=caps)
        for _ in range(6):
            assert (await world.infer(name)).status_code == 200
    async with a_world(postgres, db, stub, keys, tmp_path) as world:
        await world.until_served(group)
        statuses = [(await world.infer(name)).status_code for _ in range(6)]
    assert statuses == [200] * 4 + [429] * 2


async def test_an_answer_is_reserved_at_its_most_and_settled_at_its_cost(clients: Clients, name: str) -> None:
    world = clients.world
    version = a_version(1, f"v-{name}")
    await world.provide(
        name, {"kind": "openai", "base_url": f"{clients.at}/openai/greeting",
               "prices": {"upstream-model": {"input_per_million": "1", "output_per_million": "2"}}}, KEY,
    )  # fmt: skip
    group = await world.make_group(name, version, hosted=(hosted(version, name),))
    cost = (INPUT + 2 * OUTPUT) * Decimal("0.000001")
    await tell(world, group, caps={"budgets": [budget("0.01", period="day")]})
    await clients.openai.chat.completions.create(model=name, messages=HELLO, max_tokens=100)
    assert (await clients.last_row(name))["cost_usd"] == cost
    with pytest.raises(openai.RateLimitError) as refused:  # it might cost more than there is
        await clients.openai.chat.completions.create(model=name, messages=HELLO, max_tokens=6000)
    assert refused.value.code == "budget-exceeded"
    for _ in range(20):  # together they would have reserved far more than they cost
        await clients.openai.chat.completions.create(model=name, messages=HELLO, max_tokens=2000)
    await world.gateway.protection.lessor._return(world.gateway.protection.allowances.all_free())
    taken = await world.db.fetchval("SELECT taken FROM cap_counter WHERE scope = $1", f"group/{name}")
    assert taken == cost * 21 * 10**12


async def test_without_a_price_nothing_is_known_and_a_budget_refuses(world: World, name: str) -> None:
    version = await world.deploy(a_version(1))
    group = await world.make_group(name, version)
    assert (await world.infer(name)).status_code == 200
    group = await tell(world, group, caps={"budgets": [budget("1")]})
    answer = await world.infer(name)
    assert (answer.status_code, answer.json()["code"]) == (422, "price-unknown")
    await tell(world, group, caps={"budgets": [budget("1")], "when_price_unknown": "continue"})
    assert (await world.infer(name)).status_code == 200
    assert [row["cost_usd"] for row in await world.rows(name)] == [None, None, None]


async def test_a_rate_limit_is_of_each_caller_and_says_when_to_try_again(clients: Clients, name: str) -> None:
    world = clients.world
    limit = {"scope": "key", "unit": "requests", "most": 5, "window_s": 86_400}
    await tell(world, await clients.group(name), caps={"limits": [limit]})
    for _ in range(5):
        await clients.openai.chat.completions.create(model=name, messages=HELLO)
    with pytest.raises(openai.RateLimitError) as refused:
        await clients.openai.chat.completions.create(model=name, messages=HELLO)
    assert refused.value.code == "rate-limited"
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 86_400
    row = await clients.last_row(name)
    assert (row["status"], row["error_code"], row["attempts"]) == (429, "rate-limited", 0)
    assert await emitted(world.db, "budget.exceeded", f"mm:budget/group/{name}") == []


async def test_tokens_are_limited_by_what_answers_took(clients: Clients, name: str) -> None:
    limit = {"scope": "group", "unit": "tokens", "most": 1000, "window_s": 86_400}
    await tell(clients.world, await clients.group(name), caps={"limits": [limit]})
    answered = 0
    with pytest.raises(openai.RateLimitError):
        while True:
            await clients.openai.chat.completions.create(model=name, messages=HELLO, max_tokens=100)
            answered += 1
    assert answered * (INPUT + OUTPUT) <= 1000
    assert answered > 3  # and not by what they might have taken, which is some 200 each


@pytest.mark.parametrize(("choice", "status"), [("refuse", 503), ("continue", 200)])
async def test_while_postgres_is_away_a_gateway_spends_its_share_and_then_does_as_the_cap_says(
    world: World, name: str, choice: str, status: int, postgres: Postgres
) -> None:
    version = await world.deploy(a_version(1))
    caps = {
        "prices": [a_price(version.urn, per_request="0.01")],
        "budgets": [budget("1.00", when_unreachable=choice)],
    }
    await tell(world, await world.make_group(name, version), caps=caps)
    assert (await world.infer(name)).status_code == 200
    (one,) = [
        one for one in world.gateway.protection.allowances._found.values() if one.counter.scope == f"group/{name}"
    ]
    share = one.free // 10**10
    assert share >= 1
    postgres.cluster.stop("immediate")
    try:
        for _ in range(share):
            assert (await world.infer(name)).status_code == 200
        answer = await world.infer(name)
        assert answer.status_code == status
        if status == 503:
            assert answer.json()["code"] == "caps-unavailable"
    finally:
        await postgres.restart()


async def test_classes_decide_who_may_call(world: World, name: str) -> None:
    version = await world.deploy(a_version(1))
    group = await world.make_group(name, version)
    await classify(world, version.urn, "high", "medium")
    group = await tell(world, group, caps={"access": [{"risk": ["high"], "roles": ["analyst"]}]})
    answer = await world.infer(name)
    assert (answer.status_code, answer.json()["code"]) == (403, "class-refused")
    group = await tell(world, group, caps={"access": [{"risk": ["high"], "callers": ["user:caller"]}]})
    assert (await world.infer(name)).status_code == 200
    await classify(world, version.urn, "prohibited", "medium")
    await eventually(lambda: world.infer(name), lambda answer: answer.status_code == 403)
    rows = await world.rows(name)
    assert {(row["status"], row["error_code"]) for row in rows} == {(403, "class-refused"), (200, None)}


async def test_two_groups_of_one_cost_class_share_its_budget(world: World, name: str) -> None:
    names = [f"{name}-a", f"{name}-b"]
    for each in names:
        version = await world.deploy(a_version(1))
        await classify(world, version.urn, "minimal", "high")
        caps = {
            "prices": [a_price(version.urn, per_request="0.01")],
            "budgets": [{"scope": "class", "usd": "0.06", "period": "month"}],
        }
        await tell(world, await world.make_group(each, version), caps=caps)
    statuses = [(await world.infer(each)).status_code for _ in range(5) for each in names]
    assert statuses == [200] * 6 + [429] * 4


async def classify(world: World, urn: str, risk: str, cost: str) -> None:
    await world.db.execute(
        "INSERT INTO asset_class (workspace, urn, risk, cost, who, why) VALUES ('default', $1, $2, $3, 'user:bea', '') "
        "ON CONFLICT (workspace, urn) DO UPDATE SET risk = $2, cost = $3, changed_at = clock_timestamp()",
        urn, risk, cost,
    )  # fmt: skip


def test_the_defaults_cap_nothing() -> None:
    assert Caps() == Caps.model_validate(orjson.loads(Caps().model_dump_json()))
    assert (Caps().limits, Caps().budgets, Caps().access) == ((), (), ())


async def test_what_attempts_in_vain_told_of_their_tokens_is_paid_for_too(clients: Clients, name: str) -> None:
    """A provider that counts a question's tokens and then breaks off has been paid for them; so has the next."""

    async def break_off(exchange: Stubbed) -> None:
        usage = {"input_tokens": 700, "output_tokens": 0}
        begun = {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "m",
                 "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}}  # fmt: skip
        await exchange.begin(200, b"text/event-stream")
        await exchange.write(b"event: message_start\ndata: " + orjson.dumps(begun) + b"\n\n")

    world, one, two = clients.world, a_version(1, f"v-{name}"), a_version(2, f"v-{name}")
    good = await clients.provider("openai", "greeting")
    async with served(break_off) as port:
        await world.provide(name, {"kind": "anthropic", "base_url": f"http://127.0.0.1:{port}"}, KEY)
        group = await world.make_group(name, one, hosted=(hosted(one, name), hosted(two, good)))
        tier = {"name": "other", "targets": [{"provider": good, "model": "m"}]}
        prices = [a_price(one.urn, version=1, input_per_million="2", output_per_million="10")]
        await tell(world, group, routing={"failover": [tier]}, caps={"prices": prices})
        stream = await clients.openai.chat.completions.create(model=name, messages=HELLO, stream=True)
        said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert said == GREETING
    row = await clients.last_row(name)
    assert (row["status"], row["attempts"], row["input_tokens"], row["output_tokens"]) == (200, 2, INPUT, OUTPUT)
    in_vain, own = Decimal(700 * 2) / 10**6, Decimal(INPUT * 2 + OUTPUT * 10) / 10**6
    assert row["cost_usd"] == in_vain + own
    first, second = orjson.loads(row["tags"])["attempts"]
    assert (first["outcome"], Decimal(first["cost_usd"]), "cost_usd" in second) == ("upstream-cut", in_vain, False)
