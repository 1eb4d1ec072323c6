"""Prompts that include prompts: found in the text, locked to versions, put in. Pure.

Two ways to write it: Langfuse's tag `@@@langfusePrompt:name=x|version=1@@@` (or `|label=y`), and in jinja texts
`{% include "x" version=1 %}` (or `label="y"`; alone it means the label production).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.prompts.domain.content import MAX_TEXT, Content, Variable
from services.prompts.domain.places import reads_alike
from services.prompts.errors import IncludeRefused
from shared.ids import sha256

DEFAULT_LABEL = "production"
MAX_INCLUDES = 50
MAX_DEPTH = 8
LANGFUSE = re.compile(r"@@@langfusePrompt:([^@]{1,1200})@@@")
# Runs are bounded, so that no text makes the search quadratic.
JINJA = re.compile(
    r"\{%-?[ ]{0,8}include[ ]{1,8}\"([^\"\n]{1,500})\""
    r"(?:[ ]{1,8}(version|label)=\"?([a-z0-9._-]{1,64})\"?)?[ ]{0,8}-?%\}"
)
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Reference:
    """One tag as it stands in a text. Without a version it names a label."""

    tag: str
    title: str
    version: int | None
    label: str | None


@dataclass(frozen=True, slots=True)
class Included:
    """A version that a text includes, with the content that was locked into it when it was published."""

    name: str
    title: str
    version: int
    digest: str
    document: dict[str, Any]

    @property
    def here(self) -> str:
        return f"{self.title}@{self.version}"

    @property
    def closure(self) -> list[dict[str, Any]]:
        """What it includes itself, all the way down."""
        return list(self.document.get("closure", ()))

    def text(self, plain: bool) -> str:
        """Its text with everything put in. Raises IncludeRefused where it is none, or reads otherwise there."""
        text = self.document.get("resolved_text", self.document.get("text"))
        if text is None:
            raise IncludeRefused(f"{self.here} is a chat; only text prompts can be included")
        if (self.document.get("syntax") == "plain") != plain and not reads_alike(text):
            raise IncludeRefused(
                f"{self.here} is written in {self.document.get('syntax', 'jinja')} and would read otherwise here; "
                "give both prompts one syntax"
            )
        return str(text)

    def entry(self) -> dict[str, Any]:
        return {"name": self.name, "title": self.title, "version": self.version, "digest": self.digest}


def references(content: Content) -> list[Reference]:
    """Every tag of the texts, each once. Raises IncludeRefused."""
    found: dict[str, Reference] = {}
    for text in content.texts():
        for match in LANGFUSE.finditer(text):
            found[match[0]] = _langfuse(match[0], match[1])
        if content.syntax == "jinja":
            for match in JINJA.finditer(text):
                found[match[0]] = _reference(match[0], match[1], {match[2]: match[3]} if match[2] else {})
    if len(found) > MAX_INCLUDES:
        raise IncludeRefused(f"{len(found)} prompts are included; {MAX_INCLUDES} is the most")
    return list(found.values())


def _langfuse(tag: str, inside: str) -> Reference:
    parts = dict(part.partition("=")[::2] for part in inside.split("|"))
    title = parts.pop("name", "")
    if not title or len(parts) != 1 or not set(parts) <= {"version", "label"}:
        raise IncludeRefused(f"{tag[:200]} is not `@@@langfusePrompt:name=x|version=1@@@` (or `|label=y`)")
    return _reference(tag, title, parts)


def _reference(tag: str, title: str, pointer: dict[str, str]) -> Reference:
    version = pointer.get("version")
    if version is not None and not _NUMBER.fullmatch(version):
        raise IncludeRefused(f"{tag[:200]}: a version is a number from 1")
    label = None if version is not None else pointer.get("label", DEFAULT_LABEL)
    return Reference(tag, title, int(version) if version is not None else None, label)


def check_cycle(name: str, title: str, included: Included) -> None:
    """Refuse a version whose closure comes back to the prompt itself, with the whole path. Raises IncludeRefused.

    Versions are locked, so they cannot make a circle; names can, and then each new version of one would call for a new
    one of the other without end.
    """
    path = _path(name, included.entry() | {"closure": included.closure})
    if path is not None:
        raise IncludeRefused(f"a prompt cannot include itself: {' → '.join([title, *path])}")


def _path(name: str, entry: Mapping[str, Any]) -> list[str] | None:
    here = f"{entry['title']}@{entry['version']}"
    if entry["name"] == name:
        return [here]
    for below in entry.get("closure", ()):
        found = _path(name, below)
        if found is not None:
            return [here, *found]
    return None


def _depth(entry: Mapping[str, Any]) -> int:
    return 1 + max((_depth(below) for below in entry.get("closure", ())), default=0)


@dataclass(frozen=True, slots=True)
class Closure:
    """Everything that a content includes: its direct includes as a tree of locked versions, and the texts put in."""

    entries: list[dict[str, Any]]
    resolved: Content
    variables: dict[str, Variable]

    def flat(self) -> list[dict[str, Any]]:
        """Every version of the tree once, in order of name and number."""
        found = {(entry["name"], entry["version"]): entry for entry in _every(self.entries)}
        return [found[key] for key in sorted(found)]


def _every(entries: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for entry in entries:
        yield {key: value for key, value in entry.items() if key != "closure"}
        yield from _every(entry.get("closure", ()))


def put_in(content: Content, found: Mapping[str, Included]) -> Closure:
    """The content with each tag replaced by the text of its version. Raises IncludeRefused."""
    plain = content.syntax == "plain"
    entries: dict[str, dict[str, Any]] = {}
    inherited: dict[str, Variable] = {}
    for tag in sorted(found):
        one = found[tag]
        entry = one.entry() | {"tag": sha256(tag.encode())[7:23]}
        if one.closure:
            entry["closure"] = one.closure
        if _depth(entry) > MAX_DEPTH:
            raise IncludeRefused(f"{one.here} includes prompts more than {MAX_DEPTH} deep")
        entries[f"{one.name}@{one.version}"] = {key: value for key, value in entry.items() if key != "tag"}
        for name, raw in one.document.get("variables", {}).items():
            variable = Variable.model_validate(raw)
            if name not in content.variables and inherited.setdefault(name, variable) != variable:
                raise IncludeRefused(
                    f"two included prompts declare {name} differently; declare it in this one to say what counts"
                )
    texts = [_replaced(text, {tag: one.text(plain) for tag, one in found.items()}) for text in content.texts()]
    return Closure(list(entries.values()), content.with_texts(texts), inherited)


def _replaced(text: str, texts: Mapping[str, str]) -> str:
    put: Callable[[re.Match[str]], str] = lambda match: texts.get(match[0], match[0])  # noqa: E731
    text = JINJA.sub(put, LANGFUSE.sub(put, text))
    if len(text) > MAX_TEXT:
        raise IncludeRefused(f"with everything included the text is longer than {MAX_TEXT} characters")
    return text
