"""The grammar of filters: MLflow's, and with OR, NOT, parentheses, IN, IS NULL, dates and every field of the catalog.

    name LIKE 'credit%' AND (tags.team = 'x' OR metrics.auc >= 0.9) AND NOT stage = 'retired' AND created > '2026-11-01'

Read from left to right by a table (LALR), and built as it is read, so that depth costs no stack; how deep, how long and
how many comparisons is bounded all the same.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from services.registry.search import fields
from services.registry.search.asking import (
    EVERYTHING,
    And,
    Compare,
    Has,
    Is,
    Leaf,
    Like,
    Not,
    Operator,
    Or,
    Question,
    leaves,
    literal,
)
from services.registry.search.errors import FilterRefused, at
from services.registry.search.facts import LONGEST_VALUE

LONGEST = 20_000
DEEPEST = 100
MOST_LEAVES = 500
MOST_VALUES = 2_000
MOST_WILDCARDS = 20

GRAMMAR = r"""
start: either
?either: both (_OR both)*
?both: denied (_AND denied)*
?denied: _NOT denied -> denied | atom
?atom: _OPEN either _CLOSE | comparison
comparison: KEY OPERATOR value -> compared
          | KEY (LIKE | ILIKE) value -> like
          | KEY _NOT (LIKE | ILIKE) value -> unlike
          | KEY _IN _OPEN value (_COMMA value)* _CLOSE -> among
          | KEY _NOT _IN _OPEN value (_COMMA value)* _CLOSE -> not_among
          | KEY _IS _NULL -> absent
          | KEY _IS _NOT _NULL -> present
value: TEXT | NUMBER

_OR.3: /or\b/i
_AND.3: /and\b/i
_NOT.3: /not\b/i
_IN.3: /in\b/i
_IS.3: /is\b/i
_NULL.3: /null\b/i
LIKE.3: /like\b/i
ILIKE.3: /ilike\b/i
_OPEN: "("
_CLOSE: ")"
_COMMA: ","
OPERATOR: "<=" | ">=" | "!=" | "<>" | "==" | "=" | "<" | ">"
KEY: /[A-Za-z_]\w*(\.([A-Za-z0-9_][\w.:\/@-]*|`[^`]+`|"[^"]+"))?/
TEXT: /'([^']|'')*'/ | /"[^"]*"/
NUMBER: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?/
%ignore /[ \t\r\n]+/
"""

EXPECTED = {
    "KEY": "a field", "OPERATOR": "an operator (= != < <= > >=)", "TEXT": "a text in quotes", "NUMBER": "a number",
    "_AND": "AND", "_OR": "OR", "_NOT": "NOT", "_OPEN": "(", "_CLOSE": ")", "_COMMA": "a comma", "_IN": "IN",
    "_IS": "IS", "_NULL": "NULL", "LIKE": "LIKE", "ILIKE": "ILIKE", "$END": "the end",
}  # fmt: skip


def parse(text: str) -> Question:
    """What a filter asks; an empty one asks nothing. Raises FilterRefused, which shows where."""
    if len(text) > LONGEST:
        raise FilterRefused(f"a filter has {LONGEST:,} characters at most; this one has {len(text):,}")
    if not text.strip():
        return EVERYTHING
    if "\x00" in text:
        raise at(text, text.index("\x00"), "a NUL character, which no value has")
    _bounded(text)
    return _parsed(text)


@lru_cache(maxsize=512)
def _parsed(text: str) -> Question:
    try:
        tree: Any = _parser().parse(text)
        found: Question = _Reader(text).transform(tree)
    except UnexpectedInput as error:
        raise _unexpected(text, error) from None
    except VisitError as error:
        if isinstance(error.orig_exc, FilterRefused):
            raise error.orig_exc from None
        raise
    if sum(1 for _ in leaves(found)) > MOST_LEAVES:
        raise FilterRefused(f"a filter has {MOST_LEAVES} comparisons at most; take IN for many values of one field")
    return found


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", propagate_positions=True, maybe_placeholders=False)


_NOTHING = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`")
_DEEPER = re.compile(r"\(|\)|\bnot\b", re.IGNORECASE)


def _bounded(text: str) -> None:
    """Raises FilterRefused for one that is nested too deep, before anything is built from it."""
    bare = _NOTHING.sub(lambda quoted: "x" * len(quoted[0]), text)
    depth = nots = 0
    for found in _DEEPER.finditer(bare):
        if found[0] == ")":
            depth -= 1
            continue
        depth += found[0] == "("
        nots = nots + 1 if found[0] != "(" else nots
        if depth > DEEPEST or nots > MOST_LEAVES:
            raise at(text, found.start(), f"a filter is nested {DEEPEST} deep at most")
    if re.search(rf"(?:\bnot\s+){{{DEEPEST}}}", bare, re.IGNORECASE):
        raise FilterRefused(f"a filter is nested {DEEPEST} deep at most")


def _unexpected(text: str, error: UnexpectedInput) -> FilterRefused:
    position = len(text) if error.pos_in_stream is None else error.pos_in_stream
    wanted: set[str] = set()
    if isinstance(error, UnexpectedToken):
        wanted = set(error.accepts or error.expected)
        position = len(text.rstrip()) if error.token.type == "$END" else position
    elif isinstance(error, UnexpectedCharacters):
        wanted = set(error.allowed or ())
    names = [said for name, said in EXPECTED.items() if name in wanted]
    found = "the end" if position >= len(text.rstrip()) else repr(text[position : position + 12])
    return at(text, position, f"expected {_listed(names)}, found {found}")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}" if names else "something else"


