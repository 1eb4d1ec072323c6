"""What a prompt is: text or a chat, with typed variables; how two versions differ. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.prompts.errors import TemplateInvalid
from shared.ids import canonical

LATEST = "latest"
MAX_TEXT = 100_000
VARIABLE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Message(BaseModel):
    """One turn of a chat prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant", "tool"]
    content: str = Field(max_length=MAX_TEXT)


class Variable(BaseModel):
    """What a caller fills in; `required` ones have no default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["string", "number", "integer", "boolean"] = "string"
    required: bool = True
    description: str = Field(default="", max_length=500)


class Content(BaseModel):
    """Everything that the digest of a prompt version covers. Either `text` or `messages`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None = Field(default=None, min_length=1, max_length=MAX_TEXT)
    messages: tuple[Message, ...] = Field(default=(), max_length=200)
    variables: dict[str, Variable] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)

    def texts(self) -> Iterable[str]:
        """Every text that may hold variables."""
        return (self.text,) if self.text is not None else (message.content for message in self.messages)


def checked(content: Content) -> Content:
    """The content with every variable declared. Raises TemplateInvalid.

    What the text uses and nobody declared becomes a required string; what is declared must be used.
    """
    if (content.text is None) == (not content.messages):
        raise TemplateInvalid("a prompt is either a text or a list of messages; send one of the two")
    used = set()
    for text in content.texts():
        for found in VARIABLE.findall(text):
            if not NAME.fullmatch(found):
                raise TemplateInvalid(f"{{{{{found[:60]}}}}} is no variable; a name has letters, digits and _")
            used.add(found)
    unused = sorted(set(content.variables) - used)
    if unused:
        raise TemplateInvalid(f"declared but not used in the text: {', '.join(unused[:5])}")
    variables = {name: content.variables.get(name, Variable()) for name in sorted(used)}
    return content.model_copy(update={"variables": variables})


def as_bytes(document: dict[str, Any]) -> bytes:
    """The bytes that the digest covers: canonical JSON. Raises TemplateInvalid for what has no such form."""
    try:
        return canonical(document)
    except ValueError as error:
        raise TemplateInvalid(
            f"the prompt has no canonical JSON (RFC 8785): {error}; send large numbers as text"
        ) from None


def readable(content: dict[str, Any]) -> list[str]:
    """A prompt as lines, for a person's diff."""
    lines = [] if content.get("text") is None else str(content["text"]).splitlines()
    for message in content.get("messages", ()):
        lines += [f"[{message['role']}]", *str(message["content"]).splitlines()]
    lines += [f"variable {name}: {one['type']}" for name, one in sorted(content.get("variables", {}).items())]
    return lines + [f"config {name}: {value}" for name, value in sorted(content.get("config", {}).items())]


def difference(before: tuple[str, dict[str, Any]], after: tuple[str, dict[str, Any]]) -> str:
    """The unified diff between two named contents; empty when they read the same."""
    lines = difflib.unified_diff(readable(before[1]), readable(after[1]), before[0], after[0], lineterm="")
    return "\n".join(lines)
