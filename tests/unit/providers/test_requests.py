"""What is asked of a provider: translations say the same, refusals name the field, other bytes pass untouched."""

from __future__ import annotations

import base64
from typing import Any

import boto3
import orjson
import pytest
from botocore.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.errors import FieldRefused, ProtocolMismatch, SealBroken, UpstreamKeyRefused, UpstreamRefused
from services.router.gateway.conversation import Conversation
from services.router.gateway.protocols import CHAT, MESSAGES, RESPONSES
from services.router.gateway.protocols.base import ChatProtocol
from services.router.gateway.protocols.signatures import packed, unpacked
from services.router.gateway.providers import KINDS, plan
from services.router.gateway.providers.attempt import with_model, with_usage
from services.router.gateway.testing.recorded import ANSWERS, ARGUMENT_TEXT, ARGUMENTS, SIGNATURE
from shared.errors import Invalid, Malformed, MintmarkError

from .asking import (
    AWS_KEY,
    CHAT_PATH,
    KEY,
    MESSAGES_PATH,
    NOW,
    RESPONSES_PATH,
    SIMPLE,
    WEATHER,
    asked,
    planned,
    upstream,
)

PIXEL = "iVBORw0KGgo="
HISTORY = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Weather here?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ],
    },
    {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENT_TEXT}},
            {"id": "call_2", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    {"role": "tool", "tool_call_id": "call_2", "content": "sun"},
    {"role": "user", "content": "And tomorrow?"},
]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": WEATHER}}]
RICH = {"model": "live-chat", "messages": HISTORY, "tools": TOOLS, "temperature": 0.5, "stop": ["END"], "max_tokens": 9}


def body_of(path: str, value: dict[str, Any], kind: str, **more: Any) -> Any:
    return orjson.loads(planned(asked(path, value), upstream(kind, **more)).request.body)


# -- translations


def test_a_history_with_tools_and_images_as_anthropic_reads_it() -> None:
    import anthropic.types as types
    from pydantic import TypeAdapter

    body = body_of(CHAT_PATH, RICH, "anthropic")
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert body["messages"][1]["content"][1]["input"] == ARGUMENTS
    kinds = [block["type"] for block in body["messages"][2]["content"]]
    assert kinds == ["tool_result", "tool_result", "text"], "results come first, in one turn"
    assert (body["max_tokens"], body["stop_sequences"], body["temperature"]) == (9, ["END"], 0.5)
    TypeAdapter(list[types.MessageParam]).validate_python(body["messages"])
    TypeAdapter(list[types.ToolParam]).validate_python(body["tools"])


def test_a_history_with_tools_and_images_as_gemini_reads_it() -> None:
    body = body_of(CHAT_PATH, RICH, "gemini")
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert body["contents"][0]["parts"][1] == {"inlineData": {"mimeType": "image/png", "data": PIXEL}}
    results = [part["functionResponse"] for part in body["contents"][2]["parts"][:2]]
    assert [(result["name"], result["response"]) for result in results] == [
        ("get_weather", {"output": "rain"}),
        ("get_weather", {"output": "sun"}),
    ]
    assert body["generationConfig"] == {"maxOutputTokens": 9, "temperature": 0.5, "stopSequences": ["END"]}
    declared = body["tools"][0]["functionDeclarations"][0]
    assert declared == {"name": "get_weather", "description": "Weather.", "parametersJsonSchema": WEATHER}


def test_a_history_with_tools_and_images_as_responses_read_it() -> None:
    body = body_of(CHAT_PATH, {**RICH, "stop": None}, "openai-responses")
    kinds = [item["type"] for item in body["input"]]
    assert kinds == [
        "message", "message", "message", "function_call", "function_call", "function_call_output",
        "function_call_output", "message",
    ]  # fmt: skip
    assert body["store"] is False
    assert body["max_output_tokens"] == 9


