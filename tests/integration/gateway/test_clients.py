"""The official clients of OpenAI and Anthropic: every provider, champion and challenger, and a row for every call."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anthropic
import asyncpg
import httpx
import openai
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.router.domain import Group, Version, weigh
from services.router.gateway.testing.recorded import ANSWERS, ARGUMENTS, GREETING, INPUT, OUTPUT
from services.router.gateway.testing.stub import Stub, served
from shared.testing.installation import eventually

from .stub import StubServer
from .world import Postgres, World, a_version, a_world, hosted

KEY = "sk-very-secret-0123456789"
AWS_KEY = orjson.dumps({"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI-very-secret"}).decode()
KINDS = list(ANSWERS)
HELLO: Any = [{"role": "user", "content": "Hello?"}]
WEATHER: Any = {"type": "object", "properties": {"city": {"type": "string"}}}


@dataclass
class Clients:
    """A gateway, the stub of its providers, and clients as people have them."""

    world: World
    stub: Stub
    at: str
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic

    async def provider(self, kind: str, behaviour: str, key: str = KEY) -> str:
        """The name of a provider of this kind that behaves so."""
        name = f"{kind}-{behaviour}"
        configuration = {
            "kind": kind, "base_url": f"{self.at}/{kind}/{behaviour}", "region": "eu-west-1", "container": "chat",
            "ignore": ["user"],
        }  # fmt: skip
        await self.world.provide(name, configuration, AWS_KEY if kind in ("bedrock", "sagemaker") else key)
        return name

    async def group(self, name: str, kind: str = "openai", behaviour: str = "greeting") -> Group:
        """A group whose champion that provider answers for."""
        version = a_version(1, f"v-{name}")
        return await self.world.make_group(
            name, version, hosted=(hosted(version, await self.provider(kind, behaviour)),)
        )

    async def last_row(self, group: str) -> asyncpg.Record:
        return (await self.world.rows(group))[-1]


@pytest.fixture
def provider_timeout_s(request: pytest.FixtureRequest) -> float:
    """Short where a provider stalls and nowhere else: on a busy machine one that behaves may need a second, too."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    return {"stall-early": 0.8, "stall-late": 2.0}.get(parameters.get("behaviour", ""), 30.0)


@pytest.fixture
async def clients(
    postgres: Postgres, db: asyncpg.Connection, stub: StubServer, keys: dict[str, str], tmp_path: Path,
    provider_timeout_s: float,
) -> AsyncIterator[Clients]:  # fmt: skip
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(
            a_world(postgres, db, stub, keys, tmp_path, provider_timeout_s=provider_timeout_s)
        )
        providers = Stub()
        port = await stack.enter_async_context(served(providers))
        base = str(world.http.base_url).rstrip("/")
        key = keys["caller"]
        one = await stack.enter_async_context(openai.AsyncOpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0))
        two = await stack.enter_async_context(anthropic.AsyncAnthropic(base_url=base, api_key=key, max_retries=0))
        yield Clients(world, providers, f"http://127.0.0.1:{port}", one, two)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_protocol_reaches_every_provider_and_each_call_is_a_row(
    clients: Clients, name: str, kind: str
) -> None:
    group = await clients.group(name, kind)
    said = await clients.openai.chat.completions.create(model=name, messages=HELLO, user="user-7")
    assert said.choices[0].message.content == GREETING
    async with clients.openai.chat.completions.stream(model=name, messages=HELLO) as chat:
        assert (await chat.get_final_completion()).choices[0].message.content == GREETING
    answered = await clients.openai.responses.create(model=name, input="Hello?")
    assert answered.output_text == GREETING
    async with clients.openai.responses.stream(model=name, input="Hello?") as response:
        assert (await response.get_final_response()).output_text == GREETING
    message = await clients.anthropic.messages.create(model=name, max_tokens=50, messages=HELLO)
    assert message.content[0].text == GREETING  # type: ignore[union-attr]
    async with clients.anthropic.messages.stream(model=name, max_tokens=50, messages=HELLO) as stream:
        assert (await stream.get_final_message()).content[0].text == GREETING  # type: ignore[union-attr]

    rows = await clients.world.rows(name)
    assert [(row["protocol"], row["status"], row["error_code"]) for row in rows] == [
        (protocol, 200, None) for protocol in ("chat", "responses", "messages") for _ in range(2)
    ]
    for position, row in enumerate(rows):
        assert (row["input_tokens"], row["output_tokens"]) == (INPUT, OUTPUT), row["protocol"]
        assert (row["ttft_ms"] is not None) == (position % 2 == 1)
        assert row["asset"] == group.champion.urn
        assert row["upstream_ms"] <= row["latency_ms"]
        assert orjson.loads(row["input"])["model"] == name
        assert "from the" in row["output"]
    assert rows[0]["unit"] == "user-7"


