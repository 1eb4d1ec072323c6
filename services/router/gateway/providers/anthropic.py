"""Anthropic's messages as the provider speaks them."""

from __future__ import annotations

from typing import Any

import orjson

from services.router.errors import FieldRefused, UpstreamError, UpstreamGarbageError
from services.router.gateway.conversation import (
    Answer,
    Closed,
    Conversation,
    Event,
    Finished,
    FinishReason,
    Image,
    JsonObject,
    Message,
    Part,
    PartDelta,
    PartEnded,
    Parts,
    PartSigned,
    Refusal,
    Started,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    Usage,
    UsageKnown,
    spoken,
)
from services.router.gateway.framing import Frame, parsed
from services.router.gateway.providers.base import Decoder, Upstream, finished_or_cut
from services.router.gateway.providers.garbage import arguments_of, count, held, listed, optional, sentence, text_of

SAYS = "Anthropic"
OLDEST_VERSION = "2023-06-01"
WITHOUT_SAMPLING = "2026-10-21"
"""The version that took temperature, top_p and top_k away; versions are dates."""
FINISH: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop_sequence", "max_tokens": "length", "tool_use": "tool_use",
    "refusal": "refusal", "model_context_window_exceeded": "context", "pause_turn": "pause",
}  # fmt: skip


class AnthropicMessages:
    """See base.Dialect."""

    def path(self, upstream: Upstream, stream: bool) -> str:
        return "/v1/messages"

    # -- requests

    def write(self, conversation: Conversation, upstream: Upstream) -> JsonObject:
        c = conversation
        c.require_unset(SAYS, "seed", "presence_penalty", "frequency_penalty")
        if (upstream.api_version or OLDEST_VERSION) >= WITHOUT_SAMPLING:
            c.require_unset(f"Anthropic's API since {WITHOUT_SAMPLING}", "temperature", "top_p", "top_k")
        if c.temperature is not None and c.temperature > 1:
            c.refuse("temperature", "must lie between 0 and 1 for Anthropic")
        leading = 0
        while leading < len(c.messages) and c.messages[leading].role == "system":
            leading += 1
        system = [_block(part) for message in c.messages[:leading] for part in message.parts]
        body: JsonObject = {
            "model": upstream.model,
            "max_tokens": c.max_tokens or upstream.max_tokens,
            "messages": [_message(message) for message in c.merged()[leading:]],
        }
        output: JsonObject = {}
        if c.effort == "none":
            body["thinking"] = {"type": "disabled"}
        elif c.effort == "minimal":
            c.refuse("effort", "cannot be minimal for Anthropic; the least is low")
        elif c.effort is not None:
            output["effort"] = c.effort
        if c.response_format is not None:
            output["format"] = _format(c)
        optional: dict[str, Any] = {
            "system": system or None,
            "temperature": c.temperature,
            "top_p": c.top_p,
            "top_k": c.top_k,
            "stop_sequences": list(c.stop) or None,
            "metadata": {"user_id": c.user} if c.user is not None else None,
            "output_config": output or None,
            "tools": [_tool(tool.name, tool.description, tool.schema, tool.strict) for tool in c.tools] or None,
            "tool_choice": _tool_choice(c),
            "stream": True if c.stream else None,
        }
        body.update({name: value for name, value in optional.items() if value is not None})
        return body

    # -- answers

    def read(self, value: JsonObject, native: bool) -> Answer:
        parts: list[Part] = []
        for block in listed(value, "content"):
            part = _answer_part(block)
            if part is not None:
                parts.append(part)
            elif not native:
                raise UpstreamGarbageError(f"Anthropic answered with {block.get('type')!r}, which nobody asked for.")
        usage = value.get("usage")
        return Answer(
            text_of(value, "id"),
            text_of(value, "model"),
            tuple(parts),
            FINISH.get(text_of(value, "stop_reason"), "other"),
            usage_of(usage) if isinstance(usage, dict) else None,
            text_of(value, "stop_sequence") or None,
        )

    def decoder(self, native: bool) -> Decoder:
        return MessageDecoder(native)