def test_bedrock_is_asked_as_botocore_itself_would_ask() -> None:
    """Path and body are those that the official client makes of the same conversation."""
    caught: list[Any] = []
    client = boto3.client(
        "bedrock-runtime",
        region_name="eu-west-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(parameter_validation=True),
    )

    def catch(request: Any, **_: Any) -> Any:
        caught.append(request)
        raise InterruptedError

    client.meta.events.register("before-send.bedrock-runtime.Converse", catch)
    model = "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.claude-v1:0"
    ours = planned(asked(CHAT_PATH, RICH), upstream("bedrock", model=model)).request
    body = orjson.loads(ours.body)
    said = orjson.loads(ours.body)
    image = said["messages"][0]["content"][1]["image"]["source"]
    image["bytes"] = base64.b64decode(image["bytes"])
    with pytest.raises(InterruptedError):
        client.converse(modelId=model, **said)
    theirs = caught[0]
    assert orjson.loads(theirs.body) == body
    assert theirs.url == f"https://{ours.base.authority}{ours.path}"
    headers = dict(ours.headers)
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-west-1/bedrock/aws4_request" in headers["authorization"]
    signed = {
        name.lower()
        for name in theirs.headers["Authorization"].decode().split("SignedHeaders=")[1].split(",")[0].split(";")
    }
    assert {"host", "x-amz-date"} <= signed


def test_sagemaker_wraps_what_its_container_speaks() -> None:
    attempt = planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH], stream=True), upstream("sagemaker", model="my-endpoint"))
    assert attempt.request.path == "/endpoints/my-endpoint/invocations-response-stream"
    assert attempt.request.base.host == "runtime.sagemaker.eu-west-1.amazonaws.com"
    assert "/eu-west-1/sagemaker/aws4_request" in dict(attempt.request.headers)["authorization"]
    translated = planned(asked(MESSAGES_PATH, SIMPLE[MESSAGES_PATH]), upstream("sagemaker", model="my-endpoint"))
    assert translated.request.path == "/endpoints/my-endpoint/invocations"


def test_geminis_signature_travels_in_the_id_of_the_call_and_comes_back() -> None:
    assert unpacked(packed("fc1", SIGNATURE)) == ("fc1", SIGNATURE)
    for path in (CHAT_PATH, RESPONSES_PATH, MESSAGES_PATH):
        attempt = planned(asked(path, SIMPLE[path]), upstream("gemini"))
        answered = attempt.answer(200, [], orjson.dumps(ANSWERS["gemini"]["call"][0]))
        value = orjson.loads(answered.body)
        if path == CHAT_PATH:
            said = value["choices"][0]["message"]
            result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "rain"}
            again = {**SIMPLE[path], "messages": [*SIMPLE[path]["messages"], said, result]}
        elif path == RESPONSES_PATH:
            call = value["output"][0]
            result = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
            again = {**SIMPLE[path], "input": [{"role": "user", "content": "Hello?"}, call, result]}
        else:
            result = {"type": "tool_result", "tool_use_id": value["content"][0]["id"], "content": "rain"}
            turn = [{"role": "assistant", "content": value["content"]}, {"role": "user", "content": [result]}]
            again = {**SIMPLE[path], "messages": [*SIMPLE[path]["messages"], *turn]}
        contents = body_of(path, again, "gemini")["contents"]
        assert contents[1]["parts"][0]["thoughtSignature"] == SIGNATURE
        assert contents[1]["parts"][0]["functionCall"]["id"] == "fc1"
        assert contents[2]["parts"][0]["functionResponse"]["id"] == "fc1"


def test_a_signature_of_geminis_does_not_reach_other_providers_and_ids_still_agree() -> None:
    id = packed("fc1", SIGNATURE)
    call = {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": "rain"},
    ]
    value = {**SIMPLE[CHAT_PATH], "messages": messages}
    for kind in ("anthropic", "bedrock", "openai-responses"):
        text = planned(asked(CHAT_PATH, value), upstream(kind)).request.body.decode()
        assert text.count('"fc1"') == 2
        assert "mmsig" not in text
        assert '"text":""' not in text, "an empty text beside a call is refused by Anthropic and Bedrock"
    with pytest.raises(FieldRefused):
        request = asked(MESSAGES_PATH, SIMPLE[MESSAGES_PATH])
        request.features = "a\r\nhost: b"
        planned(request, upstream("anthropic"))
    for region in ("", "evil.com/", "eu-west-1.evil.com#"):
        for kind in ("bedrock", "sagemaker"):
            with pytest.raises(Invalid):
                planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH]), upstream(kind, region=region))


