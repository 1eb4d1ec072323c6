"""What a filter asks, as a tree of frozen values, and patterns as LIKE has them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Operator = Literal["<", "<=", "=", "!=", ">=", ">"]


@dataclass(frozen=True, slots=True)
class Is:
    """A field has one of these values."""

    field: str
    values: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Like:
    """A field's value fits a pattern."""

    field: str
    pattern: str
    any_case: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Compare:
    """A number compares so to another one."""

    field: str
    operator: Operator
    value: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Has:
    """A version has the field: a text, or a number."""

    field: str
    number: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """A word, as a stem, stands in the version's text."""

    stem: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Not:
    part: Question


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Question, ...]


Leaf = Is | Like | Compare | Has | Word
Question = Leaf | Not | And | Or
EVERYTHING = And(())


def both(*parts: Question) -> Question:
    """Everything that these ask, without nesting it deeper than need be."""
    flat: list[Question] = []
    for part in parts:
        flat += part.parts if isinstance(part, And) else (part,)
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def leaves(question: Question) -> Iterator[Leaf]:
    """Every comparison, in order."""
    if isinstance(question, Not):
        yield from leaves(question.part)
    elif isinstance(question, And | Or):
        for part in question.parts:
            yield from leaves(part)
    else:
        yield question


class Pattern:
    """A pattern of LIKE, matched piece by piece, each at the first place where it fits: no pattern takes long."""

    def __init__(self, pattern: str, *, any_case: bool, ascii_case: bool = False) -> None:
        flags = (re.IGNORECASE if any_case else 0) | (re.ASCII if ascii_case else 0) | re.DOTALL
        self.pieces = pieces(pattern)
        self._pieces = [re.compile("".join("." if c is None else re.escape(c) for c in piece), flags)
                        for piece in self.pieces]  # fmt: skip

    def fits(self, text: str) -> bool:
        first, *rest = self._pieces
        begun = first.match(text)
        if begun is None:
            return False
        if not rest:
            return begun.end() == len(text)
        place, last = begun.end(), rest.pop()
        for piece in rest:
            found = piece.search(text, place)
            if found is None:
                return False
            place = found.end()
        start = len(text) - len(self.pieces[-1])
        return start >= place and last.fullmatch(text, start) is not None


def pieces(pattern: str) -> list[list[str | None]]:
    """What stands between the `%` of a pattern; None is any one character. A backslash makes the next one plain."""
    found: list[list[str | None]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            found[-1].append(next(characters, "\\"))
        elif character == "%":
            found.append([])
        else:
            found[-1].append(None if character == "_" else character)
    return found


def prefix(pattern: str) -> str:
    """How everything that fits begins."""
    first = pieces(pattern)[0]
    return "".join(first[: first.index(None)] if None in first else first)  # type: ignore[arg-type]


def literal(pattern: str) -> str | None:
    """The one text that fits, where there is but one."""
    found = pieces(pattern)
    return None if len(found) > 1 or None in found[0] else prefix(pattern)
