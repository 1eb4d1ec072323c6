"""The one form between what clients speak and what providers speak: a conversation, its answer, and a stream's events.

Each protocol reads and writes this form and each provider does too, so n protocols and m providers need n + m
translations. It says only what at least two of them can say. What one of them alone can say never enters: a request
that holds it is refused with the name of the field, or passed through untouched where both sides are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn, TypeVar

from services.router.errors import FieldRefused, UpstreamGarbageError

JsonObject = dict[str, Any]
"""A parsed JSON object, as read from or written to the wire."""

Role = Literal["system", "user", "assistant"]
Mode = Literal["auto", "none", "any", "tool"]
PartKind = Literal["text", "refusal", "thinking", "tool_use"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
FinishReason = Literal["stop", "stop_sequence", "length", "tool_use", "filter", "refusal", "context", "pause", "other"]

# -- what is asked


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    where: str = field(default="", compare=False, repr=False)
    """The path of the part in the client's request, for a refusal to name."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the model said in place of an answer that it would not give."""

    text: str
    where: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Image:
    """Either `data` (base64) with its media type, or a `url` that the provider fetches."""

    media_type: str = ""
    data: str = ""
    url: str = ""
    detail: str = ""
    where: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Thinking:
    """The model's reasoning. `signature` proves to its maker that it is unchanged; `sealed` only its maker reads."""

    text: str = ""
    signature: str = ""
    sealed: str = ""
    where: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call that the model wants made. `arguments` is JSON text of an object, as the model wrote it."""

    id: str
    name: str
    arguments: str
    signature: str = ""
    """Gemini's thought signature; without it Gemini refuses the conversation's next turn."""
    where: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ToolResult:
    id: str
    content: tuple[Text | Image, ...]
    is_error: bool = False
    where: str = field(default="", compare=False, repr=False)


Part = Text | Refusal | Image | Thinking | ToolUse | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """A turn. Results of tools are parts of the user's turn."""

    role: Role
    parts: tuple[Part, ...]
    where: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str = ""
    schema: Mapping[str, Any] | None = None
    """JSON Schema of the arguments; None where the tool takes none."""
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    mode: Mode = "auto"
    name: str = ""


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """`json` is any JSON object, `schema` one of that JSON Schema."""

    kind: Literal["json", "schema"]
    schema: Mapping[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request for the next turn. None and empty mean: not asked, the provider's own default holds."""

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_format: ResponseFormat | None = None
    effort: Effort | None = None
    user: str | None = None
    include_usage: bool = False
    """Whether an OpenAI client asked for the usage at the end of its stream."""
    names: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """What the client's protocol calls a field of this class, where it is not the same name."""

    def name_of(self, name: str) -> str:
        return self.names.get(name, name)

    def refuse(self, name: str, reason: str) -> NoReturn:
        """Raises FieldRefused under the name which the client used."""
        raise FieldRefused(self.name_of(name), reason)

    def require_unset(self, provider: str, *names: str) -> None:
        """Raises FieldRefused if one of these fields is set: the provider has nothing that means the same."""
        for name in names:
            if getattr(self, name) not in (None, (), ""):
                self.refuse(name, f"cannot be said to {provider}; leave it out")

    def merged(self, roles: tuple[Role, ...] = ("user", "assistant")) -> tuple[Message, ...]:
        """The messages with neighbours of one role made one, as providers ask who want turns to alternate."""
        turns: list[Message] = []
        for message in self.messages:
            if turns and turns[-1].role == message.role and message.role in roles:
                turns[-1] = replace(turns[-1], parts=turns[-1].parts + message.parts)
            else:
                turns.append(message)
        return tuple(turns)

    def tool_names(self) -> dict[str, str]:
        """The name of each tool that was called, by the id of the call."""
        return {part.id: part.name for message in self.messages for part in message.parts if isinstance(part, ToolUse)}


# -- what is answered


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. `input` includes those read from and written to a cache, `output` includes `reasoning`."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's whole turn."""

    id: str
    model: str
    parts: tuple[Part, ...]
    finish: FinishReason
    usage: Usage | None = None
    """None where the provider did not say; nothing is estimated here."""
    stop_sequence: str | None = None


# -- the same, piece by piece


@dataclass(frozen=True, slots=True)
class Started:
    id: str
    model: str


@dataclass(frozen=True, slots=True)
class PartStarted:
    """Parts are numbered from 0 and one ends before the next begins."""

    index: int
    kind: PartKind
    id: str = ""
    name: str = ""
    signature: str = ""
    """Of a tool call, whose signature is known when it begins."""
    sealed: str = ""
    """All of a thought that nobody but its maker reads."""


@dataclass(frozen=True, slots=True)
class PartDelta:
    """More of a part: its text, or its JSON arguments."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class PartSigned:
    """The signature of a thought, which follows its text."""

    index: int
    signature: str


@dataclass(frozen=True, slots=True)
class PartEnded:
    index: int


@dataclass(frozen=True, slots=True)
class Finished:
    reason: FinishReason
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class UsageKnown:
    """Cumulative: the last one counts."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Closed:
    """The provider's own mark that nothing more follows."""


Event = Started | PartStarted | PartDelta | PartSigned | PartEnded | Finished | UsageKnown | Closed


class AnswerBuilder:
    """Puts a stream's events together to the answer that it is."""

    def __init__(self) -> None:
        self.id = ""
        self.model = ""
        self.usage: Usage | None = None
        self.finish: FinishReason | None = None
        self.stop_sequence: str | None = None
        self.has_token = False
        """Whether anything of the answer itself was heard, which is when time to first token ends."""
        self.is_closed = False
        self._parts: list[tuple[PartStarted, list[str]]] = []
        self._signatures: dict[int, str] = {}

    def add(self, event: Event) -> None:
        match event:
            case PartDelta(index, text):
                if text:
                    self.has_token = True
                    self._parts[index][1].append(text)
            case PartStarted():
                self._parts.append((event, []))
                if event.kind == "tool_use":
                    self.has_token = True
            case PartSigned(index, signature):
                self._signatures[index] = signature
            case UsageKnown(usage):
                self.usage = usage
            case Started(id, model):
                self.id, self.model = id, model
            case Finished(reason, stop_sequence):
                self.finish, self.stop_sequence = reason, stop_sequence
            case Closed():
                self.is_closed = True
            case PartEnded():
                pass

    def answer(self) -> Answer:
        """What was heard so far; `finish` is `other` if the end was not."""
        parts = tuple(self._part(index) for index in range(len(self._parts)))
        return Answer(self.id, self.model, parts, self.finish or "other", self.usage, self.stop_sequence)

    def _part(self, index: int) -> Part:
        begun, pieces = self._parts[index]
        text = "".join(pieces)
        match begun.kind:
            case "text":
                return Text(text)
            case "refusal":
                return Refusal(text)
            case "thinking":
                return Thinking(text, self._signatures.get(index, ""), begun.sealed)
            case "tool_use":
                return ToolUse(begun.id, begun.name, text, begun.signature)


def events_of(answer: Answer) -> Iterable[Event]:
    """A whole answer as the stream that it could have been."""
    yield Started(answer.id, answer.model)
    for index, part in enumerate(answer.parts):
        match part:
            case Text(text) | Refusal(text):
                yield PartStarted(index, "text" if isinstance(part, Text) else "refusal")
                yield PartDelta(index, text)
            case Thinking(text, signature, sealed):
                yield PartStarted(index, "thinking", sealed=sealed)
                yield PartDelta(index, text)
                if signature:
                    yield PartSigned(index, signature)
            case ToolUse(id, name, arguments, signature):
                yield PartStarted(index, "tool_use", id, name, signature)
                yield PartDelta(index, arguments)
            case _:
                raise UpstreamGarbageError(f"A model does not answer with {type(part).__name__}.")
        yield PartEnded(index)
    if answer.usage is not None:
        yield UsageKnown(answer.usage)
    yield Finished(answer.finish, answer.stop_sequence)
    yield Closed()


class Parts:
    """Numbers the parts of a provider's stream for a decoder: one open at a time, each ended before the next begins."""

    def __init__(self) -> None:
        self._next = 0
        self._open: tuple[object, int] | None = None
        self._ended: set[object] = set()

    def at(
        self, key: object, kind: PartKind, id: str = "", name: str = "", *, signature: str = "", sealed: str = "",
        again: bool = False,
    ) -> tuple[int, list[Event]]:  # fmt: skip
        """The number of the part that the provider knows as `key`, and the events that its first mention makes.

        Raises UpstreamGarbageError when a part that had ended goes on, since clients are told of parts one by one;
        `again` begins another part instead.
        """
        if self._open is not None and self._open[0] == key:
            return self._open[1], []
        if key in self._ended and not again:
            raise UpstreamGarbageError("The provider's stream goes on with a part that had ended.")
        events = self.end()
        index, self._next = self._next, self._next + 1
        self._open = (key, index)
        events.append(PartStarted(index, kind, id, name, signature, sealed))
        return index, events

    def open_index(self, key: object) -> int | None:
        return self._open[1] if self._open is not None and self._open[0] == key else None

    def end(self) -> list[Event]:
        """End the part that is open, if one is."""
        if self._open is None:
            return []
        key, index = self._open
        self._open = None
        self._ended.add(key)
        return [PartEnded(index)]


PartT = TypeVar("PartT", bound=Part)


def parts_of(parts: Iterable[Part], kind: type[PartT]) -> list[PartT]:
    return [part for part in parts if isinstance(part, kind)]


def spoken(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Without empty texts, which OpenAI's clients send beside tool calls and other providers refuse."""
    said = tuple(part for part in parts if not (isinstance(part, Text) and not part.text))
    return said or parts