def test_who_is_told_to_wait_is_told_how_long() -> None:
    headers = [(b"retry-after", b"7")]
    native = planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH]), upstream("openai"))
    assert native.answer(429, headers, b'{"error": {"message": "slow"}}').retry_after == b"7"
    with pytest.raises(UpstreamRefused) as refused:
        planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH]), upstream("gemini")).answer(429, headers, b"{}")
    assert (refused.value.upstream_status, refused.value.retry_after) == (429, b"7")


def test_anthropics_thoughts_come_back_as_they_went() -> None:
    thoughts = [
        {"type": "thinking", "thinking": "hm", "signature": "s1"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "Yes."},
    ]
    value = {
        **SIMPLE[MESSAGES_PATH],
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": thoughts}],
    }
    content = body_of(MESSAGES_PATH, value, "bedrock")["messages"][1]["content"]
    assert content == [
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s1"}}},
        {"reasoningContent": {"redactedContent": "xyz"}},
        {"text": "Yes."},
    ]


# -- round trips

NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,20}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
IDS = st.from_regex(r"[a-zA-Z0-9-]{1,20}", fullmatch=True)
ARGS = st.dictionaries(NAMES, st.integers(-9, 9) | st.text(max_size=5), max_size=3).map(
    lambda v: orjson.dumps(v).decode()
)
CALLS = st.fixed_dictionaries(
    {
        "id": IDS,
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": NAMES, "arguments": ARGS}),
    }
)
TEXT_PARTS = st.builds(lambda text: {"type": "text", "text": text}, TEXTS)
IMAGE_PARTS = st.sampled_from(["https://example.com/a.png", f"data:image/png;base64,{PIXEL}"]).map(
    lambda url: {"type": "image_url", "image_url": {"url": url}}
)
CHAT_MESSAGES = st.one_of(
    st.builds(lambda text: {"role": "system", "content": text}, TEXTS),
    st.builds(
        lambda content: {"role": "user", "content": content},
        TEXTS | st.lists(TEXT_PARTS | IMAGE_PARTS, min_size=1, max_size=3),
    ),
    st.builds(lambda text: {"role": "assistant", "content": text}, TEXTS),
    st.builds(
        lambda text, calls: {"role": "assistant", "content": text, "tool_calls": calls},
        st.none() | TEXTS,
        st.lists(CALLS, min_size=1, max_size=2),
    ),
    st.builds(lambda id, text: {"role": "tool", "tool_call_id": id, "content": text}, IDS, TEXTS),
)
CHAT_REQUESTS = st.fixed_dictionaries(
    {"model": st.just("upstream-model"), "messages": st.lists(CHAT_MESSAGES, min_size=1, max_size=6)},
    optional={
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "max_completion_tokens": st.integers(1, 1000),
        "stream": st.booleans(),
        "tools": st.lists(
            st.builds(
                lambda name, text: {
                    "type": "function",
                    "function": {"name": name, "description": text, "parameters": WEATHER},
                },
                NAMES,
                TEXTS,
            ),
            min_size=1,
            max_size=2,
        ),
        "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "f"}}]),
        "reasoning_effort": st.sampled_from(["low", "medium", "high"]),
        "response_format": st.just(
            {"type": "json_schema", "json_schema": {"name": "a", "schema": WEATHER, "strict": True}}
        ),
        "safety_identifier": NAMES,
    },
)
# What only some can say; a provider without it refuses.
CHAT_ONLY = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 99),
        "stop": st.lists(TEXTS, min_size=1, max_size=3),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "parallel_tool_calls": st.booleans(),
    },
)


