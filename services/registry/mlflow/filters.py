"""MLflow's own filters of runs, experiments and models: comparisons joined by AND, and what an order is by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.registry.mlflow.errors import wrong

LONGEST = 20_000
MOST = 200

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^'\\]|\\.|'')*'|"[^"]*"(?!\s*(?:=|!|<|>|i?like\b|in\b|not\b|is\b)))
      | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,)
      | (?P<word>[A-Za-z_][\w.\-/:@]*(?:`[^`]+`|"[^"]+")?|`[^`]+`|"[^"]+")
    )""",
    re.VERBOSE | re.IGNORECASE,
)

Value = str | float | tuple[str, ...]
Look = Callable[[Any, str, str], str | float | list[str] | None]
"""The value of a field of a thing: (thing, kind of field, key)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison: `of` is attribute, tag, param, metric or dataset."""

    of: str
    key: str
    operator: str
    value: Value


KINDS = {
    "attribute": "attribute", "attributes": "attribute", "attr": "attribute", "run": "attribute",
    "tag": "tag", "tags": "tag", "param": "param", "params": "param", "parameter": "param", "parameters": "param",
    "metric": "metric", "metrics": "metric", "dataset": "dataset", "datasets": "dataset",
}  # fmt: skip


def parse(text: str, numbers: frozenset[str] = frozenset()) -> list[Comparison]:
    """The comparisons of a filter. `numbers` are the attributes that are numbers. Raises INVALID_PARAMETER_VALUE."""
    if len(text) > LONGEST:
        raise wrong(f"a filter has {LONGEST:,} characters at most")
    tokens = _tokens(text)
    found: list[Comparison] = []
    while tokens:
        if found:
            joint = tokens.pop(0)
            if joint[0] != "word" or joint[1].lower() != "and" or not tokens:
                raise wrong(f"Invalid clause(s) in filter string: expected AND before {joint[1][:50]!r}")
        found.append(_comparison(tokens, numbers))
    if len(found) > MOST:
        raise wrong(f"a filter has {MOST} comparisons at most")
    return found


def _tokens(text: str) -> list[tuple[str, str]]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise wrong(f"Invalid filter string: cannot read it at column {place + 1}: {text[place : place + 40]!r}")
        place = match.end()
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
    return found


def _comparison(tokens: list[tuple[str, str]], numbers: frozenset[str]) -> Comparison:
    of, key = _field(_next(tokens, "word"))
    operator = _operator(tokens)
    if operator in ("IS NULL", "IS NOT NULL"):
        return Comparison(of, key, operator, "")
    number = of == "metric" or (of == "attribute" and key in numbers)
    if operator in ("IN", "NOT IN"):
        if number or of not in ("attribute", "dataset"):
            raise wrong(f"{operator} is for attributes that are texts, not for {of} {key[:50]!r}")
        return Comparison(of, key, operator, _among(tokens))
    kind, raw = tokens.pop(0) if tokens else ("end", "")
    if number:
        if kind != "number" or operator in ("LIKE", "ILIKE"):
            raise wrong(f"{of} {key[:50]!r} is compared with a number, by = != < <= > >=, not {operator} {raw[:50]}")
        return Comparison(of, key, operator, float(raw))
    if kind != "text" or operator in ("<", "<=", ">", ">="):
        raise wrong(
            f"{of} {key[:50]!r} is compared with a text in quotes, by = != LIKE ILIKE, not {operator} {raw[:50]}"
        )
    return Comparison(of, key, operator, _unquoted(raw))


def _field(word: str) -> tuple[str, str]:
    of, dot, key = word.partition(".")
    if not dot:
        return "attribute", _bare(word)
    kind = KINDS.get(of.lower())
    if kind is None or not key:
        raise wrong(f"Invalid entity type '{of[:50]}'; one of attribute, tag, param, metric, dataset")
    return kind, _bare(key)


def _operator(tokens: list[tuple[str, str]]) -> str:
    kind, raw = tokens.pop(0) if tokens else ("end", "")
    word = raw.upper()
    if kind == "sign" and raw not in "(),":
        return {"==": "=", "<>": "!="}.get(raw, raw)
    if kind == "word" and word in ("LIKE", "ILIKE", "IN"):
        return word
    if kind == "word" and word == "NOT" and tokens and tokens[0][1].upper() == "IN":
        tokens.pop(0)
        return "NOT IN"
    if kind == "word" and word == "IS" and tokens:
        negated = tokens[0][1].upper() == "NOT"
        if negated:
            tokens.pop(0)
        if tokens and tokens.pop(0)[1].upper() == "NULL":
            return "IS NOT NULL" if negated else "IS NULL"
    raise wrong(f"Invalid comparison in filter string: {raw[:50]!r} is no operator")


