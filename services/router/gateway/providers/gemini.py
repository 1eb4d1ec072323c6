"""Gemini's `generateContent` and `streamGenerateContent`, and embeddings. Shapes: the types of `google-genai`, 3.4."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from services.router.errors import FieldRefused, UpstreamError, UpstreamGarbageError
from services.router.gateway.conversation import (
    Answer,
    Conversation,
    Effort,
    Event,
    Finished,
    FinishReason,
    Image,
    JsonObject,
    Message,
    Part,
    PartDelta,
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
from services.router.gateway.protocols.embeddings import EmbeddingAnswer, EmbeddingRequest
from services.router.gateway.providers.anthropic import input_of
from services.router.gateway.providers.base import Decoder, Upstream, finished_or_cut
from services.router.gateway.providers.garbage import arguments_of, count, held, listed, sentence, text_of

SAYS = "Gemini"
FINISH: dict[str, FinishReason] = {
    "STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "filter", "RECITATION": "filter", "LANGUAGE": "filter",
    "BLOCKLIST": "filter", "PROHIBITED_CONTENT": "filter", "SPII": "filter", "IMAGE_SAFETY": "filter",
    "IMAGE_PROHIBITED_CONTENT": "filter", "IMAGE_RECITATION": "filter", "MODEL_ARMOR": "filter",
}  # fmt: skip
FAILED = frozenset(
    ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
     "MALFORMED_RESPONSE")
)  # fmt: skip
THINKING: dict[Effort, JsonObject] = {
    "none": {"thinkingBudget": 0}, "minimal": {"thinkingLevel": "MINIMAL"}, "low": {"thinkingLevel": "LOW"},
    "medium": {"thinkingLevel": "MEDIUM"}, "high": {"thinkingLevel": "HIGH"}, "xhigh": {"thinkingLevel": "XHIGH"},
}  # fmt: skip


class Gemini:
    """See base.Dialect."""

    def path(self, upstream: Upstream, stream: bool) -> str:
        return f"/{model_path(upstream)}:" + ("streamGenerateContent?alt=sse" if stream else "generateContent")

    # -- requests

    def write(self, conversation: Conversation, upstream: Upstream) -> JsonObject:
        c = conversation
        c.require_unset(SAYS, "user")
        if c.parallel_tools is False:
            c.refuse("parallel_tools", "cannot be refused to Gemini")
        leading = 0
        while leading < len(c.messages) and c.messages[leading].role == "system":
            leading += 1
        names = c.tool_names()
        body: JsonObject = {"contents": [_content(message, names) for message in c.merged()[leading:]]}
        if leading:
            texts = [part.text for message in c.messages[:leading] for part in parts_of(message.parts, Text)]
            body["systemInstruction"] = {"parts": [{"text": text} for text in texts]}
        if c.tools:
            body["tools"] = [{"functionDeclarations": [_tool(t.name, t.description, t.schema) for t in c.tools]}]
            body["toolConfig"] = {"functionCallingConfig": _calling(c)}
        if config := _generation(c):
            body["generationConfig"] = config
        return body

    # -- answers

    def read(self, value: JsonObject, native: bool) -> Answer:
        candidate = _candidate(value)
        parts: list[Part] = []
        for part in _candidate_parts(candidate) if candidate else ():
            found = _answer_part(part, len(parts), text_of(value, "responseId"))
            if isinstance(found, Text) and parts and isinstance(parts[-1], Text):
                parts[-1] = Text(parts[-1].text + found.text)
            elif not isinstance(found, Text) or found.text:
                parts.append(found)
        finish = _finish(candidate, bool(parts_of(parts, ToolUse))) if candidate else "filter"
        return Answer(
            text_of(value, "responseId"),
            text_of(value, "modelVersion"),
            tuple(parts),
            finish or "other",
            usage_of(held(value, "usageMetadata")) if value.get("usageMetadata") else None,
        )

    def decoder(self, native: bool) -> Decoder:
        return GeminiDecoder()

    # -- embeddings

    def embedding_path(self, upstream: Upstream) -> str:
        return f"/{model_path(upstream)}:batchEmbedContents"

    def write_embedding(self, request: EmbeddingRequest, upstream: Upstream) -> JsonObject:
        size = {"outputDimensionality": request.dimensions} if request.dimensions else {}
        return {
            "requests": [
                {"model": model_path(upstream), "content": {"parts": [{"text": text}]}, **size}
                for text in request.inputs
            ]
        }

    def read_embedding(self, value: JsonObject, request: EmbeddingRequest) -> EmbeddingAnswer:
        vectors = [embedding.get("values") for embedding in listed(value, "embeddings")]
        if len(vectors) != len(request.inputs) or not all(_is_vector(vector) for vector in vectors):
            raise UpstreamGarbageError(f"Gemini answered {len(vectors)} vectors to {len(request.inputs)} texts.")
        usage = value.get("usageMetadata")
        tokens = count(usage, "promptTokenCount") if isinstance(usage, dict) else 0
        return EmbeddingAnswer(request.model, tuple(vector for vector in vectors if vector is not None), tokens)


class GeminiDecoder:
    """See base.Decoder. Gemini marks no end: a stream is whole when its candidate has said why it finished."""

    def __init__(self) -> None:
        self._parts = Parts()
        self._started = False
        self._finished = False
        self._called = 0
        self._id = ""

    def decode(self, frame: Frame) -> list[Event]:
        if not frame.data:
            return []
        value = parsed(frame.data)
        if value.get("error"):
            raise UpstreamError(f"The provider broke its stream off: {sentence(value)}")
        events: list[Event] = []
        if not self._started:
            self._started = True
            self._id = text_of(value, "responseId")
            events.append(Started(self._id, text_of(value, "modelVersion")))
        candidate = _candidate(value)
        if candidate is None:
            if not self._finished and value.get("promptFeedback"):
                self._finished = True
                events.append(Finished("filter"))
        elif not self._finished:
            for part in _candidate_parts(candidate):
                events += self._part(part)
            reason = _finish(candidate, self._called > 0)
            if reason is not None:
                self._finished = True
                events += [*self._parts.end(), Finished(reason)]
        if value.get("usageMetadata"):
            events.append(UsageKnown(usage_of(held(value, "usageMetadata"))))
        return events

    def end(self) -> list[Event]:
        return finished_or_cut(self._finished, closed=False)

    def _part(self, value: JsonObject) -> list[Event]:
        part = _answer_part(value, self._called, self._id)
        match part:
            case ToolUse(id, name, arguments, signature):
                key, self._called = ("tool", self._called), self._called + 1
                index, events = self._parts.at(key, "tool_use", id, name, signature=signature)
                return [*events, PartDelta(index, arguments), *self._parts.end()]
            case Thinking(text, signature):
                index, events = self._parts.at("thinking", "thinking", again=True)
                signed: list[Event] = [PartSigned(index, signature)] if signature else []
                return [*events, PartDelta(index, text), *signed]
            case Text(text) if text:
                index, events = self._parts.at("text", "text", again=True)
                return [*events, PartDelta(index, text)]
        return []


def usage_of(usage: JsonObject) -> Usage:
    """Gemini counts thoughts beside the candidates' tokens, and prompts of its tools beside the prompt."""
    thoughts = count(usage, "thoughtsTokenCount")
    return Usage(
        count(usage, "promptTokenCount") + count(usage, "toolUsePromptTokenCount"),
        count(usage, "candidatesTokenCount") + thoughts,
        count(usage, "cachedContentTokenCount"),
        0,
        thoughts,
    )


