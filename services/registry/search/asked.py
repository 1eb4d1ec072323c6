"""A search as it is asked, and what is answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from services.registry.search.asking import EVERYTHING, Question
from services.registry.search.facets import Facet
from services.registry.search.ordering import NEWEST, Order

Mode = Literal["text", "semantic", "hybrid"]


@dataclass(frozen=True, slots=True)
class Asked:
    """`words` narrow (text) or rank (semantic, hybrid) what the filter finds. Without an order, or where `relevance` is
    asked for, what is ranked comes by its rank and the rest by its registration."""

    filter: Question = EVERYTHING
    words: str = ""
    mode: Mode = "text"
    order: Order = NEWEST
    relevance: bool = False
    facets: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Why:
    """Why a version was found: comparisons that it fits, words that stand in its text, how near its meaning is."""

    fits: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    snippet: str | None = None
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One version of the answer; `key` is what the next page continues after."""

    number: int
    key: Any
    why: Why


@dataclass(frozen=True, slots=True)
class Hits:
    """A page. `total` counts all; `complete` is false while the index has not caught up with what was written."""

    items: list[Hit]
    total: int
    more: bool
    facets: list[Facet] = field(default_factory=list)
    complete: bool = True
    notes: tuple[str, ...] = ()
