"""Anthropic's messages as clients speak them: `POST /v1/messages`, in both API versions, 2023-06-01 and 2026-10-21.

Shapes: the types of the official client `anthropic`, 2.11 (`anthropic.types`). Version 2026-10-21 took `temperature`,
`top_p` and `top_k` away; they are read here because clients of the older version send them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import orjson

from services.router.gateway.conversation import (
    Answer,
    Closed,
    Conversation,
    Effort,
    Event,
    Finished,
    FinishReason,
    Image,
    JsonObject,
    Message,
    Mode,
    Part,
    PartDelta,
    PartEnded,
    PartKind,
    PartSigned,
    PartStarted,
    Refusal,
    ResponseFormat,
    Role,
    Started,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Usage,
    UsageKnown,
)
from services.router.gateway.framing import parsed, sse
from services.router.gateway.protocols import signatures
from services.router.gateway.protocols.base import Asked, StreamWriter, status_of
from services.router.gateway.protocols.opening import opened
from services.router.gateway.protocols.reading import Fields, each
from shared.errors import MintmarkError

EFFORTS: dict[str, Effort] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn", "stop_sequence": "stop_sequence", "length": "max_tokens", "tool_use": "tool_use",
    "filter": "refusal", "refusal": "refusal", "context": "model_context_window_exceeded", "pause": "pause_turn",
    "other": "end_turn",
}  # fmt: skip
ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
    529: "overloaded_error",
}  # fmt: skip
ASKS_NOTHING: dict[str, tuple[object, ...]] = {"service_tier": ("auto", "standard_only"), "speed": ("standard",)}
ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
MODES: dict[str, Mode] = {"auto": "auto", "any": "any", "none": "none", "tool": "tool"}
CACHE = "cache_control"
NAMES = {
    "stop": "stop_sequences", "user": "metadata.user_id", "effort": "output_config.effort",
    "response_format": "output_config.format", "parallel_tools": "tool_choice.disable_parallel_tool_use",
}  # fmt: skip


class Messages:
    """See base.ChatProtocol."""

    name = "messages"

    def open(self, body: bytes, path: str) -> Asked:
        return opened(self, body, "messages")

    def error(self, error: MintmarkError, request_id: str) -> bytes:
        return orjson.dumps(error_json(error, request_id))

    # -- requests

    def read(self, value: JsonObject, ignore: Collection[str] = ()) -> Conversation:
        reader = _Reader(ignore)
        fields = Fields(value)
        fields.drop(ASKS_NOTHING)
        tool_choice, parallel_tools = _tool_choice(fields)
        effort, response_format = _output(fields)
        metadata = fields.child("metadata")
        user = metadata.optional_text("user_id") if metadata is not None else None
        if metadata is not None:
            metadata.end()
        limit = fields.integer("max_tokens", 1)
        if limit is None:
            fields.refuse("max_tokens", "is missing")
        conversation = Conversation(
            model=fields.text("model"),
            messages=(
                *reader.system(fields),
                *(reader.message(message) for message in each(fields.require("messages"), "messages")),
            ),
            stream=fields.boolean("stream") or False,
            tools=tuple(reader.tool(tool) for tool in fields.children("tools")),
            tool_choice=tool_choice,
            parallel_tools=parallel_tools,
            max_tokens=limit,
            temperature=fields.number("temperature", 0, 1),
            top_p=fields.number("top_p", 0, 1),
            top_k=fields.integer("top_k", 0),
            stop=fields.texts("stop_sequences"),
            response_format=response_format,
            effort=effort,
            user=user,
            names=NAMES,
        )
        fields.end()
        return conversation

    # -- answers

    def write(self, answer: Answer, conversation: Conversation, created: int) -> JsonObject:
        return {
            "id": answer.id,
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [_block(part) for part in answer.parts],
            "stop_reason": STOP_REASONS[answer.finish],
            "stop_sequence": answer.stop_sequence,
            "usage": usage_json(answer.usage or Usage()),
        }

    def stream(self, conversation: Conversation | None, created: int) -> StreamWriter:
        return MessageStream()


class MessageStream:
    """See base.StreamWriter. The end of the message waits for the usage, which belongs into it."""

    def __init__(self) -> None:
        self._kinds: dict[int, PartKind] = {}
        self._usage = Usage()
        self._finished = Finished("other")

    def write(self, event: Event) -> bytes:
        match event:
            case Started(id, model):
                return _event("message_start", message=self._start(id, model))
            case PartStarted(index, kind):
                self._kinds[index] = kind
                block = _begun(event)
                return _event("content_block_start", index=index, content_block=block)
            case PartDelta(index, text):
                if not text:
                    return b""
                return _event("content_block_delta", index=index, delta=_delta(self._kinds[index], text))
            case PartSigned(index, signature):
                delta = {"type": "signature_delta", "signature": signature}
                return _event("content_block_delta", index=index, delta=delta)
            case PartEnded(index):
                return _event("content_block_stop", index=index)
            case UsageKnown(usage):
                self._usage = usage
            case Finished():
                self._finished = event
            case Closed():
                return self._close()
        return b""

    def fail(self, error: MintmarkError) -> bytes:
        return sse(error_json(error, ""), "error")

    def _start(self, id: str, model: str) -> JsonObject:
        return {
            "id": id, "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": {**usage_json(self._usage), "output_tokens": 0},
        }  # fmt: skip

    def _close(self) -> bytes:
        delta = {
            "stop_reason": STOP_REASONS[self._finished.reason],
            "stop_sequence": self._finished.stop_sequence,
        }
        return _event("message_delta", delta=delta, usage=usage_json(self._usage)) + _event("message_stop")


def error_json(error: MintmarkError, request_id: str) -> JsonObject:
    status = status_of(error)
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    value: JsonObject = {"type": "error", "error": {"type": kind, "message": error.message}}
    if request_id:
        value["request_id"] = request_id
    return value


def usage_json(usage: Usage) -> JsonObject:
    """Anthropic counts cached tokens beside the input, not within it."""
    return {
        "input_tokens": usage.input - usage.cache_read - usage.cache_write,
        "output_tokens": usage.output,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write,
    }


def _event(kind: str, **more: object) -> bytes:
    return sse({"type": kind, **more}, kind)


def _begun(part: PartStarted) -> JsonObject:
    match part:
        case PartStarted(_, "tool_use", id, name, signature):
            return {"type": "tool_use", "id": signatures.packed(id, signature), "name": name, "input": {}}
        case PartStarted(_, "thinking", sealed=sealed) if sealed:
            return {"type": "redacted_thinking", "data": sealed}
        case PartStarted(_, "thinking"):
            return {"type": "thinking", "thinking": "", "signature": ""}
        case _:
            return {"type": "text", "text": ""}


def _delta(kind: PartKind, text: str) -> JsonObject:
    match kind:
        case "tool_use":
            return {"type": "input_json_delta", "partial_json": text}
        case "thinking":
            return {"type": "thinking_delta", "thinking": text}
        case _:
            return {"type": "text_delta", "text": text}


def _block(part: Part) -> JsonObject:
    match part:
        case ToolUse(id, name, arguments, signature):
            input = parsed(arguments.encode() or b"{}")
            return {"type": "tool_use", "id": signatures.packed(id, signature), "name": name, "input": input}
        case Thinking(_, _, sealed) if sealed:
            return {"type": "redacted_thinking", "data": sealed}
        case Thinking(text, signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
        case Text(text) | Refusal(text):
            return {"type": "text", "text": text}
        case _:
            raise TypeError(f"a model does not answer with {type(part).__name__}")


# -- parts of a request


class _Reader:
    """Reads messages and tools; cache hints, marks of failed tools and thoughts go if the operator lets them."""

    def __init__(self, ignore: Collection[str]) -> None:
        self._lets_cache_go = CACHE in ignore
        self._lets_is_error_go = "is_error" in ignore
        self._lets_thinking_go = "thinking" in ignore

    def system(self, fields: Fields) -> Iterator[Message]:
        value = fields.take("system")
        if isinstance(value, str):
            yield Message("system", (Text(value, where="system"),), where="system")
        elif value is not None:
            texts = tuple(self._part(block, ("text",)) for block in each(value, "system"))
            if texts:
                yield Message("system", texts, where="system")

    def message(self, fields: Fields) -> Message:
        role = ROLES[fields.choice("role", ROLES) or fields.require("role")]
        kinds = {
            "user": ("text", "image", "tool_result"),
            "assistant": ("text", "tool_use", "thinking", "redacted_thinking"),
            "system": ("text",),
        }[role]
        parts = tuple(self._contents(fields, fields.require("content"), kinds))
        fields.end()
        return Message(role, parts, where=fields.path)

    def tool(self, fields: Fields) -> Tool:
        fields.choice("type", ("custom",))
        self._cache(fields)
        tool = Tool(
            fields.text("name"),
            fields.optional_text("description") or "",
            fields.mapping("input_schema"),
            fields.boolean("strict"),
        )
        fields.end()
        return tool

    def _contents(self, fields: Fields, value: object, kinds: Collection[str]) -> Iterator[Part]:
        if isinstance(value, str):
            yield Text(value, where=fields.at("content"))
            return
        for block in each(value, fields.at("content")):
            part = self._part(block, kinds)
            if not (self._lets_thinking_go and isinstance(part, Thinking)):
                yield part

    def _part(self, block: Fields, kinds: Collection[str]) -> Part:
        kind = block.choice("type", kinds) or block.require("type")
        self._cache(block)
        part: Part
        match kind:
            case "text":
                block.drop({"citations": ([],)})
                part = Text(block.text("text"), where=block.path)
            case "image":
                part = _image(block)
            case "tool_use":
                id, signature = signatures.unpacked(block.text("id"))
                input = block.mapping("input")
                arguments = orjson.dumps(input if input is not None else {}).decode()
                block.drop({"caller": ({"type": "direct"},)})
                part = ToolUse(id, block.text("name"), arguments, signature, where=block.path)
            case "tool_result":
                part = self._tool_result(block)
            case "thinking":
                part = Thinking(block.text("thinking"), block.text("signature"), where=block.path)
            case _:
                part = Thinking(sealed=block.text("data"), where=block.path)
        block.end()
        return part

    def _tool_result(self, block: Fields) -> ToolResult:
        id, _ = signatures.unpacked(block.text("tool_use_id"))
        value = block.take("content")
        found = () if value is None else tuple(self._contents(block, value, ("text", "image")))
        content = tuple(part for part in found if isinstance(part, Text | Image))
        is_error = block.boolean("is_error") or False
        return ToolResult(id, content, is_error and not self._lets_is_error_go, where=block.path)

    def _cache(self, fields: Fields) -> None:
        if self._lets_cache_go:
            fields.forget(CACHE)


def _image(block: Fields) -> Image:
    source = block.child("source") or block.refuse("source", "is missing")
    if source.choice("type", ("base64", "url")) == "url":
        image = Image(url=source.text("url"), where=block.path)
    else:
        media_type = source.choice("media_type", IMAGE_TYPES) or source.require("media_type")
        image = Image(media_type, source.text("data"), where=block.path)
    source.end()
    return image


def _tool_choice(fields: Fields) -> tuple[ToolChoice | None, bool | None]:
    choice = fields.child("tool_choice")
    if choice is None:
        return None, None
    kind = MODES[choice.choice("type", MODES) or choice.require("type")]
    disabled = choice.boolean("disable_parallel_tool_use")
    name = choice.text("name") if kind == "tool" else ""
    choice.end()
    return ToolChoice(kind, name), None if disabled is None else not disabled


def _output(fields: Fields) -> tuple[Effort | None, ResponseFormat | None]:
    effort: Effort | None = None
    format: ResponseFormat | None = None
    config = fields.child("output_config")
    if config is not None:
        chosen = config.choice("effort", EFFORTS)
        effort = EFFORTS[chosen] if chosen else None
        found = config.child("format")
        if found is not None:
            found.choice("type", ("json_schema",))
            format = ResponseFormat("schema", found.mapping("schema") or found.refuse("schema", "is missing"))
            found.end()
        config.end()
    thinking = fields.child("thinking")
    if thinking is not None:
        kind = thinking.choice("type", ("adaptive", "disabled"))
        if kind == "disabled":
            if effort is not None:
                fields.refuse("thinking", "cannot be disabled and have an effort for the provider behind this version")
            effort = "none"
        thinking.end()  # adaptive: the model decides, as without the field
    return effort, format
