"""Bedrock's Converse and ConverseStream. Shapes: botocore's service model of bedrock-runtime."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

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
    parts_of,
    spoken,
)
from services.router.gateway.framing import Frame, parsed
from services.router.gateway.providers.anthropic import input_of
from services.router.gateway.providers.base import Decoder, Upstream, finished_or_cut
from services.router.gateway.providers.garbage import arguments_of, count, held, listed, sentence, text_of

SAYS = "Bedrock"
IMAGE_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
FINISH: dict[str, FinishReason] = {
    "end_turn": "stop", "stop_sequence": "stop_sequence", "max_tokens": "length", "tool_use": "tool_use",
    "guardrail_intervened": "filter", "content_filtered": "filter", "model_context_window_exceeded": "context",
}  # fmt: skip
FAILED = ("malformed_model_output", "malformed_tool_use")


class Converse:
    """See base.Dialect."""

    def path(self, upstream: Upstream, stream: bool) -> str:
        return f"/model/{quote(upstream.model, safe='-._~')}/" + ("converse-stream" if stream else "converse")

    # -- requests

    def write(self, conversation: Conversation, upstream: Upstream) -> JsonObject:
        c = conversation
        c.require_unset(SAYS, "top_k", "seed", "presence_penalty", "frequency_penalty", "user")
        if c.parallel_tools is False:
            c.refuse("parallel_tools", "cannot be refused to Bedrock")
        leading = 0
        while leading < len(c.messages) and c.messages[leading].role == "system":
            leading += 1
        body: JsonObject = {"messages": [_message(message) for message in c.merged()[leading:]]}
        texts = [part.text for message in c.messages[:leading] for part in parts_of(message.parts, Text)]
        if texts:
            body["system"] = [{"text": text} for text in texts]
        config = {
            "maxTokens": c.max_tokens,
            "temperature": c.temperature,
            "topP": c.top_p,
            "stopSequences": list(c.stop) or None,
        }
        if config := {name: value for name, value in config.items() if value is not None}:
            body["inferenceConfig"] = config
        if c.tools:
            body["toolConfig"] = _tools(c)
        if output := _output(c):
            body["outputConfig"] = output
        return body

    # -- answers

    def read(self, value: JsonObject, native: bool) -> Answer:
        message = held(held(value, "output"), "message")
        parts = tuple(_answer_part(block) for block in listed(message, "content"))
        return Answer(
            "", "", parts, _finish(text_of(value, "stopReason")), usage_of(held(value, "usage"))
        )  # Bedrock names neither answer nor model  # fmt: skip

    def decoder(self, native: bool) -> Decoder:
        return ConverseDecoder()


class ConverseDecoder:
    """See base.Decoder. The last event is `metadata`, which follows the message's end."""

    def __init__(self) -> None:
        self._parts = Parts()
        self._finished = False
        self._closed = False

    def decode(self, frame: Frame) -> list[Event]:
        if self._closed:
            return []
        value = parsed(frame.data)
        match frame.event:
            case "messageStart":
                return [Started("", "")]
            case "contentBlockStart":
                return self._start(value)
            case "contentBlockDelta":
                return self._more(value)
            case "contentBlockStop":
                index = self._parts.open_index(count(value, "contentBlockIndex"))
                self._parts.end()
                return [PartEnded(index)] if index is not None else []
            case "messageStop":
                self._finished = True
                return [*self._parts.end(), Finished(_finish(text_of(value, "stopReason")))]
            case "metadata":
                if not self._finished:
                    raise UpstreamGarbageError("Bedrock's stream ended without saying how.")
                self._closed = True
                return [UsageKnown(usage_of(held(value, "usage"))), Closed()]
        if frame.event.lower().endswith(("exception", "error")) or not frame.event:
            raise UpstreamError(f"The provider broke its stream off: {frame.event}: {sentence(value)}")
        return []

    def end(self) -> list[Event]:
        return finished_or_cut(self._finished, self._closed)

    def _start(self, value: JsonObject) -> list[Event]:
        call = held(value, "start").get("toolUse")
        if not isinstance(call, dict):
            raise UpstreamGarbageError("Bedrock began a part that nobody asked for.")
        key = count(value, "contentBlockIndex")
        return self._parts.at(key, "tool_use", text_of(call, "toolUseId"), text_of(call, "name"))[1]

    def _more(self, value: JsonObject) -> list[Event]:
        key, delta = count(value, "contentBlockIndex"), held(value, "delta")
        if "text" in delta:
            index, events = self._parts.at(key, "text")
            return [*events, PartDelta(index, text_of(delta, "text"))]
        if "toolUse" in delta:
            found = self._parts.open_index(key)
            if found is None:
                raise UpstreamGarbageError("Bedrock goes on with a tool call that it never began.")
            return [PartDelta(found, text_of(held(delta, "toolUse"), "input"))]
        if "reasoningContent" in delta:
            return self._reasoning(key, held(delta, "reasoningContent"))
        raise UpstreamGarbageError(f"Bedrock answered with {', '.join(delta)}, which nobody asked for.")

    def _reasoning(self, key: int, reasoning: JsonObject) -> list[Event]:
        if sealed := text_of(reasoning, "redactedContent"):
            return self._parts.at(key, "thinking", sealed=sealed)[1]
        index, events = self._parts.at(key, "thinking")
        if signature := text_of(reasoning, "signature"):
            return [*events, PartSigned(index, signature)]
        return [*events, PartDelta(index, text_of(reasoning, "text"))]