async def test_tools_embeddings_and_models(clients: Clients, name: str) -> None:
    await clients.group(name, "anthropic", "call")
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    called = await clients.openai.chat.completions.create(model=name, messages=HELLO, tools=[tool])
    call = (called.choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    assert orjson.loads(call.function.arguments) == ARGUMENTS

    await clients.group(f"{name}-e", "gemini")
    made = await clients.openai.embeddings.create(model=f"{name}-e", input=["hello"], encoding_format="float")
    assert made.data[0].embedding == [0.5, -1.25, 0.0]
    assert (await clients.last_row(f"{name}-e"))["protocol"] == "embeddings"

    listed = [model.id async for model in clients.openai.models.list()]
    assert listed == sorted(listed) and {name, f"{name}-e"} <= set(listed)
    assert [model.id async for model in clients.anthropic.models.list(limit=3)] == listed
    assert (await clients.openai.models.retrieve(name)).id == name
    with pytest.raises(openai.NotFoundError):
        await clients.openai.models.retrieve("nobody")


@pytest.mark.parametrize("kind", KINDS)
async def test_tools_are_called_whole_and_streamed_by_every_protocol(clients: Clients, name: str, kind: str) -> None:
    await clients.group(name, kind, "call")
    described = {"name": "get_weather", "parameters": WEATHER}
    for_chat: Any = [{"type": "function", "function": described}]
    whole = await clients.openai.chat.completions.create(model=name, messages=HELLO, tools=for_chat)
    async with clients.openai.chat.completions.stream(model=name, messages=HELLO, tools=for_chat) as chat:
        streamed = await chat.get_final_completion()
    for completion in (whole, streamed):
        (call,) = completion.choices[0].message.tool_calls or []
        assert call.type == "function" and call.function.name == "get_weather"
        assert orjson.loads(call.function.arguments) == ARGUMENTS
        assert completion.choices[0].finish_reason == "tool_calls"
    for_responses: Any = [{"type": "function", "strict": False, **described}]
    made = await clients.openai.responses.create(model=name, input="Hello?", tools=for_responses)
    async with clients.openai.responses.stream(model=name, input="Hello?", tools=for_responses) as responses:
        followed = await responses.get_final_response()
    for response in (made, followed):
        item = response.output[-1]
        assert item.type == "function_call" and orjson.loads(item.arguments) == ARGUMENTS
    for_messages: Any = [{"name": "get_weather", "input_schema": WEATHER}]
    message = await clients.anthropic.messages.create(model=name, max_tokens=50, messages=HELLO, tools=for_messages)
    async with clients.anthropic.messages.stream(
        model=name, max_tokens=50, messages=HELLO, tools=for_messages
    ) as messages:
        final = await messages.get_final_message()
    for said in (message, final):
        block = said.content[-1]
        assert block.type == "tool_use" and block.input == ARGUMENTS
        assert said.stop_reason == "tool_use"
    rows = await clients.world.rows(name)
    assert [(row["status"], row["error_code"]) for row in rows] == [(200, None)] * 6


async def test_champion_and_challenger_share_the_conversations(clients: Clients, name: str) -> None:
    one, two = a_version(1, name), a_version(2, name)
    both = (
        hosted(one, await clients.provider("openai", "greeting"), "model-of-one"),
        hosted(two, await clients.provider("anthropic", "greeting"), "model-of-two"),
    )
    group = await clients.world.make_group(name, one, hosted=both)
    group = await clients.world.move(weigh(group, [(two, 4000)], expected_revision=1), "weighted")
    await clients.world.until_served(group)
    for number in range(40):
        headers = {"x-mintmark-unit": f"user-{number % 20}"}
        raw = await clients.openai.chat.completions.with_raw_response.create(
            model=name, messages=HELLO, extra_headers=headers
        )
        assert raw.parse().choices[0].message.content == GREETING
        asked = orjson.loads(clients.stub.seen[-1].body)["model"]
        assert raw.headers["x-mintmark-version"].endswith({"model-of-one": "@1", "model-of-two": "@2"}[asked])
    rows = await clients.world.rows(name)
    assert len(rows) == 40
    by_unit: dict[str, set[int]] = {}
    for row in rows:
        by_unit.setdefault(row["unit"], set()).add(row["version"])
        assert row["arm"] == {1: "champion", 2: "challenger"}[row["version"]]
    assert all(len(versions) == 1 for versions in by_unit.values()), "nobody flips"
    assert {row["version"] for row in rows} == {1, 2}


FAILURES = (
    ("cut-early", 502, "upstream-cut"), ("stall-early", 504, "upstream-timeout"), ("lies", 502, "upstream-garbage"),
    ("no-stream", 502, "upstream-garbage"), ("status-302", 502, "upstream-garbage"),
    ("status-400", 400, "upstream-400"), ("status-401", 502, "upstream-key-refused"),
    ("status-429", 429, "upstream-429"), ("status-500", 502, "upstream-refused"),
)  # fmt: skip


@pytest.mark.parametrize(("behaviour", "status", "code"), FAILURES)
async def test_what_fails_before_the_first_token_is_an_error_with_a_status_and_a_row(
    clients: Clients, name: str, caplog: pytest.LogCaptureFixture, behaviour: str, status: int, code: str
) -> None:
    caplog.set_level(logging.DEBUG)
    await clients.group(name, "openai", behaviour)
    with pytest.raises(openai.APIStatusError) as refused:
        await clients.openai.chat.completions.create(model=name, messages=HELLO, stream=True)
    assert refused.value.status_code == status
    row = await clients.last_row(name)
    assert (row["status"], row["error_code"], row["ttft_ms"]) == (status, code, None)
    assert (row["attempts"], row["input"] is not None) == (1, True)
    with pytest.raises(anthropic.APIStatusError) as other:
        await clients.anthropic.messages.create(model=name, max_tokens=9, messages=HELLO, stream=True)
    assert other.value.body["type"] == "error"  # type: ignore[index, call-overload]
    rows = await clients.world.rows(name)
    assert len(rows) == 2
    assert KEY not in "\n".join(
        [str([tuple(row) for row in rows]), str(refused.value.body), str(other.value.body), caplog.text]
    )


@pytest.mark.parametrize("behaviour", ["cut-late", "lies-late", "stall-late"])
async def test_what_breaks_after_the_first_token_ends_with_an_error_that_the_client_sees(
    clients: Clients, name: str, behaviour: str
) -> None:
    await clients.group(name, "openai", behaviour)
    with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
        async for _ in await clients.openai.chat.completions.create(model=name, messages=HELLO, stream=True):
            pass
    row = await clients.last_row(name)
    assert (row["status"], row["ttft_ms"] is not None) == (502, True)
    assert row["error_code"] in ("upstream-cut", "upstream-failed", "upstream-garbage", "upstream-timeout")
    assert "Hello" in row["output"], "the row keeps what the client was told"


async def test_what_cannot_be_said_to_a_provider_is_refused_by_its_name(clients: Clients, name: str) -> None:
    await clients.group(name, "anthropic")
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await clients.openai.chat.completions.create(model=name, messages=HELLO, logprobs=True)
    assert refused.value.param == "logprobs"
    row = await clients.last_row(name)
    assert (row["status"], row["error_code"], row["attempts"]) == (422, "field-refused", 0)
    assert row["asset"] is not None
    plain = await clients.world.infer(name)
    assert plain.status_code == 422 and plain.json()["code"] == "protocol-mismatch"
    version = await clients.world.deploy(a_version(3, f"{name}-d"))
    await clients.world.make_group(f"{name}-d", version)
    with pytest.raises(openai.UnprocessableEntityError) as mismatched:
        await clients.openai.chat.completions.create(model=f"{name}-d", messages=HELLO)
    assert mismatched.value.code == "protocol-mismatch"
    assert (await clients.last_row(f"{name}-d"))["error_code"] == "protocol-mismatch"


async def test_who_may_not_ask_is_told_so_in_the_protocols_shape(
    clients: Clients, name: str, keys: dict[str, str]
) -> None:
    await clients.group(name)
    with pytest.raises(openai.NotFoundError) as unknown:
        await clients.openai.chat.completions.create(model=f"{name}x", messages=HELLO)
    assert unknown.value.code == "unknown-group" and name in unknown.value.message
    for key, expected in (("wrong", 401), (keys["viewer"], 403), (keys["neighbour"], 404)):
        with pytest.raises(anthropic.APIStatusError) as refused:
            await clients.anthropic.with_options(api_key=key).messages.create(model=name, max_tokens=9, messages=HELLO)
        assert refused.value.status_code == expected
        assert refused.value.body["type"] == "error"  # type: ignore[index, call-overload]
    assert [model.id async for model in clients.openai.with_options(api_key=keys["neighbour"]).models.list()] == []
    assert await clients.world.rows(name) == []


async def test_a_key_is_changed_without_a_restart_and_a_broken_one_is_said(clients: Clients, name: str) -> None:
    await clients.group(name)

    async def asked_with(key: str) -> None:
        async def look() -> str:
            await clients.openai.chat.completions.create(model=name, messages=HELLO)
            return clients.stub.seen[-1].headers[b"authorization"].decode()

        await eventually(look, lambda seen: seen == f"Bearer {key}", what="the other key")

    await asked_with(KEY)
    await clients.provider("openai", "greeting", "sk-another-secret-key")
    await asked_with("sk-another-secret-key")
    # a key of another master key cannot be opened: the one before is kept, and a provider without one is unavailable
    clients.world.master_key.write_bytes(orjson.dumps({"current": "2", "keys": {"2": "A" * 43 + "="}}))
    await clients.world.provide("stranger", {"kind": "openai", "base_url": f"{clients.at}/openai/greeting"}, KEY)
    clients.world.master_key.write_bytes(orjson.dumps({"current": "3", "keys": {"3": "B" * 43 + "="}}))
    version = a_version(1, f"{name}-s")
    await clients.world.make_group(f"{name}-s", version, hosted=(hosted(version, "stranger"),))
    await asked_with("sk-another-secret-key")


async def test_no_approval_no_answer_whatever_the_database_says(clients: Clients, name: str) -> None:
    provider = await clients.provider("openai", "greeting")
    forged, other = a_version(1, f"{name}-f"), a_version(1, f"{name}-o")
    await clients.world.make_group(
        f"{name}-f", forged, hosted=(hosted(forged, provider, signer=Ed25519PrivateKey.generate()),)
    )
    await clients.world.make_group(f"{name}-o", other, hosted=(replace(hosted(forged, provider), version=other),))
    await clients.world.make_group(f"{name}-n", forged, hosted=(hosted(forged, "nobody"),))
    for group in (f"{name}-f", f"{name}-o", f"{name}-n"):
        with pytest.raises(openai.InternalServerError) as refused:
            await clients.openai.chat.completions.create(model=group, messages=HELLO)
        assert (refused.value.status_code, refused.value.code) == (503, "version-not-servable")
        assert (await clients.last_row(group))["error_code"] == "version-not-servable"
    assert clients.stub.seen == []


async def test_an_address_that_is_not_permitted_is_never_connected_to(clients: Clients, name: str) -> None:
    for place, url in enumerate(("http://10.0.0.1/v1", "http://169.254.169.254/v1", "http://[::1]:9/v1")):
        group, version = f"{name}-{place}", a_version(place + 1, name)
        await clients.world.provide(group, {"kind": "openai-compatible", "base_url": url}, KEY)
        await clients.world.make_group(group, version, hosted=(hosted(version, group),))
        with pytest.raises(openai.InternalServerError) as refused:
            await clients.openai.chat.completions.create(model=group, messages=HELLO)
        assert (refused.value.status_code, refused.value.code) == (502, "provider-address-refused")
        assert (await clients.last_row(group))["error_code"] == "provider-address-refused"


async def test_an_open_inference_server_elsewhere_is_a_provider_too(clients: Clients, name: str) -> None:
    await clients.group(name, "oip")
    answer = await clients.world.infer(name)
    assert (answer.status_code, answer.json()["model_name"]) == (200, "census"), answer.text
    row = await clients.last_row(name)
    assert (row["status"], row["prediction"], row["protocol"]) == (200, "1", "open-inference")
    assert clients.stub.seen[-1].headers[b"authorization"] == f"Bearer {KEY}".encode()
    assert (await clients.world.http.get(f"/v2/models/{name}/ready")).json()["ready"] is True
    described: Version = a_version(1, f"v-{name}")
    assert (await clients.world.http.get(f"/v2/models/{name}")).json()["versions"] == [str(described)]