def model_path(upstream: Upstream) -> str:
    """`gemini-3` -> `models/gemini-3`; `tunedModels/x` stays."""
    name = upstream.model if "/" in upstream.model else f"models/{upstream.model}"
    return quote(name, safe="/-._~")


def _candidate(value: JsonObject) -> JsonObject | None:
    """The one candidate; None where the prompt was blocked, or in a chunk that only counts."""
    if not value.get("candidates"):
        if value.get("promptFeedback") or value.get("usageMetadata"):
            return None
        raise UpstreamGarbageError("Gemini's answer has no candidates.")
    return listed(value, "candidates")[0]


def _candidate_parts(candidate: JsonObject) -> list[JsonObject]:
    content = candidate.get("content")
    if not isinstance(content, dict) or not content.get("parts"):
        return []
    return listed(content, "parts")


def _answer_part(part: JsonObject, position: int, response: str) -> Text | Thinking | ToolUse:
    signature = text_of(part, "thoughtSignature")
    if part.get("functionCall") is not None:
        call = held(part, "functionCall")
        id = text_of(call, "id") or f"call_{position}_{response}"
        return ToolUse(id, text_of(call, "name"), arguments_of(call.get("args")), signature)
    if "text" in part:
        text = text_of(part, "text")
        return Thinking(text, signature) if part.get("thought") is True else Text(text)
    if set(part) <= {"thoughtSignature", "thought"}:
        return Text("")
    raise UpstreamGarbageError(f"Gemini answered with {', '.join(sorted(part))}, which nobody asked for.")