def _among(tokens: list[tuple[str, str]]) -> tuple[str, ...]:
    _next(tokens, "sign", "(")
    found = [_unquoted(_next(tokens, "text"))]
    while tokens and tokens[0][1] == ",":
        tokens.pop(0)
        found.append(_unquoted(_next(tokens, "text")))
    _next(tokens, "sign", ")")
    return tuple(found)


def _next(tokens: list[tuple[str, str]], kind: str, sign: str | None = None) -> str:
    found, raw = tokens.pop(0) if tokens else ("end", "nothing")
    if found != kind or (sign is not None and raw != sign):
        raise wrong(f"Invalid filter string: expected {sign or kind}, not {raw[:50]!r}")
    return raw


def _bare(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] in '`"' and text[-1] == text[0] else text


def _unquoted(text: str) -> str:
    inner = text[1:-1]
    return inner.replace("''", "'") if text[0] == "'" else inner


def written(comparisons: list[Comparison]) -> str:
    """The comparisons as a filter of the catalog's own grammar, which is wider than MLflow's."""
    parts = []
    for one in comparisons:
        field = one.key if one.of == "attribute" else f"{one.of}s.`{one.key}`"
        if isinstance(one.value, tuple):
            value = f"({', '.join(_quoted(text) for text in one.value)})"
        else:
            value = repr(one.value) if isinstance(one.value, float) else _quoted(one.value)
        parts.append(f"{field} {one.operator}" + ("" if "NULL" in one.operator else f" {value}"))
    return " AND ".join(parts)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def fits(
    comparisons: list[Comparison], look: Look, absent: Mapping[tuple[str, str], bool] | None = None
) -> Callable[[Any], bool]:
    """Whether a thing fits all of them. A field that a thing has not fits no comparison, but those in `absent`.

    Of a list it is enough that one value fits.
    """
    tests = [(one, _test(one)) for one in comparisons]

    def all_fit(thing: Any) -> bool:
        for one, test in tests:
            value = look(thing, one.of, one.key)
            if value is None:
                if one.operator == "IS NULL" or (one.operator == "!=" and (absent or {}).get((one.of, one.key))):
                    continue
                return False
            if not any(map(test, value)) if isinstance(value, list) else not test(value):
                return False
        return True

    return all_fit


def _test(one: Comparison) -> Callable[[Any], bool]:
    wanted: Any = one.value
    if one.operator in ("LIKE", "ILIKE"):
        return _like(str(wanted), any_case=one.operator == "ILIKE")
    return {
        "=": lambda value: value == wanted,
        "!=": lambda value: value != wanted,
        "<": lambda value: value < wanted,
        "<=": lambda value: value <= wanted,
        ">": lambda value: value > wanted,
        ">=": lambda value: value >= wanted,
        "IN": lambda value: value in wanted,
        "NOT IN": lambda value: value not in wanted,
        "IS NULL": lambda value: False,
        "IS NOT NULL": lambda value: True,
    }[one.operator]


def _like(pattern: str, *, any_case: bool) -> Callable[[str], bool]:
    """A pattern with % and _, matched piece by piece, each at the first place where it fits: none takes long."""
    flags = re.DOTALL | (re.IGNORECASE if any_case else 0)
    pieces = [
        re.compile("".join("." if c == "_" else re.escape(c) for c in piece), flags) for piece in pattern.split("%")
    ]
    lengths = [len(piece) for piece in pattern.split("%")]

    def test(value: str) -> bool:
        text = str(value)
        if len(pieces) == 1:
            return pieces[0].fullmatch(text) is not None
        begun = pieces[0].match(text)
        if begun is None:
            return False
        place = begun.end()
        for piece in pieces[1:-1]:
            found = piece.search(text, place)
            if found is None:
                return False
            place = found.end()
        start = len(text) - lengths[-1]
        return start >= place and pieces[-1].fullmatch(text, start) is not None

    return test


def ordering(clauses: list[str], numbers: frozenset[str] = frozenset()) -> list[tuple[str, str, bool]]:
    """`metrics.auc DESC` as (kind of field, key, ascending). Raises INVALID_PARAMETER_VALUE."""
    found = []
    for clause in clauses:
        tokens = _tokens(clause)
        of, key = _field(_next(tokens, "word"))
        direction = tokens.pop(0)[1].upper() if tokens else "ASC"
        if direction not in ("ASC", "DESC") or tokens:
            raise wrong(f"Invalid order_by clause: {clause[:100]!r}")
        found.append((of, key, direction == "ASC"))
    if len({(of, key) for of, key, _ in found}) != len(found):
        raise wrong(f"`order_by` contains duplicate fields: {clauses}"[:500])
    return found
