"""The same two answers as every provider gives them: a greeting, and a call of `get_weather`, whole and as a stream.

Shapes follow the providers' published types; `test_shapes` holds them against the official clients where there is one.
"""

from __future__ import annotations

import binascii
import struct
from typing import Any

import orjson

GREETING = "Hello from the stub — ✓."
ARGUMENTS = {"city": "Oslo", "days": 3}
ARGUMENT_TEXT = orjson.dumps(ARGUMENTS).decode()
INPUT, CACHED, OUTPUT = 25, 5, 7
PIECES = ("Hello ", "from the", " stub — ✓.")
ARGUMENT_PIECES = (ARGUMENT_TEXT[:3], ARGUMENT_TEXT[3:11], ARGUMENT_TEXT[11:])
MODEL = "upstream-model"
SIGNATURE = "c2lnbmF0dXJlK29mL3Rob3VnaHRzPw=="


def sse(*values: Any, named: bool = False, done: bool = False) -> bytes:
    events = [
        (f"event: {value['type']}\n".encode() if named else b"") + b"data: " + orjson.dumps(value) + b"\n\n"
        for value in values
    ]
    return b"".join(events) + (b"data: [DONE]\n\n" if done else b"")


def aws_frame(kind: str, payload: bytes, *, exception: bool = False) -> bytes:
    """One message of an AWS event stream: prelude, its CRC, headers, payload, CRC of all."""
    headers = b"".join(
        bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value
        for name, value in (
            (b":exception-type" if exception else b":event-type", kind.encode()),
            (b":content-type", b"application/json"),
            (b":message-type", b"exception" if exception else b"event"),
        )
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack(">I", binascii.crc32(prelude))
    message = prelude + headers + payload
    return message + struct.pack(">I", binascii.crc32(message))


def aws(*events: tuple[str, Any]) -> bytes:
    return b"".join(aws_frame(kind, orjson.dumps(value)) for kind, value in events)


# -- OpenAI's chat completions

CHAT_USAGE = {
    "prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT,
    "prompt_tokens_details": {"cached_tokens": CACHED}, "completion_tokens_details": {"reasoning_tokens": 0},
}  # fmt: skip
CHAT_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENT_TEXT}}


def chat_whole(message: dict[str, Any], finish: str) -> dict[str, Any]:
    said = {"role": "assistant", "content": None, "refusal": None, **message}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000, "model": MODEL,
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": finish}], "usage": CHAT_USAGE,
    }  # fmt: skip


def chat_stream(deltas: list[dict[str, Any]], finish: str) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": MODEL}
    steps: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    steps += [(delta, None) for delta in deltas] + [({}, finish)]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": why}]} for delta, why in steps]
    return sse(*chunks, {**head, "choices": [], "usage": CHAT_USAGE}, done=True)


def _chat_call(**more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, **more}]}


CHAT = {
    "greeting": (
        chat_whole({"content": GREETING}, "stop"),
        chat_stream([{"content": piece} for piece in PIECES], "stop"),
    ),
    "call": (
        chat_whole({"tool_calls": [CHAT_CALL]}, "tool_calls"),
        chat_stream(
            [
                _chat_call(id="call_1", type="function", function={"name": "get_weather", "arguments": ""}),
                *(_chat_call(function={"arguments": piece}) for piece in ARGUMENT_PIECES),
            ],
            "tool_calls",
        ),
    ),
}

# -- OpenAI's responses

RESPONSES_USAGE = {
    "input_tokens": INPUT, "input_tokens_details": {"cached_tokens": CACHED, "cache_write_tokens": 0},
    "output_tokens": OUTPUT, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": INPUT + OUTPUT,
}  # fmt: skip
RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1_790_000_000, "status": "completed", "error": None,
    "incomplete_details": None, "instructions": None, "metadata": {}, "model": MODEL, "parallel_tool_calls": True,
    "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
}  # fmt: skip
SAID = {"type": "output_text", "text": GREETING, "annotations": [], "logprobs": []}
MESSAGE_ITEM = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [SAID]}
CALL_ITEM = {
    "id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": ARGUMENT_TEXT,
    "status": "completed",
}  # fmt: skip


def responses_stream(item: dict[str, Any], steps: list[dict[str, Any]]) -> bytes:
    begun = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}
    bare: dict[str, Any] = {
        **item,
        "status": "in_progress",
        **({"content": []} if "content" in item else {"arguments": ""}),
    }
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": bare},
        *({"output_index": 0, "item_id": item["id"], **step} for step in steps),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**RESPONSE, "output": [item], "usage": RESPONSES_USAGE}},
    ]
    return sse(*({**event, "sequence_number": number} for number, event in enumerate(events)), named=True)


RESPONSES = {
    "greeting": (
        {**RESPONSE, "output": [MESSAGE_ITEM], "usage": RESPONSES_USAGE},
        responses_stream(
            MESSAGE_ITEM,
            [
                {"type": "response.content_part.added", "content_index": 0, "part": {**SAID, "text": ""}},
                *(
                    {"type": "response.output_text.delta", "content_index": 0, "delta": piece, "logprobs": []}
                    for piece in PIECES
                ),
                {"type": "response.output_text.done", "content_index": 0, "text": GREETING, "logprobs": []},
                {"type": "response.content_part.done", "content_index": 0, "part": SAID},
            ],
        ),
    ),
    "call": (
        {**RESPONSE, "output": [CALL_ITEM], "usage": RESPONSES_USAGE},
        responses_stream(
            CALL_ITEM,
            [
                *({"type": "response.function_call_arguments.delta", "delta": piece} for piece in ARGUMENT_PIECES),
                {"type": "response.function_call_arguments.done", "name": "get_weather", "arguments": ARGUMENT_TEXT},
            ],
        ),
    ),
}

