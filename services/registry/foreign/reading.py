"""What a walk through a foreign document has found so far, and which parts of it are claimed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.registry.foreign import charts, document, fields
from services.registry.foreign.document import Pointer
from services.registry.foreign.fields import MOST_FIELDS, Field, Unreadable
from services.registry.foreign.vocabulary import section, snake

BY_NAME, IN_PLACE, BY_SHAPE = 0.95, 0.9, 0.8

Section = Callable[["Reading", Any, Pointer], bool]
"""Reads what a known key holds; False where that is not what the key means elsewhere."""


@dataclass
class Reading:
    """What a walk has found so far."""

    whole: Any
    sections: Mapping[str, Section]
    found: dict[str, Field] = field(default_factory=dict)
    claimed: set[Pointer] = field(default_factory=set)

    def add(self, name: str, value: Any, at: Pointer, reason: str, confidence: float, *claims: Pointer) -> bool:
        """Make a field of a value; False where it cannot be one, or another value stands there already."""
        if len(self.found) >= MOST_FIELDS:
            return False
        try:
            made = fields.make(name, value, document.text(at), reason, confidence)
        except (Unreadable, ValueError):
            return False
        before = self.found.setdefault(made.field, made)
        if before is not made and before.value != made.value:
            return False
        self.claimed |= {at, *claims}
        return True

    def chart(self, chart: charts.Chart, at: Pointer, reason: str) -> bool:
        """Make a chart of what stands at a pointer; it is named by the keys that lead there."""
        words = [snake(part) for part in at if not part.isdecimal()]
        words = [word for word in words if section(word) != "metrics" or word == words[-1]]
        name = ".".join(words[-2:]) if words[-1] in ("values", "data", "points", "matrix") else words[-1]
        for candidate in (name, ".".join(words)):
            if self.add(f"charts.{candidate[:200]}", chart.model_dump(mode="json"), at, reason, BY_SHAPE):
                self._leave_remarks(at)
                return True
        return False

    def _leave_remarks(self, at: Pointer) -> None:
        """A chart is made of lists; what else stands beside them is no part of it."""
        value = document.at(self.whole, at)
        items = value.items() if isinstance(value, dict) else ()
        lists = {(*at, key) for key, inner in items if isinstance(inner, list | dict)}
        if lists:
            self.claimed.discard(at)
            self.claimed |= lists


def because(at: Pointer, what: str) -> str:
    return f"`{at[-1][:80]}` means {what}"


def shaped(chart: charts.Chart) -> str:
    return f"its shape is that of a {chart.type.replace('_', ' ')}"


def keys_of(value: Any) -> dict[str, str]:
    """An object's keys by how they are compared; none for what is no object."""
    return {snake(key): key for key in value} if isinstance(value, dict) else {}


def first(keys: Mapping[str, str], names: Iterable[str]) -> str | None:
    """The first of these names that is a key."""
    return next((keys[name] for name in names if name in keys), None)


def texts(item: Mapping[str, Any], keys: Mapping[str, str], names: Iterable[str]) -> str | None:
    """The first of these names whose value is a text."""
    return next((keys[name] for name in names if name in keys and isinstance(item[keys[name]], str)), None)


def some(results: Iterable[bool]) -> bool:
    """Whether any is true; all are made, which `any` alone would not do."""
    return any(list(results))
