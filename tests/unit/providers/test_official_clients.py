"""The official clients of OpenAI, Anthropic and Triton, unchanged, against every provider that the stub plays."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import numpy as np
import openai
import orjson
import pytest
from tritonclient import http as triton

from services.router.gateway.conversation import Text
from services.router.gateway.providers import Upstream
from services.router.gateway.testing.recorded import ANSWERS, ARGUMENT_TEXT, ARGUMENTS, GREETING, INPUT, OUTPUT
from services.router.gateway.testing.stub import Stub, served

from .asking import KEY, WEATHER
from .wire import Relay

KINDS = list(ANSWERS)
BEHAVIOURS = (
    "greeting", "call", "cut-early", "cut-late", "stall-early", "stall-late", "lies", "lies-late", "no-stream",
    "status-302", "status-400", "status-401", "status-429", "status-500",
)  # fmt: skip
TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
RESPONSES_TOOLS: Any = [{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": False}]
ANTHROPIC_TOOLS: Any = [{"name": "get_weather", "input_schema": WEATHER}]
MESSAGES: Any = [{"role": "user", "content": "Hello?"}]


class World:
    """A relay and its clients. Groups are named `<kind>.<behaviour>`, and `<kind>.recovers` fails over."""

    def __init__(self, port: int, stub: Stub, relay: Relay) -> None:
        self.stub, self.relay, self.port = stub, relay, port
        self.openai = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="caller-key", max_retries=0)
        self.anthropic = anthropic.AsyncAnthropic(
            base_url=f"http://127.0.0.1:{port}", api_key="caller-key", max_retries=0
        )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    stub = Stub()
    async with served(stub) as upstream_port:

        def to(kind: str, behaviour: str) -> Upstream:
            base = f"http://127.0.0.1:{upstream_port}/{kind}/{behaviour}"
            return Upstream(kind, "upstream-model", base_url=base, region="eu-west-1", container="chat")

        groups = {f"{kind}.{behaviour}": [to(kind, behaviour)] for kind in KINDS for behaviour in BEHAVIOURS}
        for kind in KINDS:
            early = [to(kind, behaviour) for behaviour in ("cut-early", "lies", "no-stream")]
            if kind == "openai":
                early.append(to(kind, "stall-early"))
            groups[f"{kind}.recovers"] = [*early, to("anthropic", "greeting")]
        groups["census"] = [to("oip", "greeting")]
        relay = Relay(groups)
        async with served(relay) as port:
            world = World(port, stub, relay)
            yield world
            await world.openai.close()
            await world.anthropic.close()


BROKEN = [*itertools.product(KINDS, ("cut-late", "lies-late")), ("openai", "stall-late"), ("bedrock", "stall-late")]


# -- what works


@pytest.mark.parametrize("kind", KINDS)
async def test_chat(world: World, kind: str) -> None:
    chat = world.openai.chat.completions
    said = await chat.create(model=f"{kind}.greeting", messages=MESSAGES)
    assert said.choices[0].message.content == GREETING
    assert said.usage is not None
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (INPUT, OUTPUT)
    called = await chat.create(model=f"{kind}.call", messages=MESSAGES, tools=TOOLS)
    call = (called.choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    assert orjson.loads(call.function.arguments) == ARGUMENTS


@pytest.mark.parametrize("kind", KINDS)
async def test_chat_streamed(world: World, kind: str) -> None:
    chat = world.openai.chat.completions
    async with chat.stream(
        model=f"{kind}.greeting", messages=MESSAGES, stream_options={"include_usage": True}
    ) as stream:
        whole = await stream.get_final_completion()
    assert whole.choices[0].message.content == GREETING
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (INPUT, OUTPUT)
    async with chat.stream(model=f"{kind}.call", messages=MESSAGES, tools=TOOLS) as stream:
        whole = await stream.get_final_completion()
    assert whole.choices[0].finish_reason == "tool_calls"
    assert (whole.choices[0].message.tool_calls or [])[0].function.arguments == ARGUMENT_TEXT
    chunks = [chunk async for chunk in await chat.create(model=f"{kind}.greeting", messages=MESSAGES, stream=True)]
    assert all(chunk.choices for chunk in chunks), "no usage for a client that did not ask for it"
    last = world.relay.answers[-1]
    assert last is not None
    assert last.usage is not None, "but its row has it"
    assert "".join(part.text for part in last.parts if isinstance(part, Text)) == GREETING


@pytest.mark.parametrize("kind", KINDS)
async def test_responses(world: World, kind: str) -> None:
    said = await world.openai.responses.create(model=f"{kind}.greeting", input="Hello?")
    assert (said.output_text, said.status) == (GREETING, "completed")
    async with world.openai.responses.stream(model=f"{kind}.greeting", input="Hello?") as stream:
        kinds = [event.type async for event in stream]
        whole = await stream.get_final_response()
    assert whole.output_text == GREETING
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (INPUT, OUTPUT)
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    async with world.openai.responses.stream(model=f"{kind}.call", input="?", tools=RESPONSES_TOOLS) as stream:
        whole = await stream.get_final_response()
    item = whole.output[0]
    assert item.type == "function_call"
    assert (item.name, orjson.loads(item.arguments)) == ("get_weather", ARGUMENTS)


@pytest.mark.parametrize("kind", KINDS)
async def test_messages(world: World, kind: str) -> None:
    said = await world.anthropic.messages.create(model=f"{kind}.greeting", max_tokens=50, messages=MESSAGES)
    assert said.content[0].type == "text"
    assert (said.content[0].text, said.stop_reason) == (GREETING, "end_turn")
    async with world.anthropic.messages.stream(model=f"{kind}.greeting", max_tokens=50, messages=MESSAGES) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        whole = await stream.get_final_message()
    assert text == GREETING
    assert whole.usage.output_tokens == OUTPUT
    async with world.anthropic.messages.stream(
        model=f"{kind}.call", max_tokens=50, messages=MESSAGES, tools=ANTHROPIC_TOOLS
    ) as stream:
        whole = await stream.get_final_message()
    block = whole.content[0]
    assert block.type == "tool_use"
    assert (block.name, block.input, whole.stop_reason) == ("get_weather", ARGUMENTS, "tool_use")


async def test_embeddings(world: World) -> None:
    for kind in ("openai", "openai-compatible", "gemini"):
        made = await world.openai.embeddings.create(model=f"{kind}.greeting", input=["hello"])
        assert made.data[0].embedding == [0.5, -1.25, 0.0]
    two = await world.openai.embeddings.create(model="gemini.greeting", input=["a", "b"], encoding_format="float")
    assert [item.embedding for item in two.data] == [[0.5, -1.25, 0.0], [0.5, -1.25, 1.0]]


async def test_models_are_the_groups(world: World) -> None:
    listed = [model.id async for model in world.openai.models.list()]
    assert listed == sorted(world.relay.groups)
    paged = [model.id async for model in world.anthropic.models.list(limit=7)]
    assert paged == listed


@pytest.mark.parametrize("binary", [False, True])
async def test_triton(world: World, binary: bool) -> None:
    def infer() -> Any:
        client = triton.InferenceServerClient(f"127.0.0.1:{world.port}")
        tensor = triton.InferInput("age", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.array([[1.5, 2.5]], dtype=np.float32), binary_data=binary)
        result = client.infer("census", [tensor], headers={"authorization": "Bearer caller-key"})
        client.close()
        return result.as_numpy("label")

    assert (await asyncio.to_thread(infer)).tolist() == [1]


# -- what does not


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_breaks_before_its_first_token_is_answered_by_the_next(world: World, kind: str) -> None:
    async with world.openai.chat.completions.stream(model=f"{kind}.recovers", messages=MESSAGES) as stream:
        assert (await stream.get_final_completion()).choices[0].message.content == GREETING
    async with world.anthropic.messages.stream(model=f"{kind}.recovers", max_tokens=9, messages=MESSAGES) as other:
        assert (await other.get_final_message()).content[0].text == GREETING  # type: ignore[union-attr]
    assert len(world.stub.seen) == (10 if kind == "openai" else 8)


@pytest.mark.parametrize(("kind", "how"), BROKEN)
async def test_a_stream_that_breaks_later_ends_with_an_error_that_every_client_sees(
    world: World, kind: str, how: str
) -> None:
    model = f"{kind}.{how}"
    text = ""
    with pytest.raises(openai.APIError):
        async for chunk in await world.openai.chat.completions.create(model=model, messages=MESSAGES, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert text
    assert GREETING.startswith(text)
    with pytest.raises(anthropic.APIStatusError):
        async with world.anthropic.messages.stream(model=model, max_tokens=9, messages=MESSAGES) as stream:
            await stream.get_final_message()
    kinds = []
    with pytest.raises((openai.APIError, RuntimeError)):
        async with world.openai.responses.stream(model=model, input="Hello?") as responses:
            async for event in responses:
                kinds.append(event.type)
            await responses.get_final_response()
    assert "response.completed" not in kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_reach_the_client_as_its_own_exceptions_without_the_key(
    world: World, kind: str, stream: bool
) -> None:
    expected: dict[str, tuple[int, ...]] = {
        "status-302": (502,), "status-400": (400,), "status-401": (502,), "status-429": (429,), "status-500": (502,),
        "lies": (502,),
    }  # fmt: skip
    if kind == "gemini":
        expected["stall-early"] = (504,)
    for behaviour, statuses in expected.items():
        model = f"{kind}.{behaviour}"
        with pytest.raises(openai.APIStatusError) as refused:
            await world.openai.chat.completions.create(model=model, messages=MESSAGES, stream=stream)
        assert refused.value.status_code in statuses, behaviour
        assert KEY not in str(refused.value.body)
        with pytest.raises(anthropic.APIStatusError) as other:
            await world.anthropic.messages.create(model=model, max_tokens=9, messages=MESSAGES, stream=stream)
        assert other.value.status_code in statuses, behaviour
        assert KEY not in str(other.value.body)


async def test_errors_of_ours_in_the_shapes_of_the_protocols(world: World) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as unsayable:
        await world.openai.chat.completions.create(model="anthropic.greeting", messages=MESSAGES, seed=1)
    assert (unsayable.value.param, unsayable.value.code) == ("seed", "field-refused")
    with pytest.raises(anthropic.UnprocessableEntityError) as other:
        await world.anthropic.messages.create(
            model="gemini.greeting", max_tokens=9, messages=MESSAGES, metadata={"user_id": "u"}
        )
    assert "metadata.user_id" in other.value.message
    assert other.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match=r"Did you mean"):
        await world.openai.chat.completions.create(model="gpt-unknown", messages=MESSAGES)
    with pytest.raises(anthropic.NotFoundError):
        await world.anthropic.messages.create(model="unknown", max_tokens=9, messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        await world.openai.with_options(api_key="wrong").responses.create(model="openai.greeting", input="x")
    with pytest.raises(anthropic.AuthenticationError):
        await world.anthropic.with_options(api_key="wrong").messages.create(
            model="openai.greeting", max_tokens=9, messages=MESSAGES
        )
    with pytest.raises(openai.UnprocessableEntityError):
        await world.openai.embeddings.create(model="bedrock.greeting", input="x")