# -- Anthropic's messages

ANTHROPIC_USAGE = {
    "input_tokens": INPUT - CACHED, "cache_read_input_tokens": CACHED, "cache_creation_input_tokens": 0,
    "output_tokens": OUTPUT,
}  # fmt: skip
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": ARGUMENTS}


def messages_whole(content: list[Any], stop: str) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": content, "stop_reason": stop,
        "stop_sequence": None, "usage": ANTHROPIC_USAGE,
    }  # fmt: skip


def messages_stream(block: dict[str, Any], deltas: list[dict[str, Any]], stop: str) -> bytes:
    begun = {**messages_whole([], stop), "stop_reason": None, "usage": {**ANTHROPIC_USAGE, "output_tokens": 1}}
    return sse(
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None},
            "usage": {"output_tokens": OUTPUT},
        },
        {"type": "message_stop"},
        named=True,
    )


ANTHROPIC = {
    "greeting": (
        messages_whole([{"type": "text", "text": GREETING}], "end_turn"),
        messages_stream(
            {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in PIECES], "end_turn"
        ),
    ),
    "call": (
        messages_whole([TOOL_USE], "tool_use"),
        messages_stream(
            {**TOOL_USE, "input": {}},
            [{"type": "input_json_delta", "partial_json": piece} for piece in ARGUMENT_PIECES],
            "tool_use",
        ),
    ),
}

# -- Gemini

GEMINI_USAGE = {
    "promptTokenCount": INPUT, "cachedContentTokenCount": CACHED, "candidatesTokenCount": OUTPUT - 2,
    "thoughtsTokenCount": 2, "totalTokenCount": INPUT + OUTPUT,
}  # fmt: skip
FUNCTION_CALL = {
    "functionCall": {"id": "fc1", "name": "get_weather", "args": ARGUMENTS},
    "thoughtSignature": SIGNATURE,
}


def gemini(parts: list[Any], finish: str | None = "STOP", usage: bool = True) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    value = {"candidates": [candidate], "modelVersion": MODEL, "responseId": "gem_1"}
    return {**value, "usageMetadata": GEMINI_USAGE} if usage else value


GEMINI = {
    "greeting": (
        gemini([{"text": GREETING}]),
        sse(*(gemini([{"text": piece}], None, usage=False) for piece in PIECES[:-1]), gemini([{"text": PIECES[-1]}])),
    ),
    "call": (gemini([FUNCTION_CALL]), sse(gemini([FUNCTION_CALL], None, usage=False), gemini([], "STOP"))),
}

# -- Bedrock

BEDROCK_USAGE = {
    "inputTokens": INPUT - CACHED, "outputTokens": OUTPUT, "totalTokens": INPUT + OUTPUT,
    "cacheReadInputTokens": CACHED, "cacheWriteInputTokens": 0,
}  # fmt: skip


def bedrock_whole(block: dict[str, Any], stop: str) -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": [block]}}, "stopReason": stop, "usage": BEDROCK_USAGE,
        "metrics": {"latencyMs": 12},
    }  # fmt: skip


def bedrock_stream(start: dict[str, Any] | None, deltas: list[dict[str, Any]], stop: str) -> bytes:
    begun = [("contentBlockStart", {"contentBlockIndex": 0, "start": start})] if start else []
    return aws(
        ("messageStart", {"role": "assistant"}),
        *begun,
        *(("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}) for delta in deltas),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": stop}),
        ("metadata", {"usage": BEDROCK_USAGE, "metrics": {"latencyMs": 12}}),
    )


BEDROCK = {
    "greeting": (
        bedrock_whole({"text": GREETING}, "end_turn"),
        bedrock_stream(None, [{"text": piece} for piece in PIECES], "end_turn"),
    ),
    "call": (
        bedrock_whole({"toolUse": {"toolUseId": "tooluse_1", "name": "get_weather", "input": ARGUMENTS}}, "tool_use"),
        bedrock_stream(
            {"toolUse": {"toolUseId": "tooluse_1", "name": "get_weather"}},
            [{"toolUse": {"input": piece}} for piece in ARGUMENT_PIECES],
            "tool_use",
        ),
    ),
}

# -- SageMaker: chat completions in a container, whose bytes come in payload parts that know nothing of events


def _in_parts(stream: bytes, size: int = 37) -> bytes:
    return b"".join(aws_frame("PayloadPart", stream[at : at + size]) for at in range(0, len(stream), size))


SAGEMAKER = {name: (whole, _in_parts(stream)) for name, (whole, stream) in CHAT.items()}

ANSWERS: dict[str, dict[str, tuple[dict[str, Any], bytes]]] = {
    "openai": CHAT,
    "openai-compatible": CHAT,
    "openai-responses": RESPONSES,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "bedrock": BEDROCK,
    "sagemaker": SAGEMAKER,
}
"""By kind of provider and by case: the whole answer, and the stream."""

STREAM_TYPES = {"bedrock": "application/vnd.amazon.eventstream", "sagemaker": "application/vnd.amazon.eventstream"}


def answers(kind: str, path: str) -> dict[str, tuple[dict[str, Any], bytes]]:
    """What a provider answers to a client of a path: OpenAI itself speaks two of the protocols."""
    return RESPONSES if kind == "openai" and path == "/v1/responses" else ANSWERS[kind]