class MessageDecoder:
    """See base.Decoder."""

    def __init__(self, native: bool) -> None:
        self._native = native
        self._parts = Parts()
        self._usage: JsonObject = {}
        self._finished = False
        self._closed = False

    def decode(self, frame: Frame) -> list[Event]:
        if not frame.data or self._closed:
            return []
        value = parsed(frame.data)
        match value.get("type"):
            case "message_start":
                message = held(value, "message")
                return [Started(text_of(message, "id"), text_of(message, "model")), *self._count(message)]
            case "content_block_start":
                return self._start(value)
            case "content_block_delta":
                return self._more(value)
            case "content_block_stop":
                return [PartEnded(found)] if (found := self._stop(value)) is not None else []
            case "message_delta":
                return self._finish(value)
            case "message_stop":
                if not self._finished:
                    raise UpstreamGarbageError("Anthropic's stream ended without saying how.")
                self._closed = True
                return [Closed()]
            case "error":
                raise UpstreamError(f"The provider broke its stream off: {sentence(value)}")
        return []  # ping, and whatever is new: the API's versions allow new events

    def end(self) -> list[Event]:
        return finished_or_cut(self._closed, self._closed)

    def _start(self, value: JsonObject) -> list[Event]:
        block, key = held(value, "content_block"), count(value, "index")
        match block.get("type"):
            case "text":
                index, events = self._parts.at(key, "text")
                return _with(events, index, text_of(block, "text"))
            case "thinking":
                index, events = self._parts.at(key, "thinking")
                return _with(events, index, text_of(block, "thinking"))
            case "redacted_thinking":
                return self._parts.at(key, "thinking", sealed=text_of(block, "data"))[1]
            case "tool_use":
                index, events = self._parts.at(key, "tool_use", text_of(block, "id"), text_of(block, "name"))
                return _with(events, index, arguments_of(block["input"]) if block.get("input") else "")
        if self._native:
            return self._parts.end()
        raise UpstreamGarbageError(f"Anthropic answered with {block.get('type')!r}, which nobody asked for.")

    def _more(self, value: JsonObject) -> list[Event]:
        delta = held(value, "delta")
        index = self._parts.open_index(count(value, "index"))
        if index is None:
            if self._native:
                return []
            raise UpstreamGarbageError("Anthropic's stream goes on with a part that is not open.")
        match delta.get("type"):
            case "text_delta":
                return [PartDelta(index, text_of(delta, "text"))]
            case "input_json_delta":
                return [PartDelta(index, text_of(delta, "partial_json"))]
            case "thinking_delta":
                return [PartDelta(index, text_of(delta, "thinking"))]
            case "signature_delta":
                return [PartSigned(index, text_of(delta, "signature"))]
        return []

    def _stop(self, value: JsonObject) -> int | None:
        index = self._parts.open_index(count(value, "index"))
        if index is not None:
            self._parts.end()
        return index

    def _finish(self, value: JsonObject) -> list[Event]:
        delta = held(value, "delta")
        events = [*self._parts.end(), *self._count(value)]
        reason = text_of(delta, "stop_reason")
        if reason:
            self._finished = True
            events.append(Finished(FINISH.get(reason, "other"), text_of(delta, "stop_sequence") or None))
        return events

    def _count(self, value: JsonObject) -> list[Event]:
        """Counts are cumulative; a later event may leave out those that an earlier one gave."""
        usage = value.get("usage")
        if not isinstance(usage, dict):
            return []
        self._usage.update({name: found for name, found in usage.items() if found is not None})
        return [UsageKnown(usage_of(self._usage))]


def usage_of(usage: JsonObject) -> Usage:
    """Cached tokens stand beside `input_tokens` and not within."""
    read, written = count(usage, "cache_read_input_tokens"), count(usage, "cache_creation_input_tokens")
    details = optional(usage, "output_tokens_details")
    return Usage(
        count(usage, "input_tokens") + read + written,
        count(usage, "output_tokens"),
        read,
        written,
        count(details, "thinking_tokens"),
    )


def _with(events: list[Event], index: int, text: str) -> list[Event]:
    return [*events, PartDelta(index, text)] if text else events


def _answer_part(block: JsonObject) -> Part | None:
    match block.get("type"):
        case "text":
            return Text(text_of(block, "text"))
        case "tool_use":
            return ToolUse(text_of(block, "id"), text_of(block, "name"), arguments_of(block.get("input")))
        case "thinking":
            return Thinking(text_of(block, "thinking"), text_of(block, "signature"))
        case "redacted_thinking":
            return Thinking(sealed=text_of(block, "data"))
    return None


# -- parts of a request


def _message(message: Message) -> JsonObject:
    parts = spoken(message.parts)
    results = [_block(part) for part in parts if isinstance(part, ToolResult)]
    others = [_block(part) for part in parts if not isinstance(part, ToolResult)]
    return {"role": message.role, "content": results + others}  # results must come first


def _block(part: Part) -> JsonObject:
    match part:
        case Text(text) | Refusal(text):
            return {"type": "text", "text": text}
        case Image():
            return _image(part)
        case ToolUse(id, name):
            return {"type": "tool_use", "id": id, "name": name, "input": input_of(part)}
        case ToolResult(id, content, is_error):
            result: JsonObject = {
                "type": "tool_result",
                "tool_use_id": id,
                "content": [_block(item) for item in content],
            }
            return {**result, "is_error": True} if is_error else result
        case Thinking(_, _, sealed) if sealed:
            return {"type": "redacted_thinking", "data": sealed}
        case Thinking(text, signature) if signature:
            return {"type": "thinking", "thinking": text, "signature": signature}
    raise FieldRefused(part.where, "has no signature of Anthropic's, which takes no other reasoning; leave it out")


def input_of(call: ToolUse) -> JsonObject:
    """A call's arguments as an object. Raises FieldRefused."""
    try:
        found = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise FieldRefused(call.where, "has arguments that are not a JSON object")
    return found


def _image(image: Image) -> JsonObject:
    if image.detail:
        raise FieldRefused(f"{image.where}.detail", f"cannot be said to {SAYS}; leave it out")
    if image.url:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": image.data}}


def _tool(name: str, description: str, schema: Any, strict: bool | None) -> JsonObject:
    tool: JsonObject = {"name": name, "input_schema": schema or {"type": "object", "properties": {}}}
    if description:
        tool["description"] = description
    return {**tool, "strict": strict} if strict is not None else tool


def _tool_choice(c: Conversation) -> JsonObject | None:
    chosen = c.tool_choice
    if chosen is None and (c.parallel_tools is not False or not c.tools):
        return None
    choice: JsonObject = {"type": chosen.mode if chosen else "auto"}
    if chosen is not None and chosen.mode == "tool":
        choice["name"] = chosen.name
    if c.parallel_tools is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _format(c: Conversation) -> JsonObject:
    format = c.response_format
    assert format is not None
    if format.kind == "json" or format.schema is None:
        c.refuse("response_format", "must have a JSON Schema for Anthropic, which has no mode for any JSON")
    if format.description:
        c.refuse("response_format", "cannot have a description for Anthropic; put it into the schema")
    return {"type": "json_schema", "schema": format.schema}
