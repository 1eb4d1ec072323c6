"""OpenAI's chat completions as clients speak them: `POST /v1/chat/completions`.

Shapes: the types of the official client `openai`, 3.52 (`openai.types.chat`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from services.router.errors import FieldRefused
from services.router.gateway.conversation import (
    Answer,
    Closed,
    Conversation,
    Effort,
    Event,
    Finished,
    FinishReason,
    JsonObject,
    Message,
    Part,
    PartDelta,
    PartStarted,
    Refusal,
    ResponseFormat,
    Started,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Usage,
    UsageKnown,
    parts_of,
)
from services.router.gateway.framing import sse
from services.router.gateway.protocols import openai_errors, signatures
from services.router.gateway.protocols.base import Asked, StreamWriter
from services.router.gateway.protocols.opening import opened
from services.router.gateway.protocols.reading import Fields, each, image_of
from shared.errors import MintmarkError

EFFORTS: dict[str, Effort] = {
    "none": "none", "minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh",
    "max": "max",
}  # fmt: skip
ASKS_NOTHING: dict[str, tuple[object, ...]] = {
    "n": (1,), "logprobs": (False,), "store": (False,), "service_tier": ("auto", "default"), "modalities": (["text"],),
    "logit_bias": ({},), "metadata": ({},), "top_logprobs": (0,),
}  # fmt: skip
FINISH: dict[FinishReason, str] = {
    "stop": "stop", "stop_sequence": "stop", "length": "length", "tool_use": "tool_calls", "filter": "content_filter",
    "refusal": "content_filter", "context": "length", "pause": "stop", "other": "stop",
}  # fmt: skip
THOUGHTS = "reasoning_content"  # no field of OpenAI's own, but one that servers send and its clients keep
ROLES = ("system", "developer", "user", "assistant", "tool")


class ChatCompletions:
    """See base.ChatProtocol."""

    name = "chat"

    def open(self, body: bytes, path: str) -> Asked:
        return opened(self, body, "messages")

    def error(self, error: MintmarkError, request_id: str) -> bytes:
        return openai_errors.body(error, request_id)

    # -- requests

    def read(self, value: JsonObject, ignore: Collection[str] = ()) -> Conversation:
        fields = Fields(value)
        options = fields.child("stream_options")
        include_usage = False
        if options is not None:
            include_usage = options.boolean("include_usage") or False
            options.boolean("include_obfuscation")  # padding against eavesdroppers; only whoever streams can add it
            options.end()
        fields.drop(ASKS_NOTHING)
        limit = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
        conversation = Conversation(
            model=fields.text("model"),
            messages=tuple(_message(message, ignore) for message in each(fields.require("messages"), "messages")),
            stream=fields.boolean("stream") or False,
            tools=tuple(_tool(tool) for tool in fields.children("tools")),
            tool_choice=_tool_choice(fields),
            parallel_tools=fields.boolean("parallel_tool_calls"),
            max_tokens=fields.integer(limit, 1),
            temperature=fields.number("temperature", 0, 2),
            top_p=fields.number("top_p", 0, 1),
            stop=_stop(fields),
            seed=fields.integer("seed"),
            presence_penalty=fields.number("presence_penalty", -2, 2),
            frequency_penalty=fields.number("frequency_penalty", -2, 2),
            response_format=_response_format(fields),
            effort=EFFORTS[chosen] if (chosen := fields.choice("reasoning_effort", EFFORTS)) else None,
            user=fields.optional_text("safety_identifier") or fields.optional_text("user"),
            include_usage=include_usage,
            names={"max_tokens": limit, "effort": "reasoning_effort", "parallel_tools": "parallel_tool_calls"},
        )
        fields.end()
        return conversation

    # -- answers

    def write(self, answer: Answer, conversation: Conversation, created: int) -> JsonObject:
        message: JsonObject = {"role": "assistant", "content": None, "refusal": None}
        if texts := parts_of(answer.parts, Text):
            message["content"] = "".join(part.text for part in texts)
        if refusals := parts_of(answer.parts, Refusal):
            message["refusal"] = "".join(part.text for part in refusals)
        if thoughts := "".join(part.text for part in parts_of(answer.parts, Thinking)):
            message[THOUGHTS] = thoughts
        if calls := parts_of(answer.parts, ToolUse):
            message["tool_calls"] = [
                {
                    "id": signatures.packed(call.id, call.signature),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments or "{}"},
                }
                for call in calls
            ]
        value: JsonObject = {
            "id": answer.id,
            "object": "chat.completion",
            "created": created,
            "model": answer.model,
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": FINISH[answer.finish]},
            ],
        }
        if answer.usage is not None:
            value["usage"] = usage_json(answer.usage)
        return value

    def stream(self, conversation: Conversation | None, created: int) -> StreamWriter:
        return ChatStream(conversation is not None and conversation.include_usage, created)


class ChatStream:
    """See base.StreamWriter."""

    def __init__(self, include_usage: bool, created: int) -> None:
        self._include_usage = include_usage
        self._head: JsonObject = {"id": "", "object": "chat.completion.chunk", "created": created, "model": ""}
        self._kinds: dict[int, str] = {}
        self._calls: dict[int, int] = {}
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Started(id, model):
                self._head["id"], self._head["model"] = id, model
                return self._chunk({"role": "assistant", "content": "", "refusal": None})
            case PartStarted(index, kind, id, name, signature):
                self._kinds[index] = kind
                if kind != "tool_use":
                    return b""
                self._calls[index] = len(self._calls)
                called = {"name": name, "arguments": ""}
                return self._call(
                    index, {"id": signatures.packed(id, signature), "type": "function", "function": called}
                )
            case PartDelta(index, text):
                match self._kinds[index]:
                    case "text":
                        return self._chunk({"content": text})
                    case "refusal":
                        return self._chunk({"refusal": text})
                    case "thinking":
                        return self._chunk({THOUGHTS: text})
                    case _:
                        return self._call(index, {"function": {"arguments": text}})
            case UsageKnown(usage):
                self._usage = usage
            case Finished(reason):
                return self._chunk({}, FINISH[reason])
            case Closed():
                return self._close()
        return b""

    def fail(self, error: MintmarkError) -> bytes:
        return sse(openai_errors.value(error, ""))

    def _call(self, index: int, call: JsonObject) -> bytes:
        return self._chunk({"tool_calls": [{"index": self._calls[index], **call}]})

    def _chunk(self, delta: JsonObject, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        more = {"usage": None} if self._include_usage else {}
        return sse({**self._head, "choices": [choice], **more})

    def _close(self) -> bytes:
        done = sse(b"[DONE]")
        if not self._include_usage or self._usage is None:
            return done
        return sse({**self._head, "choices": [], "usage": usage_json(self._usage)}) + done


def usage_json(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


# -- parts of a request


def _message(fields: Fields, ignore: Collection[str]) -> Message:
    if THOUGHTS in ignore:
        fields.forget(THOUGHTS)
    role = fields.choice("role", ROLES) or fields.require("role")
    where = fields.path
    if role == "tool":
        id, _ = signatures.unpacked(fields.text("tool_call_id"))
        content = tuple(_contents(fields, "content", ("text",)))
        fields.end()
        texts = tuple(part for part in content if isinstance(part, Text))
        return Message("user", (ToolResult(id, texts, where=where),), where=where)
    if role == "assistant":
        parts = tuple(_assistant_parts(fields))
        fields.end()
        return Message("assistant", parts, where=where)
    kinds = ("text", "image_url") if role == "user" else ("text",)
    parts = tuple(_contents(fields, "content", kinds))
    fields.end()
    return Message("user" if role == "user" else "system", parts, where=where)


def _assistant_parts(fields: Fields) -> Iterator[Part]:
    thoughts = fields.optional_text(THOUGHTS)
    if thoughts:
        yield Thinking(thoughts, where=fields.at(THOUGHTS))
    if "content" in fields:
        yield from _contents(fields, "content", ("text", "refusal"))
    refusal = fields.optional_text("refusal")
    if refusal:
        yield Refusal(refusal, where=fields.at("refusal"))
    for call in fields.children("tool_calls"):
        call.choice("type", ("function",))
        function = call.child("function")
        if function is None:
            call.refuse("function", "is missing")
        id, signature = signatures.unpacked(call.text("id"))
        yield ToolUse(id, function.text("name"), function.text("arguments"), signature, where=call.path)
        function.end()
        call.end()
    fields.drop({"audio": (None,), "annotations": ([],)})


def _contents(fields: Fields, name: str, kinds: Collection[str]) -> Iterator[Part]:
    """Content as text or as a list of parts."""
    value = fields.require(name)
    where = fields.at(name)
    if isinstance(value, str):
        yield Text(value, where=where)
        return
    for part in each(value, where):
        kind = part.choice("type", kinds)
        if kind == "image_url":
            image = part.child("image_url") or part.refuse("image_url", "is missing")
            yield image_of(image.text("url"), _detail(image), part.path)
            image.end()
        elif kind == "refusal":
            yield Refusal(part.text("refusal"), where=part.path)
        else:
            yield Text(part.text("text"), where=part.path)
        part.end()


def _detail(image: Fields) -> str:
    detail = image.choice("detail", ("auto", "low", "high", "original"))
    return "" if detail in (None, "auto") else str(detail)


def _tool(fields: Fields) -> Tool:
    fields.choice("type", ("function",))
    function = fields.child("function") or fields.refuse("function", "is missing")
    tool = Tool(
        function.text("name"),
        function.optional_text("description") or "",
        function.mapping("parameters"),
        function.boolean("strict"),
    )
    function.end()
    fields.end()
    return tool


def _tool_choice(fields: Fields) -> ToolChoice | None:
    value = fields.take("tool_choice")
    if value is None:
        return None
    if isinstance(value, str):
        match value:
            case "auto" | "none":
                return ToolChoice("auto" if value == "auto" else "none")
            case "required":
                return ToolChoice("any")
        raise FieldRefused("tool_choice", "must be auto, none, required or a function")
    choice = Fields(value, "tool_choice")
    choice.choice("type", ("function",))
    function = choice.child("function") or choice.refuse("function", "is missing")
    chosen = ToolChoice("tool", function.text("name"))
    function.end()
    choice.end()
    return chosen


def _stop(fields: Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    if isinstance(value, str):
        return (value,)
    return Fields({"stop": value}).texts("stop")


def _response_format(fields: Fields) -> ResponseFormat | None:
    found = fields.child("response_format")
    if found is None:
        return None
    kind = found.choice("type", ("text", "json_object", "json_schema"))
    if kind == "json_schema":
        schema = found.child("json_schema") or found.refuse("json_schema", "is missing")
        result: ResponseFormat | None = ResponseFormat(
            "schema",
            schema.mapping("schema"),
            schema.text("name"),
            schema.optional_text("description") or "",
            schema.boolean("strict"),
        )
        schema.end()
    else:
        result = ResponseFormat("json") if kind == "json_object" else None
    found.end()
    return result