def same(one: Conversation, other: Conversation) -> None:
    """The same but for how turns are divided into messages, and for what asks providers for their counts."""
    for name in ("tools", "tool_choice", "max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "effort",
                 "presence_penalty", "frequency_penalty", "parallel_tools", "user", "stream"):  # fmt: skip
        assert getattr(one, name) == getattr(other, name), name
    assert one.merged(("assistant", "user", "system")) == other.merged(("assistant", "user", "system"))


@settings(max_examples=60, deadline=None)
@given(request=CHAT_REQUESTS, more=CHAT_ONLY)
def test_chat_to_the_neutral_form_and_back_says_the_same(request: dict[str, Any], more: dict[str, Any]) -> None:
    value = orjson.loads(orjson.dumps({**request, **more}))
    read = CHAT.read(value)
    written = KINDS["openai"].dialect.write(read, upstream("openai"))  # type: ignore[union-attr]
    same(CHAT.read(orjson.loads(orjson.dumps(written))), read)
    assert written.get("response_format") == value.get("response_format")


@settings(max_examples=40, deadline=None)
@given(request=CHAT_REQUESTS)
def test_chat_to_responses_and_back_says_the_same(request: dict[str, Any]) -> None:
    read = CHAT.read(orjson.loads(orjson.dumps(request)))
    written = KINDS["openai-responses"].dialect.write(read, upstream("openai-responses"))  # type: ignore[union-attr]
    again = RESPONSES.read(orjson.loads(orjson.dumps(written)))
    same(again, read)
    assert again.response_format == read.response_format


@settings(max_examples=40, deadline=None)
@given(request=CHAT_REQUESTS)
def test_chat_to_anthropic_and_back_says_the_same(request: dict[str, Any]) -> None:
    request.setdefault("max_completion_tokens", 7)
    read = CHAT.read(orjson.loads(orjson.dumps(request)))
    written = KINDS["anthropic"].dialect.write(read, upstream("anthropic"))  # type: ignore[union-attr]
    again = MESSAGES.read(orjson.loads(orjson.dumps(written)))
    ordered = Conversation(
        **{name: getattr(read, name) for name in Conversation.__dataclass_fields__ if name != "messages"},
        messages=results_first(read),
    )
    same(again, ordered)


def results_first(conversation: Conversation) -> Any:
    from dataclasses import replace

    from services.router.gateway.conversation import ToolResult

    return tuple(
        replace(message, parts=tuple(sorted(message.parts, key=lambda part: not isinstance(part, ToolResult))))
        for message in conversation.merged()
    )


# -- refusals


