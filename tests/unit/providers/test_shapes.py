"""The recorded shapes are the providers' own: their official clients read the stub as they read the real thing."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import boto3
import openai
import orjson
import pytest

from services.router.gateway.testing.recorded import ARGUMENTS, GREETING, INPUT, OUTPUT, PIECES
from services.router.gateway.testing.stub import Stub, served

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
CONVERSE: Any = [{"role": "user", "content": [{"text": "Hello?"}]}]


def aws(service: str, port: int, kind: str, behaviour: str) -> Any:
    return boto3.client(
        service,
        region_name="eu-west-1",
        endpoint_url=f"http://127.0.0.1:{port}/{kind}/{behaviour}",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )


async def test_bedrock_by_boto3() -> None:
    async with served(Stub()) as port:

        def converse() -> tuple[Any, list[Any], list[Any]]:
            client = aws("bedrock-runtime", port, "bedrock", "greeting")
            whole = client.converse(modelId="m", messages=CONVERSE)
            stream = list(client.converse_stream(modelId="m", messages=CONVERSE)["stream"])
            caller = aws("bedrock-runtime", port, "bedrock", "call")
            return whole, stream, list(caller.converse_stream(modelId="m", messages=CONVERSE)["stream"])

        whole, stream, called = await asyncio.to_thread(converse)
    assert whole["output"]["message"]["content"] == [{"text": GREETING}]
    assert whole["usage"]["inputTokens"] + whole["usage"]["cacheReadInputTokens"] == INPUT
    deltas = [event["contentBlockDelta"]["delta"] for event in stream if "contentBlockDelta" in event]
    assert [delta["text"] for delta in deltas] == list(PIECES)
    assert stream[-1]["metadata"]["usage"]["outputTokens"] == OUTPUT
    pieces = [
        event["contentBlockDelta"]["delta"]["toolUse"]["input"] for event in called if "contentBlockDelta" in event
    ]
    assert orjson.loads("".join(pieces)) == ARGUMENTS


async def test_sagemaker_by_boto3() -> None:
    async with served(Stub()) as port:

        def invoke() -> bytes:
            client = aws("sagemaker-runtime", port, "sagemaker", "greeting")
            body = orjson.dumps({"messages": MESSAGES, "stream": True})
            answer = client.invoke_endpoint_with_response_stream(EndpointName="e", Body=body)
            return b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])

        assert (await asyncio.to_thread(invoke)).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_openai_and_anthropic_by_their_own(kind: str) -> None:
    async with served(Stub()) as port:
        base = f"http://127.0.0.1:{port}/{kind}/greeting"
        if kind == "openai":
            client = openai.AsyncOpenAI(base_url=base, api_key="k", max_retries=0)
            async with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
                assert (await stream.get_final_completion()).choices[0].message.content == GREETING
            async with client.responses.stream(model="m", input="Hello?") as responses:
                assert (await responses.get_final_response()).output_text == GREETING
        else:
            own = anthropic.AsyncAnthropic(base_url=base, api_key="k", max_retries=0)
            async with own.messages.stream(model="m", max_tokens=9, messages=MESSAGES) as messages:
                assert await messages.get_final_text() == GREETING
