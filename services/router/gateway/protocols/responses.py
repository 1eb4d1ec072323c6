"""OpenAI's responses as clients speak them: `POST /v1/responses`.

Shapes: the types of the official client `openai`, 3.52 (`openai.types.responses`). What needs the provider to remember
(`previous_response_id`, `conversation`, `background`) passes through to OpenAI itself and is refused elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection

from services.router.gateway.conversation import (
    Answer,
    Closed,
    Conversation,
    Event,
    Finished,
    JsonObject,
    Part,
    PartDelta,
    PartEnded,
    PartSigned,
    PartStarted,
    Refusal,
    Started,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolUse,
    Usage,
    UsageKnown,
)
from services.router.gateway.framing import sse
from services.router.gateway.protocols import openai_errors, signatures
from services.router.gateway.protocols.base import Asked, StreamWriter
from services.router.gateway.protocols.chat import EFFORTS
from services.router.gateway.protocols.opening import opened
from services.router.gateway.protocols.reading import Fields
from services.router.gateway.protocols.responses_request import (
    SEALED,
    format_of,
    input_of,
    instructions_of,
    tool_choice_of,
    tool_of,
)
from shared.errors import MintmarkError

ASKS_NOTHING: dict[str, tuple[object, ...]] = {
    "store": (False,), "background": (False,), "include": ([],), "metadata": ({},), "truncation": ("disabled",),
    "service_tier": ("auto", "default"), "top_logprobs": (0,), "stream_options": ({},),
}  # fmt: skip
NAMES = {
    "max_tokens": "max_output_tokens", "messages": "input", "effort": "reasoning.effort",
    "response_format": "text.format", "parallel_tools": "parallel_tool_calls",
}  # fmt: skip


class Responses:
    """See base.ChatProtocol."""

    name = "responses"

    def open(self, body: bytes, path: str) -> Asked:
        return opened(self, body, "input")

    def error(self, error: MintmarkError, request_id: str) -> bytes:
        return openai_errors.body(error, request_id)

    # -- requests

    def read(self, value: JsonObject, ignore: Collection[str] = ()) -> Conversation:
        fields = Fields(value)
        fields.drop(ASKS_NOTHING)
        effort = None
        reasoning = fields.child("reasoning")
        if reasoning is not None:
            chosen = reasoning.choice("effort", EFFORTS)
            effort = EFFORTS[chosen] if chosen else None
            reasoning.end()
        conversation = Conversation(
            model=fields.text("model"),
            messages=(*instructions_of(fields), *input_of(fields.require("input"), "reasoning" in ignore)),
            stream=fields.boolean("stream") or False,
            tools=tuple(tool_of(tool) for tool in fields.children("tools")),
            tool_choice=tool_choice_of(fields),
            parallel_tools=fields.boolean("parallel_tool_calls"),
            max_tokens=fields.integer("max_output_tokens", 1),
            temperature=fields.number("temperature", 0, 2),
            top_p=fields.number("top_p", 0, 1),
            response_format=format_of(fields),
            effort=effort,
            user=fields.optional_text("safety_identifier") or fields.optional_text("user"),
            names=NAMES,
        )
        fields.end()
        return conversation

    # -- answers

    def write(self, answer: Answer, conversation: Conversation, created: int) -> JsonObject:
        head = response_head(answer.id, answer.model, conversation, created)
        items = [item_of(part, f"{index}_{answer.id}") for index, part in enumerate(answer.parts)]
        return {**head, **_ending(answer, items)}

    def stream(self, conversation: Conversation | None, created: int) -> StreamWriter:
        return ResponseStream(conversation or Conversation("", ()), created)


class ResponseStream:
    """See base.StreamWriter. Each part is an output item of its own."""

    def __init__(self, conversation: Conversation, created: int) -> None:
        self._conversation = conversation
        self._created = created
        self._sequence = 0
        self._head: JsonObject = response_head("", "", conversation, created)
        self._items: list[JsonObject] = []
        self._pieces: list[str] = []
        self._signature = ""
        self._begun = PartStarted(0, "text")
        self._usage: Usage | None = None
        self._finished = Finished("other")

    def write(self, event: Event) -> bytes:
        match event:
            case Started(id, model):
                self._head = response_head(id, model, self._conversation, self._created)
                response = {**self._head, "status": "in_progress", "output": []}
                return self._event("response.created", response=response) + self._event(
                    "response.in_progress", response=response
                )
            case PartStarted():
                return self._start(event)
            case PartDelta(_, text):
                return self._more(text)
            case PartSigned(_, signature):
                self._signature = signature
            case PartEnded():
                return self._end()
            case UsageKnown(usage):
                self._usage = usage
            case Finished():
                self._finished = event
            case Closed():
                return self._close()
        return b""

    def fail(self, error: MintmarkError) -> bytes:
        return self._event("error", code=error.code, message=error.message, param=error.extra.get("field"))

    def _event(self, kind: str, **more: object) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        return sse({"type": kind, **more, "sequence_number": number}, kind)

    def _place(self) -> JsonObject:
        return {"output_index": len(self._items), "item_id": self._item(Text(""))["id"]}

    def _item(self, part: Part) -> JsonObject:
        return item_of(part, f"{len(self._items)}_{self._head['id']}", kind=self._begun.kind)

    def _part(self) -> Part:
        text = "".join(self._pieces)
        match self._begun:
            case PartStarted(_, "tool_use", id, name, signature):
                return ToolUse(id, name, text, signature)
            case PartStarted(_, "thinking", sealed=sealed):
                return Thinking(text, self._signature, sealed)
            case PartStarted(_, "refusal"):
                return Refusal(text)
            case _:
                return Text(text)

    def _start(self, begun: PartStarted) -> bytes:
        self._begun, self._pieces, self._signature = begun, [], ""
        item = {**self._item(self._part()), "status": "in_progress"}
        part = _first_part(item)
        if part is None:
            return self._added(item)
        item["content"] = []
        added = self._added(item)
        return added + self._event("response.content_part.added", **self._place(), content_index=0, part=part)

    def _added(self, item: JsonObject) -> bytes:
        if item["type"] == "function_call":
            item["arguments"] = ""
        return self._event("response.output_item.added", output_index=len(self._items), item=item)

    def _more(self, text: str) -> bytes:
        self._pieces.append(text)
        match self._begun.kind:
            case "tool_use":
                return self._event("response.function_call_arguments.delta", **self._place(), delta=text)
            case "thinking":
                return self._event("response.reasoning_text.delta", **self._place(), content_index=0, delta=text)
            case "refusal":
                return self._event("response.refusal.delta", **self._place(), content_index=0, delta=text)
            case _:
                more = {**self._place(), "content_index": 0, "delta": text, "logprobs": []}
                return self._event("response.output_text.delta", **more)

    def _end(self) -> bytes:
        item = self._item(self._part())
        place = self._place()
        part = _first_part(item)
        if part is None:
            done = self._event(
                "response.function_call_arguments.done",
                **place,
                name=self._begun.name,
                arguments="".join(self._pieces),
            )
        else:
            field = "refusal" if part["type"] == "refusal" else "text"
            more: JsonObject = {"logprobs": []} if part["type"] == "output_text" else {}
            said = f"response.{part['type']}.done"
            done = self._event(said, **place, content_index=0, **{field: part[field]}, **more)
            done += self._event("response.content_part.done", **place, content_index=0, part=part)
        done += self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)
        return done

    def _close(self) -> bytes:
        answer = Answer("", "", (), self._finished.reason, self._usage)
        response = {**self._head, **_ending(answer, self._items)}
        return self._event(f"response.{response['status']}", response=response)


def response_head(id: str, model: str, conversation: Conversation, created: int) -> JsonObject:
    """What a response says of its request."""
    choice = conversation.tool_choice
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": conversation.max_tokens,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": conversation.parallel_tools is not False,
        "temperature": conversation.temperature,
        "tool_choice": tool_choice_json(choice) if choice else "auto",
        "tools": [tool_json(tool) for tool in conversation.tools],
        "top_p": conversation.top_p,
        "usage": None,
    }


def tool_json(tool: Tool) -> JsonObject:
    value: JsonObject = {"type": "function", "name": tool.name, "parameters": tool.schema, "strict": tool.strict}
    if tool.description:
        value["description"] = tool.description
    return value


def tool_choice_json(choice: ToolChoice) -> str | JsonObject:
    match choice.mode:
        case "tool":
            return {"type": "function", "name": choice.name}
        case "any":
            return "required"
        case mode:
            return mode


def item_of(part: Part, suffix: str, kind: str = "") -> JsonObject:
    """An output item. `kind` says what the item is where `part` is only a stand-in."""
    match part:
        case ToolUse(id, name, arguments, signature):
            call_id = signatures.packed(id, signature)
            return {
                "id": f"fc_{suffix}", "type": "function_call", "call_id": call_id, "name": name,
                "arguments": arguments or "{}", "status": "completed",
            }  # fmt: skip
        case Thinking(text, signature, sealed):
            content = [{"type": "reasoning_text", "text": text}]
            item: JsonObject = {"id": f"rs_{suffix}", "type": "reasoning", "summary": [], "content": content}
            if signature or sealed:
                item["encrypted_content"] = SEALED + sealed if sealed else signature
            return item
        case Refusal(text):
            said: JsonObject = {"type": "refusal", "refusal": text}
        case Text(text):
            said = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        case _:
            raise TypeError(f"a model does not answer with {type(part).__name__}")
    head = {"tool_use": "fc", "thinking": "rs"}.get(kind, "msg")
    return {
        "id": f"{head}_{suffix}", "type": "message", "role": "assistant", "status": "completed", "content": [said],
    }  # fmt: skip


def _first_part(item: JsonObject) -> JsonObject | None:
    content = item.get("content")
    return dict(content[0]) if content else None


def _ending(answer: Answer, items: list[JsonObject]) -> JsonObject:
    ending: JsonObject = {"status": "completed", "output": items}
    cut = {"length": "max_output_tokens", "context": "max_output_tokens", "filter": "content_filter"}
    if (reason := cut.get(answer.finish)) is not None:
        ending["status"] = "incomplete"
        ending["incomplete_details"] = {"reason": reason}
    if answer.usage is not None:
        ending["usage"] = usage_json(answer.usage)
    return ending


def usage_json(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
