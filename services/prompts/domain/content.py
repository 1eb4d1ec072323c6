"""What a prompt version holds: a text or a chat with its variables, examples and configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.prompts.domain.places import EXAMPLES, NAME
from services.prompts.errors import TemplateInvalid
from shared.ids import canonical

LATEST = "latest"
MAX_TEXT = 100_000
MAX_CONFIG_BYTES = 256 * 1024
MAX_VARIABLES = 200
Syntax = Literal["jinja", "plain"]


class Message(BaseModel):
    """One turn of a chat prompt. The role `examples` stands where the few-shot examples go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant", "tool", "function", "model", "examples"]
    content: str = Field(max_length=MAX_TEXT)


class Placeholder(BaseModel):
    """Where a caller puts messages of its own, such as the conversation so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["placeholder"]
    name: str = Field(pattern=f"^{NAME.pattern}$", max_length=64)


class Variable(BaseModel):
    """What a caller fills in. `json_schema` says more than the type; one that is not required may have a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["string", "number", "integer", "boolean", "array", "object"] = "string"
    required: bool = True
    description: str = Field(default="", max_length=500)
    default: Any = None
    json_schema: dict[str, Any] = Field(default_factory=dict, description="JSON Schema 2020-12, beside the type")


class Example(BaseModel):
    """One few-shot example."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str = Field(max_length=MAX_TEXT)
    output: str = Field(max_length=MAX_TEXT)


Turn = Message | Placeholder
VariableName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Content(BaseModel):
    """What an author writes. Either `text` or `messages`.

    `syntax` says what else than `{{name}}` has a meaning: everything of jinja, or nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = Field(default=None, min_length=1, max_length=MAX_TEXT)
    messages: tuple[Turn, ...] = Field(default=(), max_length=200)
    syntax: Syntax = "jinja"
    variables: dict[VariableName, Variable] = Field(default_factory=dict, max_length=MAX_VARIABLES)
    examples: tuple[Example, ...] = Field(default=(), max_length=100)
    config: dict[str, Any] = Field(default_factory=dict)

    def texts(self) -> list[str]:
        """Every text that may hold variables."""
        if self.text is not None:
            return [self.text]
        return [turn.content for turn in self.messages if isinstance(turn, Message)]

    def with_texts(self, texts: Iterable[str]) -> Content:
        """The same with other texts, in the order of `texts`."""
        new: Iterator[str] = iter(texts)
        if self.text is not None:
            return self.model_copy(update={"text": next(new)})
        turns = tuple(
            turn.model_copy(update={"content": next(new)}) if isinstance(turn, Message) else turn
            for turn in self.messages
        )
        return self.model_copy(update={"messages": turns})

    def placeholders(self) -> list[str]:
        return [turn.name for turn in self.messages if isinstance(turn, Placeholder)]


def check_form(content: Content) -> None:
    """What can be said without reading the template. Raises TemplateInvalid."""
    if (content.text is None) == (not content.messages):
        raise TemplateInvalid("a prompt is either a text or a list of messages; send one of the two")
    written = [content.config, {name: one.model_dump() for name, one in content.variables.items()}]
    size = 0
    try:
        for part in json.JSONEncoder().iterencode(written):  # no further than the bound, however much more there is
            size += len(part)
            if size > MAX_CONFIG_BYTES:
                raise TemplateInvalid(f"config and variables are more than {MAX_CONFIG_BYTES} bytes, which is the most")
    except RecursionError:
        raise TemplateInvalid("config and variables are nested too deep") from None
    if sum(map(len, content.texts())) > MAX_TEXT:
        raise TemplateInvalid(f"the messages together are longer than {MAX_TEXT} characters")
    if content.examples and content.syntax == "plain" and content.text is not None:
        raise TemplateInvalid("a plain text has no place for examples; write jinja, or a chat")


def declared(content: Content, used: Iterable[str], inherited: dict[str, Variable]) -> dict[str, Variable]:
    """Every variable with its declaration. Raises TemplateInvalid.

    What the text uses and nobody declared becomes a required string; what is declared must be used. Included prompts
    bring their declarations along.
    """
    wanted = {*used, *content.placeholders()}
    if content.syntax == "jinja" and content.text is not None:
        wanted.discard(EXAMPLES)
    unused = sorted(set(content.variables) - wanted)
    if unused:
        raise TemplateInvalid(f"declared but not used in the text: {', '.join(unused[:5])}")
    if len(wanted) > MAX_VARIABLES:
        raise TemplateInvalid(f"the text uses {len(wanted)} variables; {MAX_VARIABLES} is the most")
    turns = Variable(type="array", required=False, description="messages")
    fallback = {**inherited, **dict.fromkeys(content.placeholders(), turns)}
    return {name: content.variables.get(name) or fallback.get(name) or Variable() for name in sorted(wanted)}


def as_bytes(document: dict[str, Any]) -> bytes:
    """The bytes that the digest covers: canonical JSON. Raises TemplateInvalid for what has no such form."""
    try:
        return canonical(document)
    except (ValueError, RecursionError) as error:
        raise TemplateInvalid(
            f"the prompt has no canonical JSON (RFC 8785): {error}; send large numbers as text"
        ) from None