@v_args(meta=True)
class _Reader(Transformer[Token, Question]):
    """Trees of the parser as what they ask, checked against the fields."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def start(self, meta: Any, parts: list[Question]) -> Question:
        return parts[0]

    def either(self, meta: Any, parts: list[Question]) -> Question:
        return Or(tuple(parts))

    def both(self, meta: Any, parts: list[Question]) -> Question:
        return And(tuple(parts))

    def denied(self, meta: Any, parts: list[Question]) -> Question:
        return Not(parts[0])

    def value(self, meta: Any, parts: list[Token]) -> Token:
        return parts[0]

    def compared(self, meta: Any, parts: list[Token]) -> Question:
        key, operator, value = parts
        found = self._field(key)
        sign = {"==": "=", "<>": "!="}.get(str(operator), str(operator))
        if found.kind != "text":
            number = self._number(found, value)
            return Compare(found.name, _operator(sign), number, self._said(meta))
        if sign not in ("=", "!="):
            raise at(self._text, _place(operator), f"{key} is a text, which takes =, !=, IN, LIKE and ILIKE")
        return self._maybe_not(found, self._equal(found, [value], meta), sign == "!=")

    def like(self, meta: Any, parts: list[Token]) -> Question:
        key, how, value = parts
        found, text = self._field(key), self._string(value)
        if found.kind != "text":
            raise at(self._text, _place(how), f"{key} is a number, which takes = != < <= > >=")
        if text.count("%") + text.count("_") > MOST_WILDCARDS + len(text) // 4 or text.count("%") > MOST_WILDCARDS:
            raise at(self._text, _place(value), f"a pattern has {MOST_WILDCARDS} wildcards at most")
        if len(text) > LONGEST_VALUE:
            raise at(self._text, _place(value), f"a pattern has {LONGEST_VALUE} characters at most")
        any_case = how.type == "ILIKE"
        same = literal(text)
        if same is not None and not any_case:
            return Is(found.name, (same,), self._said(meta))
        return Like(found.name, text, any_case, self._said(meta))

    def unlike(self, meta: Any, parts: list[Token]) -> Question:
        return self._maybe_not(self._field(parts[0]), self.like(meta, parts), True)

    def among(self, meta: Any, parts: list[Token]) -> Question:
        key, *values = parts
        found = self._field(key)
        if len(values) > MOST_VALUES:
            raise at(self._text, _place(values[MOST_VALUES]), f"IN takes {MOST_VALUES} values at most")
        if found.kind == "text":
            return self._equal(found, values, meta)
        if len(values) > MOST_LEAVES:
            raise at(self._text, _place(values[MOST_LEAVES]), f"IN takes {MOST_LEAVES} numbers at most")
        said = self._said(meta)
        return Or(tuple(Compare(found.name, "=", self._number(found, value), said) for value in values))

    def not_among(self, meta: Any, parts: list[Token]) -> Question:
        return self._maybe_not(self._field(parts[0]), self.among(meta, parts), True)

    def absent(self, meta: Any, parts: list[Token]) -> Question:
        return Not(self._has(parts[0], meta))

    def present(self, meta: Any, parts: list[Token]) -> Question:
        return self._has(parts[0], meta)

    def _has(self, key: Token, meta: Any) -> Has:
        found = self._field(key)
        return Has(found.name, found.kind != "text", self._said(meta))

    def _maybe_not(self, found: fields.Field, part: Question, denied: bool) -> Question:
        """Not equal: of those that have the field."""
        if not denied:
            return part
        if found.absent_fits:
            return Not(part)
        return And((Has(found.name, found.kind != "text"), Not(part)))

    def _equal(self, found: fields.Field, values: list[Token], meta: Any) -> Leaf:
        kept = []
        for value in values:
            text = self._string(value) if value.type == "TEXT" else str(value)
            chosen = fields.choice(found.name, text)
            if chosen is None:
                raise at(self._text, _place(value), f"{found.name} is one of {', '.join(fields.CHOICES[found.name])}")
            kept.append(chosen)
        return Is(found.name, tuple(dict.fromkeys(kept)), self._said(meta))

    def _field(self, key: Token) -> fields.Field:
        named, dot, rest = str(key).partition(".")
        inner = rest[1:-1] if rest[:1] in ("`", '"') else rest
        found = fields.field(named, inner if dot else None)
        if found is None:
            if not dot and named.lower() in fields.KEYS:
                raise at(self._text, _place(key), f"say which one: {named}.<key>")
            raise at(self._text, _place(key), f"there is no field {str(key)[:60]!r}; there are {fields.known()}")
        return found

    def _string(self, value: Token) -> str:
        if value.type != "TEXT":
            raise at(self._text, _place(value), "expected a text in quotes")
        inner = str(value)[1:-1]
        return inner.replace("''", "'") if value[0] == "'" else inner

    def _number(self, found: fields.Field, value: Token) -> float:
        if value.type == "NUMBER":
            return float(value)
        text = self._string(value)
        at_time = fields.moment(text) if found.kind == "time" else None
        if at_time is not None:
            return at_time
        try:
            if found.kind == "number" and text.strip():
                return float(text)  # MLflow's clients write version_number = '3'
        except ValueError:
            pass
        wanted = "a time like '2026-11-20' or milliseconds since 1970" if found.kind == "time" else "a number"
        raise at(self._text, _place(value), f"expected {wanted}")

    def _said(self, meta: Any) -> str:
        return self._text[meta.start_pos : meta.end_pos]


def _operator(sign: str) -> Operator:
    assert sign in ("<", "<=", "=", "!=", ">=", ">")
    return sign  # type: ignore[return-value]


def _place(token: Token) -> int:
    return token.start_pos or 0
