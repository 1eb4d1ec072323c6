"""OpenAI's responses as the provider speaks them."""

from __future__ import annotations

from typing import Any

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
    Parts,
    Refusal,
    ResponseFormat,
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
from services.router.gateway.protocols.responses import tool_choice_json, tool_json
from services.router.gateway.providers.base import Decoder, Upstream, finished_or_cut
from services.router.gateway.providers.garbage import count, held, listed, optional, sentence, text_of

SAYS = "OpenAI's responses"
INCOMPLETE: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "filter"}
ENDINGS = ("response.completed", "response.incomplete", "response.failed")


class OpenAIResponses:
    """See base.Dialect."""

    def path(self, upstream: Upstream, stream: bool) -> str:
        return "/responses"

    # -- requests

    def write(self, conversation: Conversation, upstream: Upstream) -> JsonObject:
        c = conversation
        c.require_unset(SAYS, "top_k", "stop", "seed", "presence_penalty", "frequency_penalty")
        body: JsonObject = {
            "model": upstream.model,
            "input": [item for message in c.messages for item in _items(message)],
            "store": False,  # no other protocol keeps conversations at the provider, and its clients do not expect it
        }
        optional: dict[str, Any] = {
            "max_output_tokens": c.max_tokens,
            "temperature": c.temperature,
            "top_p": c.top_p,
            "parallel_tool_calls": c.parallel_tools,
            "reasoning": {"effort": c.effort} if c.effort else None,
            "text": {"format": _format(c.response_format)} if c.response_format else None,
            "tools": [tool_json(tool) for tool in c.tools] or None,
            "tool_choice": tool_choice_json(c.tool_choice) if c.tool_choice else None,
            "safety_identifier": c.user,
            "stream": True if c.stream else None,
        }
        body.update({name: value for name, value in optional.items() if value is not None})
        return body

    # -- answers

    def read(self, value: JsonObject, native: bool) -> Answer:
        if value.get("status") == "failed":
            raise UpstreamError(f"The provider failed: {sentence(value.get('error'))}")
        parts: list[Part] = []
        for item in listed(value, "output"):
            found = _answer_parts(item)
            if found is None and not native:
                raise UpstreamGarbageError(f"The provider answered with {item.get('type')!r}, which nobody asked for.")
            parts += found or ()
        usage = value.get("usage")
        return Answer(
            text_of(value, "id"),
            text_of(value, "model"),
            tuple(parts),
            _finish(value, any(isinstance(part, ToolUse) for part in parts)),
            usage_of(usage) if isinstance(usage, dict) else None,
        )

    def decoder(self, native: bool) -> Decoder:
        return ResponseDecoder(native)


class ResponseDecoder:
    """See base.Decoder."""

    def __init__(self, native: bool) -> None:
        self._native = native
        self._parts = Parts()
        self._called = False
        self._finished = False

    def decode(self, frame: Frame) -> list[Event]:
        if not frame.data or self._finished or frame.data.strip() == b"[DONE]":
            return []
        value = parsed(frame.data)
        kind = text_of(value, "type")
        match kind:
            case "response.created":
                response = held(value, "response")
                return [Started(text_of(response, "id"), text_of(response, "model"))]
            case "response.output_item.added":
                return self._start(value)
            case "response.output_text.delta" | "response.refusal.delta":
                part = "refusal" if kind == "response.refusal.delta" else "text"
                return self._more(value, ("content", count(value, "content_index")), part)
            case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
                return self._more(value, ("thinking",), "thinking")
            case "response.function_call_arguments.delta":
                return self._more(value, ("call",), "tool_use")
            case "error":
                raise UpstreamError(f"The provider broke its stream off: {sentence(value)}")
        return self._ending(held(value, "response"), kind) if kind in ENDINGS else []

    def end(self) -> list[Event]:
        return finished_or_cut(self._finished, closed=True)

    def _start(self, value: JsonObject) -> list[Event]:
        item, key = held(value, "item"), count(value, "output_index")
        match item.get("type"):
            case "function_call":
                self._called = True
                return self._parts.at((key, "call"), "tool_use", text_of(item, "call_id"), text_of(item, "name"))[1]
            case "message" | "reasoning":
                return self._parts.end()
        if self._native:
            return self._parts.end()
        raise UpstreamGarbageError(f"The provider answered with {item.get('type')!r}, which nobody asked for.")

    def _more(self, value: JsonObject, place: tuple[Any, ...], kind: Any) -> list[Event]:
        key = (count(value, "output_index"), *place)
        if kind == "tool_use" and self._parts.open_index(key) is None:
            raise UpstreamGarbageError("The provider goes on with a tool call that it never began.")
        index, events = self._parts.at(key, kind)
        return [*events, PartDelta(index, text_of(value, "delta"))]

    def _ending(self, response: JsonObject, kind: str) -> list[Event]:
        if kind == "response.failed":
            raise UpstreamError(f"The provider broke its stream off: {sentence(response.get('error'))}")
        self._finished = True
        usage = response.get("usage")
        counted: list[Event] = [UsageKnown(usage_of(usage))] if isinstance(usage, dict) else []
        return [*self._parts.end(), *counted, Finished(_finish(response, self._called)), Closed()]