@pytest.mark.parametrize(
    ("path", "change", "kind", "field"),
    [
        (CHAT_PATH, {"seed": 1}, "anthropic", "seed"),
        (CHAT_PATH, {"seed": 1}, "bedrock", "seed"),
        (CHAT_PATH, {"n": 2}, "gemini", "n"),
        (CHAT_PATH, {"logit_bias": {"1": 2}}, "anthropic", "logit_bias"),
        (CHAT_PATH, {"logprobs": True}, "bedrock", "logprobs"),
        (CHAT_PATH, {"parallel_tool_calls": False}, "gemini", "parallel_tool_calls"),
        (CHAT_PATH, {"response_format": {"type": "json_object"}}, "anthropic", "response_format"),
        (CHAT_PATH, {"temperature": 1.5}, "anthropic", "temperature"),
        (CHAT_PATH, {"reasoning_effort": "minimal"}, "anthropic", "reasoning_effort"),
        (CHAT_PATH, {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "anthropic", "tools[0].type"),
        (CHAT_PATH, {"metadata": {"a": "b"}}, "gemini", "metadata"),
        (CHAT_PATH, {"user": "u"}, "gemini", "user"),
        (CHAT_PATH, {"stop": ["a"]}, "openai-responses", "stop"),
        (CHAT_PATH, {"functions": []}, "anthropic", "functions"),
        (RESPONSES_PATH, {"previous_response_id": "r"}, "openai-compatible", "previous_response_id"),
        (RESPONSES_PATH, {"background": True}, "anthropic", "background"),
        (RESPONSES_PATH, {"store": True}, "anthropic", "store"),
        (RESPONSES_PATH, {"tools": [{"type": "web_search"}]}, "anthropic", "tools[0].type"),
        (MESSAGES_PATH, {"top_k": 3}, "openai", "top_k"),
        (MESSAGES_PATH, {"top_k": 3}, "bedrock", "top_k"),
        (MESSAGES_PATH, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "openai", "thinking.type"),
        (MESSAGES_PATH, {"container": "c"}, "openai", "container"),
        (MESSAGES_PATH, {"metadata": {"user_id": "u"}}, "gemini", "metadata.user_id"),
        (MESSAGES_PATH, {"stop_sequences": ["x"]}, "openai-responses", "stop_sequences"),
        (MESSAGES_PATH, {"cache_control": {"type": "ephemeral"}}, "openai", "cache_control"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_by_the_name_the_client_used(
    path: str, change: dict[str, Any], kind: str, field: str
) -> None:
    with pytest.raises(FieldRefused) as refused:
        planned(asked(path, {**SIMPLE[path], **change}), upstream(kind))
    assert refused.value.field == field
    assert refused.value.status == 422
    assert field in refused.value.message


BLOCK = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": "no", "is_error": True}


@pytest.mark.parametrize(
    ("path", "messages", "kind", "field"),
    [
        (MESSAGES_PATH, [{"role": "user", "content": [BLOCK]}], "openai", "messages[0].content[0].cache_control"),
        (MESSAGES_PATH, [{"role": "user", "content": [RESULT]}], "openai", "messages[0].content[0].is_error"),
        (
            MESSAGES_PATH,
            [{"role": "user", "content": [{"type": "document", "source": {}}]}],
            "gemini",
            "messages[0].content[0].type",
        ),
        (
            CHAT_PATH,
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://e.com/a"}}]}],
            "bedrock",
            "messages[0].content[0]",
        ),
        (CHAT_PATH, [{"role": "user", "content": "x", "name": "Bo"}], "anthropic", "messages[0].name"),
        (CHAT_PATH, [{"role": "king", "content": "x"}], "anthropic", "messages[0].role"),
        (CHAT_PATH, [{"role": "user"}], "anthropic", "messages[0].content"),
        (CHAT_PATH, ["x"], "anthropic", "messages[0]"),
        (CHAT_PATH, [{"role": "user", "content": 3}], "anthropic", "messages[0].content"),
        (
            CHAT_PATH,
            [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}],
            "gemini",
            "messages[1].role",
        ),
        (CHAT_PATH, [{"role": "tool", "tool_call_id": "t", "content": "b"}], "gemini", "messages[0]"),
    ],
)
def test_a_refusal_names_the_place_in_the_conversation(path: str, messages: Any, kind: str, field: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        planned(asked(path, {**SIMPLE[path], "messages": messages}), upstream(kind))
    assert refused.value.field == field


def test_what_the_operator_lets_go_goes() -> None:
    value = {**SIMPLE[MESSAGES_PATH], "top_k": 3, "messages": [{"role": "user", "content": [BLOCK, RESULT]}]}
    ignore = frozenset({"cache_control", "is_error", "top_k"})
    body = body_of(MESSAGES_PATH, value, "openai", ignore=ignore)
    assert body["messages"][1:] == [
        {"role": "tool", "tool_call_id": "t", "content": "no"},
        {"role": "user", "content": "x"},
    ]


def test_thoughts_go_where_the_operator_lets_them() -> None:
    said = {"role": "assistant", "content": "Yes.", "reasoning_content": "hm"}
    value = {**SIMPLE[CHAT_PATH], "messages": [{"role": "user", "content": "?"}, said]}
    with pytest.raises(FieldRefused, match=r"messages\[1\]\.reasoning_content"):
        body_of(CHAT_PATH, value, "anthropic")
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    blocks = {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes."}]}
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "s"}
    for path, change, name in (
        (CHAT_PATH, {"messages": value["messages"]}, "reasoning_content"),
        (MESSAGES_PATH, {"messages": [{"role": "user", "content": "?"}, blocks]}, "thinking"),
        (RESPONSES_PATH, {"input": [{"role": "user", "content": "?"}, item]}, "reasoning"),
    ):
        text = str(body_of(path, {**SIMPLE[path], **change}, "gemini", ignore=frozenset({name})))
        assert "hm" not in text
        with pytest.raises(FieldRefused):
            body_of(path, {**SIMPLE[path], **change}, "gemini")


def test_an_item_without_content_is_no_defect_of_ours() -> None:
    conversation = RESPONSES.read({"model": "g", "input": [{"role": "user", "content": []}]}, ("reasoning",))
    assert conversation.messages[0].parts == ()


def test_geminis_own_way_to_refuse_a_key() -> None:
    body = orjson.dumps({"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}], "message": f"bad {KEY}"}})
    with pytest.raises(UpstreamKeyRefused) as refused:
        planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH]), upstream("gemini")).answer(400, [], body)
    assert KEY not in str(refused.value)


def test_anthropics_new_version_takes_no_sampling() -> None:
    value = {**SIMPLE[CHAT_PATH], "temperature": 0.5}
    assert body_of(CHAT_PATH, value, "anthropic")["temperature"] == 0.5
    with pytest.raises(FieldRefused, match="temperature"):
        body_of(CHAT_PATH, value, "anthropic", api_version="2026-10-21")


INNER = st.sampled_from(["type", "role", "content", "text", "name", "function", "id"])


@pytest.mark.parametrize("protocol", [CHAT, RESPONSES, MESSAGES])
@settings(max_examples=60, deadline=None)
@given(
    value=st.dictionaries(
        st.sampled_from(["model", "messages", "input", "max_tokens", "stream", "tools", "tool_choice", "stop", "system",
                         "temperature", "response_format", "text", "reasoning", "thinking", "metadata", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
            lambda inner: st.lists(inner, max_size=2)
            | st.dictionaries(INNER, inner, max_size=3),
            max_leaves=10,
        ),
        max_size=6,
    )
)  # fmt: skip
def test_no_request_whatever_is_a_defect_of_ours(protocol: ChatProtocol, value: dict[str, Any]) -> None:
    try:
        protocol.open(orjson.dumps(value) if _small(value) else b"{}", "")
        protocol.read(value, ())
        protocol.read(value, ("thinking", "reasoning", "reasoning_content", "cache_control", "is_error"))
    except MintmarkError as error:
        assert error.status in (400, 422)


def _small(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(_small(item) for item in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or abs(value) < 1 << 60


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", Malformed), (b"{", Malformed), (b"[]", FieldRefused), (b"{}", FieldRefused),
        (b'{"model": 3, "messages": []}', FieldRefused), (b'{"model": "g", "messages": []}', FieldRefused),
        (b'{"model": "g", "messages": [{}], "stream": "yes"}', FieldRefused), (b'{"model": NaN}', Malformed),
        (b"[" * 10_000 + b"]" * 10_000, Malformed), (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, Malformed),
    ],
)  # fmt: skip
def test_what_is_no_request_at_all(body: bytes, error: type[MintmarkError]) -> None:
    with pytest.raises(error):
        asked(CHAT_PATH, body)


# -- passing through


def test_bytes_pass_untouched_but_for_the_models_name() -> None:
    body = (
        b'{ "messages":[{"role":"user","content":"\\u00e9 \\"model\\": \\"live-chat\\""}],\n'
        b' "model" : "live-chat" , "x":1.50}'
    )
    sent = planned(asked(CHAT_PATH, body), upstream("openai-compatible", model="gpt-x")).request.body
    assert sent == body.replace(b'"model" : "live-chat"', b'"model" : "gpt-x"')


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":{"model":"g"},"model":"g"}',
        b'{"model":"g","a":[{"model":"g"}]}',
        b'{"mod\\u0065l":"g","a":{"model":"g"}}',
        b'{"model":"x","model":"g"}',
        b'{"a":"\\"model\\":\\"g\\"","model":"g"}',
        b'{"model":"\\u0067"}',
    ],
)
def test_only_the_outermost_model_is_named_anew(body: bytes) -> None:
    value = orjson.loads(body)
    assert orjson.loads(with_model(body, value, 'up"x')) == {**value, "model": 'up"x'}


def test_a_stream_is_asked_for_its_usage_for_our_sake_and_keeps_it_from_the_client() -> None:
    value = {**SIMPLE[CHAT_PATH], "stream": True}
    attempt = planned(asked(CHAT_PATH, value), upstream("openai"))
    assert orjson.loads(attempt.request.body)["stream_options"] == {"include_usage": True}
    assert attempt.drops_usage
    own = planned(asked(CHAT_PATH, {**value, "stream_options": {"include_usage": True}}), upstream("openai"))
    assert not own.drops_usage
    assert not planned(asked(CHAT_PATH, value), upstream("openai"), ask_usage=False).drops_usage
    body = b'{"stream_options":{"include_obfuscation":false},"a":1}'
    assert orjson.loads(with_usage(body, orjson.loads(body))) == {
        "stream_options": {"include_obfuscation": False, "include_usage": True},
        "a": 1,
    }


def test_anthropics_clients_keep_the_version_and_features_they_were_written_for() -> None:
    request = asked(MESSAGES_PATH, SIMPLE[MESSAGES_PATH])
    request.api_version, request.features = "2026-10-21", "context-1m"
    headers = dict(planned(request, upstream("anthropic")).request.headers)
    assert (headers["anthropic-version"], headers["anthropic-beta"]) == ("2026-10-21", "context-1m")
    headers = dict(planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH]), upstream("anthropic")).request.headers)
    assert headers["anthropic-version"] == "2023-06-01"
    assert headers["x-api-key"] == KEY


