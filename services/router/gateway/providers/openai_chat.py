"""OpenAI's chat completions as providers speak them: OpenAI, and every server that calls itself compatible."""

from __future__ import annotations

from dataclasses import replace
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
    PartKind,
    Parts,
    Refusal,
    ResponseFormat,
    Started,
    Text,
    Thinking,
    ToolChoice,
    ToolResult,
    ToolUse,
    Usage,
    UsageKnown,
    parts_of,
)
from services.router.gateway.framing import Frame, parsed
from services.router.gateway.providers.base import Decoder, Upstream, finished_or_cut
from services.router.gateway.providers.garbage import count, listed, optional, sentence, text_of

FINISH: dict[str, FinishReason] = {
    "stop": "stop", "length": "length", "tool_calls": "tool_use", "function_call": "tool_use",
    "content_filter": "filter",
}  # fmt: skip

TEXTS: tuple[tuple[PartKind, str], ...] = (
    ("thinking", "reasoning_content"), ("text", "content"), ("refusal", "refusal"),
)  # fmt: skip


class OpenAIChat:
    """See base.Dialect."""

    def path(self, upstream: Upstream, stream: bool) -> str:
        return "/chat/completions"

    # -- requests

    def write(self, conversation: Conversation, upstream: Upstream) -> JsonObject:
        c = conversation
        c.require_unset("an OpenAI-compatible server", "top_k")
        body: JsonObject = {
            "model": upstream.model,
            "messages": [said for message in _turns(c.messages) for said in _messages(message)],
        }
        optional: dict[str, Any] = {
            upstream.limit_field: c.max_tokens,
            "temperature": c.temperature,
            "top_p": c.top_p,
            "seed": c.seed,
            "presence_penalty": c.presence_penalty,
            "frequency_penalty": c.frequency_penalty,
            "stop": list(c.stop) or None,
            "reasoning_effort": c.effort,
            "user": c.user,
            "parallel_tool_calls": c.parallel_tools,
            "response_format": _response_format(c.response_format) if c.response_format else None,
            "tool_choice": _tool_choice(c.tool_choice) if c.tool_choice else None,
        }
        body.update({name: value for name, value in optional.items() if value is not None})
        if c.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        name: value
                        for name, value in (
                            ("name", tool.name),
                            ("description", tool.description or None),
                            ("parameters", tool.schema),
                            ("strict", tool.strict),
                        )
                        if value is not None
                    },
                }
                for tool in c.tools
            ]
        if c.stream:
            body["stream"] = True
            if upstream.asks_usage or c.include_usage:
                body["stream_options"] = {"include_usage": True}
        return body

    # -- answers

    def read(self, value: JsonObject, native: bool) -> Answer:
        choices = listed(value, "choices")
        if not choices or (len(choices) > 1 and not native):
            raise UpstreamGarbageError(f"The provider answered {len(choices)} choices where one was asked for.")
        choice = choices[0]
        message = choice.get("message")
        if not isinstance(message, dict):
            raise UpstreamGarbageError("The provider's answer has no message.")
        parts = tuple(_answer_parts(message, native))
        finish = _finish(choice.get("finish_reason"), bool(parts_of(parts, ToolUse)))
        usage = value.get("usage")
        return Answer(
            text_of(value, "id"),
            text_of(value, "model"),
            parts,
            finish,
            usage_of(usage) if isinstance(usage, dict) else None,
        )

    def decoder(self, native: bool) -> Decoder:
        return ChatDecoder(native)


class ChatDecoder:
    """See base.Decoder."""

    def __init__(self, native: bool) -> None:
        self._native = native
        self._parts = Parts()
        self._started = False
        self._finished = False
        self._closed = False
        self._called = False
        self._id = ""

    def decode(self, frame: Frame) -> list[Event]:
        if not frame.data or self._closed:
            return []
        if frame.data.strip() == b"[DONE]":
            if not self._finished:
                raise UpstreamGarbageError("The provider's stream ended without saying how.")
            self._closed = True
            return [Closed()]
        value = parsed(frame.data)
        if value.get("error"):
            raise UpstreamError(f"The provider broke its stream off: {sentence(value)}")
        events: list[Event] = []
        if not self._started:
            self._started = True
            self._id = text_of(value, "id")
            events.append(Started(self._id, text_of(value, "model")))
        for choice in listed(value, "choices"):
            if choice.get("index", 0) == 0:
                events += self._choice(choice)
        usage = value.get("usage")
        if isinstance(usage, dict):
            events.append(UsageKnown(usage_of(usage)))
        return events

    def end(self) -> list[Event]:
        return finished_or_cut(self._finished, self._closed)

    def _choice(self, choice: JsonObject) -> list[Event]:
        delta = choice.get("delta")
        events = self._delta(delta) if isinstance(delta, dict) else []
        reason = choice.get("finish_reason")
        if reason is not None and not self._finished:
            self._finished = True
            events += self._parts.end()
            events.append(Finished(_finish(reason, self._called)))
        return events

    def _delta(self, delta: JsonObject) -> list[Event]:
        events: list[Event] = []
        for kind, name in TEXTS:
            text = delta.get(name)
            if isinstance(text, str) and text:
                # The same kind may come again after a tool call; it is another part then.
                index, begun = self._parts.at(kind, kind, again=True)
                events += [*begun, PartDelta(index, text)]
        for call in listed(delta, "tool_calls") if delta.get("tool_calls") else ():
            events += self._call(call)
        return events

    def _call(self, call: JsonObject) -> list[Event]:
        key = ("tool", count(call, "index"))
        function = optional(call, "function")
        events: list[Event] = []
        index = self._parts.open_index(key)
        if index is None:
            name = function.get("name")
            if not isinstance(name, str) or not name:
                raise UpstreamGarbageError("The provider's tool call has no name.")
            self._called = True
            id = call.get("id") or f"call_{key[1]}_{self._id}"  # some compatible servers give none
            index, events = self._parts.at(key, "tool_use", str(id), name)
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments:
            events.append(PartDelta(index, arguments))
        return events


