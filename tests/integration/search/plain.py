"""The index as it is by definition: versions as values in memory, and every question asked of each of them."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, field
from typing import Any

from services.registry.search.asking import And, Compare, Has, Is, Like, Not, Or, Question, Word
from services.registry.search.ordering import Order

COMPARE = {
    "<": operator.lt, "<=": operator.le, "=": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip


@dataclass
class Plain:
    """One version."""

    values: dict[str, set[str]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)
    label: str = ""


def holds(one: Plain, question: Question) -> bool:
    """Whether a version answers a question."""
    match question:
        case Not(part):
            return not holds(one, part)
        case And(parts):
            return all(holds(one, part) for part in parts)
        case Or(parts):
            return any(holds(one, part) for part in parts)
        case Is(of, values):
            return bool(one.values.get(of, set()) & set(values))
        case Like(of, pattern, any_case):
            texts = {one.label} if of == "name" else one.values.get(of, set())
            return any(fits(pattern, text, any_case) for text in texts)
        case Compare(of, sign, value):
            return of in one.numbers and bool(COMPARE[sign](one.numbers[of], value))
        case Has(of, number):
            return of in one.numbers if number else bool(one.values.get(of))
        case Word(stem):
            return stem in one.words


def fits(pattern: str, text: str, any_case: bool) -> bool:
    """LIKE, as a regular expression says it."""
    expression = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern)
    return re.fullmatch(expression, text, re.DOTALL | (re.IGNORECASE if any_case else 0)) is not None


def ordered(versions: dict[int, Plain], found: set[int], order: Order) -> list[int]:
    """The versions in an order: those without a number last, equal ones newest first."""
    if order.field is None:
        return sorted(found, reverse=order.descending)

    def key(number: int) -> Any:
        one = versions[number]
        return one.label if order.field == "label" else one.numbers.get(order.field or "")

    there = sorted((n for n in found if key(n) is not None), reverse=True)
    there.sort(key=key, reverse=order.descending)
    return there + sorted((n for n in found if key(n) is None), reverse=True)
