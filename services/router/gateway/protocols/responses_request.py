"""The parts of a request of OpenAI's responses, read to the neutral form. See `responses`."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from services.router.errors import FieldRefused
from services.router.gateway.conversation import (
    Image,
    Message,
    Part,
    Refusal,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from services.router.gateway.protocols import signatures
from services.router.gateway.protocols.reading import Fields, each, image_of

SEALED = "sealed:"
"""Before a sealed thought, where a signature would stand in `encrypted_content`."""


def instructions_of(fields: Fields) -> Iterator[Message]:
    text = fields.optional_text("instructions")
    if text is not None:
        yield Message("system", (Text(text, where="instructions"),), where="instructions")


def input_of(value: object, lets_reasoning_go: bool) -> Iterator[Message]:
    if isinstance(value, str):
        yield Message("user", (Text(value, where="input"),), where="input")
        return
    for item in each(value, "input"):
        message = _item(item)
        item.end()
        if not (lets_reasoning_go and any(isinstance(part, Thinking) for part in message.parts)):
            yield message


def _item(item: Fields) -> Message:
    kind = item.choice("type", ("message", "function_call", "function_call_output", "reasoning")) or "message"
    item.forget("status")
    where = item.path
    match kind:
        case "function_call":
            item.forget("id")
            id, signature = signatures.unpacked(item.text("call_id"))
            call = ToolUse(id, item.text("name"), item.text("arguments"), signature, where=where)
            return Message("assistant", (call,), where=where)
        case "function_call_output":
            item.forget("id")
            id, _ = signatures.unpacked(item.text("call_id"))
            parts = _contents(item, "output", ("input_text", "input_image"))
            content = tuple(part for part in parts if isinstance(part, Text | Image))
            return Message("user", (ToolResult(id, content, where=where),), where=where)
        case "reasoning":
            return Message("assistant", (_reasoning(item),), where=where)
    role = item.choice("role", ("user", "assistant", "system", "developer")) or item.require("role")
    if role == "assistant":
        item.forget("id")
        return Message("assistant", tuple(_contents(item, "content", ("output_text", "input_text", "refusal"))), where)
    kinds = ("input_text", "input_image") if role == "user" else ("input_text",)
    return Message("user" if role == "user" else "system", tuple(_contents(item, "content", kinds)), where=where)


def _reasoning(item: Fields) -> Thinking:
    item.forget("id")
    texts = [part.text("text") for part in item.children("content")] or [
        part.text("text") for part in item.children("summary")
    ]
    item.forget("summary")
    signature = item.optional_text("encrypted_content") or ""
    if signature.startswith(SEALED):
        return Thinking(sealed=signature.removeprefix(SEALED), where=item.path)
    return Thinking("".join(texts), signature, where=item.path)


def _contents(fields: Fields, name: str, kinds: Collection[str]) -> Iterator[Part]:
    value = fields.require(name)
    where = fields.at(name)
    if isinstance(value, str):
        yield Text(value, where=where)
        return
    for part in each(value, where):
        match part.choice("type", kinds):
            case "input_image":
                url = part.optional_text("image_url") or part.refuse("image_url", "is missing")
                detail = part.choice("detail", ("auto", "low", "high", "original"))
                yield image_of(url, "" if detail in (None, "auto") else str(detail), part.path)
            case "refusal":
                yield Refusal(part.text("refusal"), where=part.path)
            case _:
                part.drop({"annotations": ([],), "logprobs": ([],)})
                yield Text(part.text("text"), where=part.path)
        part.end()


def tool_of(fields: Fields) -> Tool:
    fields.choice("type", ("function",))
    tool = Tool(
        fields.text("name"),
        fields.optional_text("description") or "",
        fields.mapping("parameters"),
        fields.boolean("strict"),
    )
    fields.end()
    return tool


def tool_choice_of(fields: Fields) -> ToolChoice | None:
    value = fields.take("tool_choice")
    match value:
        case None:
            return None
        case "auto":
            return ToolChoice("auto")
        case "none":
            return ToolChoice("none")
        case "required":
            return ToolChoice("any")
    if isinstance(value, str):
        raise FieldRefused("tool_choice", "must be auto, none, required or a function")
    choice = Fields(value, "tool_choice")
    choice.choice("type", ("function",))
    chosen = ToolChoice("tool", choice.text("name"))
    choice.end()
    return chosen


def format_of(fields: Fields) -> ResponseFormat | None:
    text = fields.child("text")
    if text is None:
        return None
    found = text.child("format")
    text.drop({"verbosity": ("medium",)})
    text.end()
    if found is None:
        return None
    kind = found.choice("type", ("text", "json_object", "json_schema"))
    result: ResponseFormat | None = None
    if kind == "json_schema":
        schema = found.mapping("schema")
        description = found.optional_text("description") or ""
        result = ResponseFormat("schema", schema, found.text("name"), description, found.boolean("strict"))
    elif kind == "json_object":
        result = ResponseFormat("json")
    found.end()
    return result
