"""Every protocol against every provider: whole answers and streams say the same, wherever the network cuts them."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import anthropic.types as anthropic_types
import openai.types.chat as openai_chat
import openai.types.responses as openai_responses
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.errors import UpstreamCut, UpstreamError, UpstreamGarbageError
from services.router.gateway.conversation import Answer, AnswerBuilder, Text, ToolUse, Usage, events_of
from services.router.gateway.framing import SseFrames
from services.router.gateway.protocols import CHAT, MESSAGES, RESPONSES
from services.router.gateway.testing.recorded import (
    ANSWERS,
    ARGUMENT_TEXT,
    ARGUMENTS,
    CACHED,
    GREETING,
    INPUT,
    OUTPUT,
    SIGNATURE,
    STREAM_TYPES,
    answers,
)

from .asking import CHAT_PATH, MESSAGES_PATH, NOW, RESPONSES_PATH, SIMPLE, asked, planned, upstream

PATHS = (CHAT_PATH, RESPONSES_PATH, MESSAGES_PATH)
EVERY = [(path, kind, case) for path, kind in itertools.product(PATHS, ANSWERS) for case in ("greeting", "call")]
JSON_HEADERS = [(b"content-type", b"application/json")]


def head(kind: str) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", STREAM_TYPES.get(kind, "text/event-stream; charset=utf-8").encode())]


def what_was_said(answer: Answer) -> list[Any]:
    return [part.text if isinstance(part, Text) else (part.name, part.arguments) for part in answer.parts]  # type: ignore[union-attr]


def expected(case: str) -> list[Any]:
    return [GREETING] if case == "greeting" else [("get_weather", ARGUMENT_TEXT)]


@pytest.mark.parametrize(("path", "kind", "case"), EVERY)
def test_a_whole_answer_reads_as_the_clients_own_types(path: str, kind: str, case: str) -> None:
    attempt = planned(asked(path, SIMPLE[path]), upstream(kind))
    whole = orjson.dumps(answers(kind, path)[case][0])
    answered = attempt.answer(200, JSON_HEADERS, whole)
    if attempt.is_native:
        assert answered.body == whole
    assert answered.answer is not None
    assert what_was_said(answered.answer) == expected(case)
    assert answered.usage is not None
    assert (answered.usage.input, answered.usage.cache_read, answered.usage.output) == (INPUT, CACHED, OUTPUT)
    check_whole(path, case, answered.body)


def check_whole(path: str, case: str, body: bytes) -> None:
    if path == CHAT_PATH:
        chat = openai_chat.ChatCompletion.model_validate_json(body, strict=True)
        choice = chat.choices[0]
        assert chat.usage is not None
        assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (INPUT, OUTPUT)
        if case == "greeting":
            assert (choice.message.content, choice.finish_reason) == (GREETING, "stop")
        else:
            call = (choice.message.tool_calls or [])[0]
            assert call.type == "function"
            assert orjson.loads(call.function.arguments) == ARGUMENTS
            assert choice.finish_reason == "tool_calls"
    elif path == MESSAGES_PATH:
        message = anthropic_types.Message.model_validate_json(body, strict=True)
        assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) == INPUT
        block = message.content[0]
        if case == "greeting":
            assert block.type == "text"
            assert (block.text, message.stop_reason) == (GREETING, "end_turn")
        else:
            assert block.type == "tool_use"
            assert (block.input, message.stop_reason) == (ARGUMENTS, "tool_use")
    else:
        response = openai_responses.Response.model_validate_json(body)
        assert response.usage is not None
        assert response.usage.input_tokens_details.cached_tokens == CACHED
        if case == "greeting":
            assert (response.output_text, response.status) == (GREETING, "completed")
        else:
            item = response.output[0]
            assert item.type == "function_call"
            assert orjson.loads(item.arguments) == ARGUMENTS


def streamed(path: str, kind: str, stream: bytes, cuts: list[int]) -> tuple[bytes, Answer, Usage | None]:
    attempt = planned(asked(path, SIMPLE[path], stream=True), upstream(kind))
    streaming = attempt.stream(200, head(kind))
    out = b""
    for begin, end in itertools.pairwise(sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})):
        out += streaming.feed(stream[begin:end])
    out += streaming.end()
    assert streaming.is_complete
    return out, streaming.answer, streaming.usage


@pytest.mark.parametrize(("path", "kind", "case"), EVERY)
def test_a_stream_says_what_the_whole_answer_says(path: str, kind: str, case: str) -> None:
    out, answer, usage = streamed(path, kind, answers(kind, path)[case][1], [])
    assert what_was_said(answer) == expected(case)
    assert usage == Usage(INPUT, OUTPUT, CACHED, 0, 2 if kind == "gemini" else 0)
    whole = planned(asked(path, SIMPLE[path]), upstream(kind)).answer(
        200, JSON_HEADERS, orjson.dumps(answers(kind, path)[case][0])
    )
    assert whole.answer is not None
    assert (whole.answer.finish, whole.answer.parts) == (answer.finish, answer.parts)
    check_stream(path, case, out)


def check_stream(path: str, case: str, out: bytes) -> None:
    frames = SseFrames().feed(out)
    values = [orjson.loads(frame.data) for frame in frames if frame.data != b"[DONE]"]
    said = ""
    if path == CHAT_PATH:
        assert frames[-1].data == b"[DONE]"
        for value in values:
            chunk = openai_chat.ChatCompletionChunk.model_validate(value)
            assert chunk.usage is None or chunk.choices, "the client did not ask for the usage"
            for choice in chunk.choices:
                said += choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    said += (call.function and call.function.arguments) or ""
    elif path == MESSAGES_PATH:
        assert [frame.event for frame in frames] == [value["type"] for value in values]
        assert (values[0]["type"], values[-1]["type"]) == ("message_start", "message_stop")
        for value in values:
            if value["type"] == "message_start":
                anthropic_types.RawMessageStartEvent.model_validate(value)
            elif value["type"] == "content_block_delta":
                delta = anthropic_types.RawContentBlockDeltaEvent.model_validate(value).delta
                said += delta.text if delta.type == "text_delta" else getattr(delta, "partial_json", "")
            elif value["type"] == "message_delta":
                ended = anthropic_types.RawMessageDeltaEvent.model_validate(value)
                assert ended.usage.output_tokens == OUTPUT
    else:
        assert [value["sequence_number"] for value in values] == list(range(len(values)))
        assert values[-1]["type"] == "response.completed"
        openai_responses.Response.model_validate(values[-1]["response"])
        deltas = ("response.output_text.delta", "response.function_call_arguments.delta")
        said = "".join(value["delta"] for value in values if value["type"] in deltas)
    assert said == (GREETING if case == "greeting" else ARGUMENT_TEXT)


@pytest.mark.parametrize(("path", "kind", "case"), EVERY)
@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(0, 1 << 16), max_size=40))
def test_wherever_a_stream_is_cut_into_chunks_the_client_gets_the_same_bytes(
    path: str, kind: str, case: str, cuts: list[int]
) -> None:
    stream = answers(kind, path)[case][1]
    assert streamed(path, kind, stream, cuts) == streamed(path, kind, stream, [])


@pytest.mark.parametrize("kind", ANSWERS)
def test_byte_by_byte_is_the_same_as_well(kind: str) -> None:
    for path in PATHS:
        stream = answers(kind, path)["call"][1]
        assert streamed(path, kind, stream, list(range(len(stream)))) == streamed(path, kind, stream, [])


@pytest.mark.parametrize(("path", "kind"), [*itertools.product(PATHS, ANSWERS)])
def test_a_stream_that_ends_early_is_never_taken_for_a_whole_one(path: str, kind: str) -> None:
    stream = answers(kind, path)["greeting"][1]
    for length in range(0, len(stream) - 1, 7):
        attempt = planned(asked(path, SIMPLE[path], stream=True), upstream(kind))
        streaming = attempt.stream(200, head(kind))
        out = streaming.feed(stream[:length])
        assert bool(out) <= streaming.has_begun, "nothing leaves before the first token"
        try:
            out += streaming.end()
        except UpstreamCut as error:
            assert not any(mark in out for mark in (b"[DONE]", b"message_stop", b"response.completed"))
            failure = streaming.fail(error)
            assert failure.endswith(b"\n\n")
            assert b"error" in failure
        else:
            assert streaming.is_complete
            assert streaming.answer.finish == "stop"


@pytest.mark.parametrize("kind", ANSWERS)
def test_nothing_is_released_before_the_first_token(kind: str) -> None:
    for path in PATHS:
        stream = answers(kind, path)["greeting"][1]
        streaming = planned(asked(path, SIMPLE[path], stream=True), upstream(kind)).stream(200, head(kind))
        for position in range(len(stream)):
            out = streaming.feed(stream[position : position + 1])
            if out:
                assert streaming.has_token
                break
            assert not streaming.has_begun


def test_a_stream_that_never_begins_or_never_ends_is_bounded() -> None:
    ping = b'event: ping\ndata: {"type": "ping", "x": "' + b"x" * 65_000 + b'"}\n\n'
    streaming = planned(asked(MESSAGES_PATH, SIMPLE[MESSAGES_PATH], stream=True), upstream("anthropic")).stream(
        200, head("anthropic")
    )
    with pytest.raises(UpstreamGarbageError, match="without a first token"):
        for _ in range(20):
            assert streaming.feed(ping) == b""
    translated = planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH], stream=True), upstream("anthropic")).stream(
        200, head("anthropic")
    )
    with pytest.raises(UpstreamGarbageError, match="larger than"):
        for _ in range(1100):
            translated.feed(ping)


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_follows_the_end_is_not_looked_at(kind: str) -> None:
    stream = ANSWERS[kind]["greeting"][1]
    once, _, _ = streamed(CHAT_PATH, kind, stream, [])
    streaming = planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH], stream=True), upstream(kind)).stream(200, head(kind))
    twice = streaming.feed(stream + stream) + streaming.end()
    assert twice == once


@pytest.mark.parametrize(("path", "kind"), [*itertools.product(PATHS, ANSWERS)])
@settings(max_examples=8, deadline=None)
@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_is_an_error_of_the_upstream_and_never_a_defect_of_ours(path: str, kind: str, garbage: bytes) -> None:
    stream = answers(kind, path)["greeting"][1]
    middle = len(stream) // 2
    streaming = planned(asked(path, SIMPLE[path], stream=True), upstream(kind)).stream(200, head(kind))
    with contextlib.suppress(UpstreamError):
        streaming.feed(stream[:middle] + garbage + stream[middle:])
        streaming.end()


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", [*ANSWERS])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_answer_that_lies_about_its_shape_is_garbage(kind: str, data: st.DataObject) -> None:
    """One value anywhere in a recorded answer is replaced by another JSON value."""
    value = orjson.loads(orjson.dumps(ANSWERS[kind][data.draw(st.sampled_from(("greeting", "call")))][0]))
    node: Any = value
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
            node = node[key]
            continue
        node[key] = data.draw(JSONS)
        break
    for path in PATHS:
        with contextlib.suppress(UpstreamError):
            planned(asked(path, SIMPLE[path]), upstream(kind)).answer(200, JSON_HEADERS, orjson.dumps(value))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b'{"choices": []}', b'{"choices": [{}]}', b"\xff"])
def test_a_body_that_is_no_answer_is_garbage(body: bytes) -> None:
    for kind in ANSWERS:
        with pytest.raises(UpstreamGarbageError):
            planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH]), upstream(kind)).answer(200, JSON_HEADERS, body)


def test_a_whole_answer_and_its_events_are_one() -> None:
    answer = Answer("a", "m", (Text("hi"), ToolUse("1", "f", "{}", SIGNATURE)), "tool_use", Usage(1, 2))
    builder = AnswerBuilder()
    for event in events_of(answer):
        builder.add(event)
    assert builder.answer() == answer
    assert builder.is_closed


@pytest.mark.parametrize("protocol", [CHAT, MESSAGES, RESPONSES])
def test_every_way_to_finish_can_be_said(protocol: Any) -> None:
    from typing import get_args

    from services.router.gateway.conversation import Conversation, FinishReason

    for reason in get_args(FinishReason):
        answer = Answer("a", "m", (Text("hi"),), reason, Usage(1, 2))
        written = orjson.dumps(protocol.write(answer, Conversation("m", ()), NOW))
        if protocol is CHAT:
            openai_chat.ChatCompletion.model_validate_json(written, strict=True)
        elif protocol is MESSAGES:
            anthropic_types.Message.model_validate_json(written, strict=True)
        else:
            openai_responses.Response.model_validate_json(written)