def test_who_cannot_be_asked_says_so() -> None:
    tensors = {"inputs": [{"name": "a", "shape": [1], "datatype": "INT64", "data": [1]}]}
    oip = asked("/v2/models/live/infer", tensors)
    assert (oip.model, oip.stream) == ("live", False)
    for kind in ("openai", "anthropic", "gemini", "bedrock"):
        with pytest.raises(ProtocolMismatch):
            planned(oip, upstream(kind))
    with pytest.raises(ProtocolMismatch):
        planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH]), upstream("oip"))
    with pytest.raises(ProtocolMismatch):
        planned(asked("/v1/embeddings", {"model": "g", "input": "x"}), upstream("anthropic"))
    sent = planned(oip, upstream("oip", model="census/versions/3", base_url="http://models.example.com:8080")).request
    assert (sent.path, sent.body) == ("/v2/models/census/versions/3/infer", oip.body)
    assert planned(oip, upstream("sagemaker", container="oip")).request.path.endswith("/invocations")


def test_a_key_that_is_missing_or_of_another_form_is_said_without_it() -> None:
    request = asked(CHAT_PATH, SIMPLE[CHAT_PATH])
    for kind in ("anthropic", "gemini", "bedrock"):
        with pytest.raises(SealBroken):
            plan(request, upstream(kind), None, created=NOW, request_id="r")
    from services.router.gateway.sealing import Secret

    with pytest.raises(SealBroken) as broken:
        plan(request, upstream("bedrock"), Secret(KEY), created=NOW, request_id="r")
    assert KEY not in str(broken.value)
    bearer = Secret(orjson.dumps({"bearer_token": "abc"}).decode())
    sent = plan(request, upstream("bedrock"), bearer, created=NOW, request_id="r").request
    assert dict(sent.headers)["authorization"] == "Bearer abc"
    azure = plan(request, upstream("openai-compatible", key_header="api-key"), Secret(KEY), created=NOW, request_id="r")
    assert dict(azure.request.headers)["api-key"] == KEY
    assert AWS_KEY


def test_the_payload_is_http() -> None:
    request = planned(asked(CHAT_PATH, SIMPLE[CHAT_PATH]), upstream("openai")).request
    head, _, body = request.payload(b"traceparent: 00-x\r\n").partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert b"host: api.openai.com" in lines
    assert b"traceparent: 00-x" in lines
    assert f"content-length: {len(body)}".encode() in lines
    assert KEY not in repr(request)