def usage_of(usage: JsonObject) -> Usage:
    """Chat's `usage`; its prompt tokens include the cached ones."""
    prompt = optional(usage, "prompt_tokens_details")
    completion = optional(usage, "completion_tokens_details")
    return Usage(
        count(usage, "prompt_tokens"),
        count(usage, "completion_tokens"),
        count(prompt, "cached_tokens"),
        count(prompt, "cache_write_tokens"),
        count(completion, "reasoning_tokens"),
    )


def _finish(reason: object, called: bool) -> FinishReason:
    finish = FINISH.get(reason, "other") if isinstance(reason, str) else "other"
    return "tool_use" if called and finish in ("stop", "other") else finish


def _answer_parts(message: JsonObject, native: bool) -> list[Part]:
    parts: list[Part] = []
    if isinstance(thoughts := message.get("reasoning_content"), str) and thoughts:
        parts.append(Thinking(thoughts))
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise UpstreamGarbageError("The content of the provider's answer is not text.")
    if content:
        parts.append(Text(content))
    if isinstance(refusal := message.get("refusal"), str) and refusal:
        parts.append(Refusal(refusal))
    for position, call in enumerate(listed(message, "tool_calls") if message.get("tool_calls") else ()):
        function = call.get("function")
        if not isinstance(function, dict):
            if native:  # a custom tool's call
                continue
            raise UpstreamGarbageError("The provider's tool call has no function.")
        id = text_of(call, "id") or f"call_{position}"
        parts.append(ToolUse(id, text_of(function, "name"), text_of(function, "arguments")))
    return parts


# -- parts of a request


def _turns(messages: tuple[Message, ...]) -> list[Message]:
    """The messages, with calls joined to what the assistant said before: results must follow all calls of a turn."""
    turns: list[Message] = []
    for message in messages:
        joins = message.role == "assistant" and turns and turns[-1].role == "assistant"
        if joins and all(isinstance(part, ToolUse) for part in message.parts):
            turns[-1] = replace(turns[-1], parts=turns[-1].parts + message.parts)
        else:
            turns.append(message)
    return turns


def _messages(message: Message) -> list[JsonObject]:
    if message.role == "assistant":
        return [_assistant(message)]
    if message.role == "system":
        texts = [part.text for part in parts_of(message.parts, Text)]
        return [{"role": "system", "content": texts[0] if len(texts) == 1 else [_text(text) for text in texts]}]
    said: list[JsonObject] = []
    rest: list[JsonObject] = []
    for part in message.parts:
        match part:
            case ToolResult():
                said.append(_tool_result(part))
            case Text(text):
                rest.append(_text(text))
            case Image():
                rest.append({"type": "image_url", "image_url": _image(part)})
            case _:
                raise FieldRefused(part.where, "cannot be said by a user to an OpenAI-compatible server")
    if len(rest) == 1 and rest[0]["type"] == "text":
        said.append({"role": "user", "content": rest[0]["text"]})
    elif rest:
        said.append({"role": "user", "content": rest})
    return said


def _assistant(message: Message) -> JsonObject:
    value: JsonObject = {"role": "assistant", "content": None}
    contents: list[JsonObject] = []
    calls: list[JsonObject] = []
    for part in message.parts:
        match part:
            case Text(text):
                contents.append(_text(text))
            case Refusal(text):
                contents.append({"type": "refusal", "refusal": text})
            case ToolUse(id, name, arguments):
                function = {"name": name, "arguments": arguments or "{}"}
                calls.append({"id": id, "type": "function", "function": function})
            case Thinking(text, "", ""):
                value["reasoning_content"] = text
            case _:
                raise FieldRefused(part.where, "cannot be given back to an OpenAI-compatible server; leave it out")
    if len(contents) == 1 and contents[0]["type"] == "text":
        value["content"] = contents[0]["text"]
    elif contents:
        value["content"] = contents
    if calls:
        value["tool_calls"] = calls
    return value


def _tool_result(result: ToolResult) -> JsonObject:
    if result.is_error:
        raise FieldRefused(
            f"{result.where}.is_error", "cannot be said to an OpenAI-compatible server; say it in the text"
        )
    if images := parts_of(result.content, Image):
        raise FieldRefused(images[0].where, "is an image, which a tool cannot answer to an OpenAI-compatible server")
    texts = [part.text for part in parts_of(result.content, Text)]
    content: Any = "".join(texts) if len(texts) < 2 else [_text(text) for text in texts]
    return {"role": "tool", "tool_call_id": result.id, "content": content}


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _image(image: Image) -> JsonObject:
    value = {"url": image.url or f"data:{image.media_type};base64,{image.data}"}
    return {**value, "detail": image.detail} if image.detail else value


def _tool_choice(choice: ToolChoice) -> Any:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.mode == "any" else choice.mode


def _response_format(format: ResponseFormat) -> JsonObject:
    if format.kind == "json":
        return {"type": "json_object"}
    schema: JsonObject = {"name": format.name or "answer", "schema": format.schema}
    if format.description:
        schema["description"] = format.description
    # Who asks Anthropic for a schema gets one that is kept; in chat completions that is what `strict` says.
    schema["strict"] = format.strict if format.name else True
    return {"type": "json_schema", "json_schema": {name: value for name, value in schema.items() if value is not None}}