def usage_of(usage: JsonObject) -> Usage:
    """Cached tokens stand beside `inputTokens` and not within."""
    read, written = count(usage, "cacheReadInputTokens"), count(usage, "cacheWriteInputTokens")
    return Usage(count(usage, "inputTokens") + read + written, count(usage, "outputTokens"), read, written)


def _finish(reason: str) -> FinishReason:
    if reason in FAILED:
        raise UpstreamGarbageError(f"Bedrock gave its answer up: {reason}.")
    return FINISH.get(reason, "other")


def _answer_part(block: JsonObject) -> Part:
    if "text" in block:
        return Text(text_of(block, "text"))
    if "toolUse" in block:
        call = held(block, "toolUse")
        return ToolUse(text_of(call, "toolUseId"), text_of(call, "name"), arguments_of(call.get("input")))
    if "reasoningContent" in block:
        reasoning = held(block, "reasoningContent")
        if "redactedContent" in reasoning:
            return Thinking(sealed=text_of(reasoning, "redactedContent"))
        said = held(reasoning, "reasoningText")
        return Thinking(text_of(said, "text"), text_of(said, "signature"))
    raise UpstreamGarbageError(f"Bedrock answered with {', '.join(block)}, which nobody asked for.")


# -- parts of a request


def _message(message: Message) -> JsonObject:
    parts = spoken(message.parts)
    results = [_block(part) for part in parts if isinstance(part, ToolResult)]
    others = [_block(part) for part in parts if not isinstance(part, ToolResult)]
    return {"role": message.role, "content": results + others}


def _block(part: Part) -> JsonObject:
    match part:
        case Text(text) | Refusal(text):
            return {"text": text}
        case Image():
            return _image(part)
        case ToolUse(id, name):
            return {"toolUse": {"toolUseId": id, "name": name, "input": input_of(part)}}
        case ToolResult(id, content, is_error):
            result: JsonObject = {"toolUseId": id, "content": [_block(item) for item in content] or [{"text": ""}]}
            return {"toolResult": {**result, "status": "error"} if is_error else result}
        case Thinking(_, _, sealed) if sealed:
            return {"reasoningContent": {"redactedContent": sealed}}
        case Thinking(text, signature) if signature:
            return {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}
    raise FieldRefused(part.where, "has no signature, and Bedrock takes no other reasoning; leave it out")


def _image(image: Image) -> JsonObject:
    if image.url:
        raise FieldRefused(image.where, "must hold the image itself for Bedrock: send data:<media type>;base64,<data>")
    if image.detail:
        raise FieldRefused(f"{image.where}.detail", f"cannot be said to {SAYS}; leave it out")
    format = IMAGE_FORMATS.get(image.media_type)
    if format is None:
        raise FieldRefused(image.where, f"is {image.media_type}; Bedrock takes {', '.join(IMAGE_FORMATS)}")
    return {"image": {"format": format, "source": {"bytes": image.data}}}


def _tools(c: Conversation) -> JsonObject:
    tools: list[JsonObject] = []
    for tool in c.tools:
        schema = tool.schema or {"type": "object", "properties": {}}
        spec: JsonObject = {"name": tool.name, "inputSchema": {"json": schema}}
        if tool.description:
            spec["description"] = tool.description
        if tool.strict is not None:
            spec["strict"] = tool.strict
        tools.append({"toolSpec": spec})
    config: JsonObject = {"tools": tools}
    if c.tool_choice is not None:
        match c.tool_choice.mode:
            case "none":
                c.refuse("tool_choice", "cannot be none for Bedrock; leave the tools out")
            case "tool":
                config["toolChoice"] = {"tool": {"name": c.tool_choice.name}}
            case mode:
                config["toolChoice"] = {mode: {}}
    return config


def _output(c: Conversation) -> JsonObject:
    output: dict[str, Any] = {}
    if c.effort in ("none", "minimal"):
        c.refuse("effort", f"cannot be {c.effort} for Bedrock; the least is low")
    if c.effort is not None:
        output["effort"] = c.effort
    format = c.response_format
    if format is not None:
        if format.schema is None:
            c.refuse("response_format", "must have a JSON Schema for Bedrock, which has no mode for any JSON")
        schema: JsonObject = {"schema": orjson.dumps(format.schema).decode()}
        if format.name:
            schema["name"] = format.name
        if format.description:
            schema["description"] = format.description
        output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    return output
