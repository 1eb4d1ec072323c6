"""Champion, challenger and shadow with the official clients: shadows have rows of their own, and nobody waits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import asyncpg
import httpx
import openai
import orjson
import pytest

from services.router.domain import Group, Shadow, mirror, weigh
from services.router.gateway.testing.recorded import GREETING
from shared.testing.installation import eventually

from .test_clients import HELLO, Clients, clients, provider_timeout_s
from .world import World, a_version, hosted

__all__ = ["clients", "provider_timeout_s"]


async def all_rows(world: World, name: str, count: int) -> list[asyncpg.Record]:
    return await eventually(lambda: world.rows(name), lambda rows: len(rows) == count, what="the rows")


async def shadowed(clients: Clients, name: str, shadow: str, **more: Any) -> Group:
    """Champion at OpenAI's, a challenger at Anthropic's with 40 %, and a shadow that behaves so."""
    one, two, three = (a_version(number, name) for number in (1, 2, 3))
    all_of_them = (
        hosted(one, await clients.provider("openai", "greeting"), "model-of-one"),
        hosted(two, await clients.provider("anthropic", "greeting"), "model-of-two"),
        hosted(three, await clients.provider("gemini", shadow), "model-of-three", **more),
    )
    group = await clients.world.make_group(name, one, hosted=all_of_them)
    group = await clients.world.move(weigh(group, [(two, 4000)], expected_revision=1), "weighted")
    group = await clients.world.move(mirror(group, [Shadow(three, 10_000)], expected_revision=2), "mirrored")
    await clients.world.until_served(group)
    return group


async def test_champion_challenger_and_shadow_share_the_conversations(clients: Clients, name: str) -> None:
    await shadowed(clients, name, "greeting")
    served = []
    for number in range(10):
        headers = {"x-mintmark-unit": f"user-{number}"}
        raw = await clients.openai.chat.completions.with_raw_response.create(
            model=name, messages=HELLO, extra_headers=headers
        )
        assert raw.parse().choices[0].message.content == GREETING
        served.append((raw.headers["x-mintmark-request-id"], raw.headers["x-mintmark-version"]))
    async with clients.anthropic.messages.stream(model=name, max_tokens=50, messages=HELLO) as stream:
        assert (await stream.get_final_message()).content[0].text == GREETING  # type: ignore[union-attr]
    rows = await all_rows(clients.world, name, 22)
    own = {str(row["request_id"]): row for row in rows if row["shadow_of"] is None}
    shadows = [row for row in rows if row["shadow_of"] is not None]
    assert len(own) == len(shadows) == 11
    assert {version[-2:] for _, version in served} == {"@1", "@2"}
    for shadow in shadows:
        of = own[str(shadow["shadow_of"])]
        assert (shadow["arm"], shadow["version"], shadow["status"]) == ("shadow", 3, 200)
        assert (shadow["unit"], shadow["protocol"], shadow["input"]) == (of["unit"], of["protocol"], of["input"])
        assert shadow["request_id"] != of["request_id"] and "from the" in shadow["output"]
        assert shadow["input_tokens"] and of["input_tokens"], "each row has what it cost itself"
    noted = "SELECT unnest(request_ids) FROM comparison_shadowed WHERE group_name = $1"
    assert {str(one[0]) for one in await clients.world.db.fetch(noted, name)} == own.keys(), "words find their shadows"
    assert b"mintmark_gateway_shadows_total" in (await clients.world.http.get("/metrics")).content


@pytest.mark.parametrize("behaviour", ["status-500", "lies", "stall-early"])
async def test_a_shadow_that_fails_is_a_row_and_nobody_elses_trouble(
    clients: Clients, name: str, behaviour: str
) -> None:
    await shadowed(clients, name, behaviour)
    said = await clients.openai.chat.completions.create(model=name, messages=HELLO)
    assert said.choices[0].message.content == GREETING
    rows = await all_rows(clients.world, name, 2)
    by_arm = {row["arm"] == "shadow": row for row in rows}
    assert (by_arm[False]["status"], by_arm[False]["error_code"]) == (200, None)
    assert by_arm[True]["status"] in (502, 504) and by_arm[True]["error_code"]
    assert by_arm[False]["latency_ms"] < by_arm[True]["latency_ms"] or behaviour != "stall-early"


async def test_beyond_their_number_shadows_are_dropped_and_counted(clients: Clients, name: str) -> None:
    group = await shadowed(clients, name, "stall-early")
    await clients.world.configure(group, "routing", {"shadows": {"in_flight": 1}})
    for _ in range(4):
        await clients.openai.chat.completions.create(model=name, messages=HELLO)
    rows = await all_rows(clients.world, name, 5)
    assert sum(row["shadow_of"] is not None for row in rows) == 1
    metrics = (await clients.world.http.get("/metrics")).text
    assert f'mintmark_gateway_shadows_dropped_total{{group="{name}"}} 3.0' in metrics


async def test_a_shadow_without_a_verified_approval_is_sent_nothing(clients: Clients, name: str) -> None:
    await shadowed(clients, name, "greeting", approved=replace(a_version(3, name), version=7))
    await clients.openai.chat.completions.create(model=name, messages=HELLO)
    rows = await clients.world.rows(name)
    assert [row["shadow_of"] for row in rows] == [None]
    assert all(orjson.loads(one.body).get("model") != "model-of-three" for one in clients.stub.seen)


async def test_a_refused_request_is_sent_to_nobody(clients: Clients, name: str) -> None:
    await shadowed(clients, name, "greeting")
    unspeakable: Any = [{"role": "user", "content": "\x00"}]
    with pytest.raises(openai.BadRequestError):
        await clients.openai.chat.completions.create(model=name, messages=unspeakable)
    assert [(row["status"], row["attempts"]) for row in await clients.world.rows(name)] == [(400, 0)]
    assert clients.stub.seen == []


FAILOVER: dict[str, Any] = {"failover": [{"name": "eu-west-1", "targets": [{"provider": "anthropic-greeting"}]}]}


@pytest.mark.parametrize("behaviour", ["cut-early", "stall-early", "status-503", "status-529"])
async def test_a_conversation_that_fails_before_its_first_token_is_translated_anew_for_another_provider(
    clients: Clients, name: str, behaviour: str
) -> None:
    group = await clients.group(name, "openai", behaviour)
    provider = await clients.provider("anthropic", "greeting")
    settings = {"failover": [{"name": "eu-west-1", "targets": [{"provider": provider, "model": "claude"}]}]}
    attempt_s = 2 if behaviour == "stall-early" else 20
    await clients.world.configure(group, "routing", {**settings, "timeouts": {"attempt_s": attempt_s}})
    async with clients.openai.chat.completions.stream(model=name, messages=HELLO) as chat:
        assert (await chat.get_final_completion()).choices[0].message.content == GREETING
    row = await clients.last_row(name)
    assert (row["status"], row["error_code"], row["attempts"]) == (200, None, 2)
    tags = orjson.loads(row["tags"])
    assert [one["outcome"] for one in tags["attempts"]][1] == "ok"
    assert tags["attempts"][1]["via"] == f"{provider}/claude"
    assert orjson.loads(clients.stub.seen[-1].body)["model"] == "claude"


@pytest.mark.parametrize("behaviour", ["cut-late", "lies-late"])
async def test_a_conversation_that_breaks_later_ends_with_an_error_and_is_not_asked_again(
    clients: Clients, name: str, behaviour: str
) -> None:
    group = await clients.group(name, "openai", behaviour)
    await clients.provider("anthropic", "greeting")
    await clients.world.configure(group, "routing", FAILOVER)
    with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
        async for _ in await clients.openai.chat.completions.create(model=name, messages=HELLO, stream=True):
            pass
    row = await clients.last_row(name)
    assert (row["status"], row["attempts"]) == (502, 1)
    assert "Hello" in row["output"]