def _finish(candidate: JsonObject, called: bool) -> FinishReason | None:
    reason = text_of(candidate, "finishReason")
    if not reason:
        return None
    if reason in FAILED:
        message = text_of(candidate, "finishMessage")
        raise UpstreamGarbageError(f"Gemini gave its answer up: {reason}{': ' + message if message else ''}.")
    finish = FINISH.get(reason, "other")
    return "tool_use" if called and finish == "stop" else finish


def _is_vector(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, int | float) for value in values)


# -- parts of a request


def _content(message: Message, names: dict[str, str]) -> JsonObject:
    if message.role == "system":
        raise FieldRefused(f"{message.where}.role", "cannot be system for Gemini after the conversation has begun")
    parts = spoken(message.parts)
    results = [_part(part, names) for part in parts if isinstance(part, ToolResult)]
    others = [_part(part, names) for part in parts if not isinstance(part, ToolResult)]
    return {"role": "model" if message.role == "assistant" else "user", "parts": results + others}


def _part(part: Part, names: dict[str, str]) -> JsonObject:
    match part:
        case Text(text) | Refusal(text):
            return {"text": text}
        case Image():
            return _image(part)
        case ToolUse(id, name, _, signature):
            value: JsonObject = {"functionCall": {"id": id, "name": name, "args": input_of(part)}}
            return {**value, "thoughtSignature": signature} if signature else value
        case ToolResult():
            return _result(part, names)
    raise FieldRefused(part.where, "is reasoning, which cannot be given back to Gemini; leave it out")


def _image(image: Image) -> JsonObject:
    if image.url:
        raise FieldRefused(image.where, "must hold the image itself for Gemini: send data:<media type>;base64,<data>")
    if image.detail:
        raise FieldRefused(f"{image.where}.detail", f"cannot be said to {SAYS}; leave it out")
    return {"inlineData": {"mimeType": image.media_type, "data": image.data}}


def _result(result: ToolResult, names: dict[str, str]) -> JsonObject:
    if images := parts_of(result.content, Image):
        raise FieldRefused(images[0].where, "is an image, which a tool cannot answer to Gemini")
    name = names.get(result.id)
    if name is None:
        raise FieldRefused(result.where, "answers a tool call that is not in the conversation")
    text = "".join(part.text for part in parts_of(result.content, Text))
    # The two keys are those that Gemini's documentation names for what came out and what went wrong.
    response = {"error" if result.is_error else "output": text}
    return {"functionResponse": {"id": result.id, "name": name, "response": response}}


def _tool(name: str, description: str, schema: Any) -> JsonObject:
    tool: JsonObject = {"name": name}
    if description:
        tool["description"] = description
    return {**tool, "parametersJsonSchema": schema} if schema else tool


def _calling(c: Conversation) -> JsonObject:
    mode = c.tool_choice.mode if c.tool_choice else "auto"
    match mode:
        case "none":
            return {"mode": "NONE"}
        case "any":
            return {"mode": "ANY"}
        case "tool":
            assert c.tool_choice is not None
            return {"mode": "ANY", "allowedFunctionNames": [c.tool_choice.name]}
    # VALIDATED holds calls to their schemas, as OpenAI's `strict` does, and leaves the choice to the model.
    return {"mode": "VALIDATED" if any(tool.strict for tool in c.tools) else "AUTO"}


def _generation(c: Conversation) -> JsonObject:
    config: dict[str, Any] = {
        "maxOutputTokens": c.max_tokens,
        "temperature": c.temperature,
        "topP": c.top_p,
        "topK": c.top_k,
        "stopSequences": list(c.stop) or None,
        "seed": c.seed,
        "presencePenalty": c.presence_penalty,
        "frequencyPenalty": c.frequency_penalty,
    }
    if c.effort is not None:
        if c.effort not in THINKING:
            c.refuse("effort", f"cannot be {c.effort} for Gemini")
        config["thinkingConfig"] = THINKING[c.effort]
    if c.response_format is not None:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = c.response_format.schema
        if c.response_format.description:
            c.refuse("response_format", "cannot have a description for Gemini; put it into the schema")
    return {name: value for name, value in config.items() if value is not None}