def usage_of(usage: JsonObject) -> Usage:
    given, made = optional(usage, "input_tokens_details"), optional(usage, "output_tokens_details")
    return Usage(
        count(usage, "input_tokens"),
        count(usage, "output_tokens"),
        count(given, "cached_tokens"),
        count(given, "cache_write_tokens"),
        count(made, "reasoning_tokens"),
    )


def _finish(response: JsonObject, called: bool) -> FinishReason:
    if response.get("status") == "incomplete":
        details = optional(response, "incomplete_details")
        return INCOMPLETE.get(text_of(details, "reason"), "other")
    return "tool_use" if called else "stop"


def _answer_parts(item: JsonObject) -> list[Part] | None:
    match item.get("type"):
        case "message":
            parts: list[Part] = []
            for content in listed(item, "content"):
                refused = content.get("type") == "refusal"
                parts.append(Refusal(text_of(content, "refusal")) if refused else Text(text_of(content, "text")))
            return parts
        case "function_call":
            return [ToolUse(text_of(item, "call_id"), text_of(item, "name"), text_of(item, "arguments"))]
        case "reasoning":
            said = listed(item, "content") if item.get("content") else listed(item, "summary")
            text = "".join(text_of(piece, "text") for piece in said)
            return [Thinking(text)] if text else []
    return None


# -- parts of a request


def _items(message: Message) -> list[JsonObject]:
    """A message's parts as items: calls and results of tools are items of their own beside its text."""
    items: list[JsonObject] = []
    contents: list[JsonObject] = []

    def flush() -> None:
        if contents:
            items.append({"type": "message", "role": message.role, "content": contents.copy()})
            contents.clear()

    for part in spoken(message.parts):
        match part:
            case Text(text):
                contents.append({"type": "output_text" if message.role == "assistant" else "input_text", "text": text})
            case Refusal(text):
                contents.append({"type": "refusal", "refusal": text})
            case Image():
                contents.append(_image(part))
            case ToolUse(id, name, arguments):
                flush()
                items.append({"type": "function_call", "call_id": id, "name": name, "arguments": arguments or "{}"})
            case ToolResult():
                flush()
                items.append(_result(part))
            case _:
                raise FieldRefused(part.where, "is reasoning, which cannot be given back to OpenAI; leave it out")
    flush()
    return items


def _result(result: ToolResult) -> JsonObject:
    if result.is_error:
        raise FieldRefused(f"{result.where}.is_error", f"cannot be said to {SAYS}; say it in the text")
    output: Any
    if all(isinstance(part, Text) for part in result.content) and len(result.content) < 2:
        output = "".join(part.text for part in result.content if isinstance(part, Text))
    else:
        output = [
            _image(part) if isinstance(part, Image) else {"type": "input_text", "text": part.text}
            for part in result.content
        ]
    return {"type": "function_call_output", "call_id": result.id, "output": output}


def _image(image: Image) -> JsonObject:
    url = image.url or f"data:{image.media_type};base64,{image.data}"
    return {"type": "input_image", "image_url": url, "detail": image.detail or "auto"}


def _format(format: ResponseFormat) -> JsonObject:
    if format.kind == "json":
        return {"type": "json_object"}
    value: JsonObject = {"type": "json_schema", "name": format.name or "answer", "schema": format.schema}
    if format.description:
        value["description"] = format.description
    strict = format.strict if format.name else True
    return {**value, "strict": strict} if strict is not None else value
