"""How many of the versions found have each value of a field."""

from __future__ import annotations

from dataclasses import dataclass

from pyroaring import BitMap

from services.registry.search import fields
from services.registry.search.facts import value_of
from services.registry.search.view import View
from shared.errors import Invalid

USUAL = ("kind", "stage", "task", "licence", "risk", "author")
MOST = 10
MOST_VALUES = 100
"""Values of a field that are counted: its most common ones. With more of them a facet says that it is not whole."""


@dataclass(frozen=True, slots=True)
class Facet:
    """Values with how many of the versions have them, the most common first; `whole` when all values were counted."""

    field: str
    values: tuple[tuple[str, int], ...]
    whole: bool


def read_facets(text: str | None) -> tuple[tuple[str, str], ...]:
    """`kind,stage,tags.team` (or `usual`) as pairs of what was asked for and its field. Raises Invalid."""
    if text is None or not text.strip():
        return ()
    found: dict[str, str] = {}
    for asked in text.split(","):
        asked = asked.strip()
        if asked == "usual":
            found |= {name: name for name in USUAL}
            continue
        named, dot, key = asked.partition(".")
        field = fields.field(named, key if dot else None)
        if field is None or field.kind != "text":
            raise Invalid(f"{asked[:80]!r} has no facets; take kind, stage, task, licence, risk, author, tags.<key>, …")
        found[asked] = field.name
    if len(found) > MOST:
        raise Invalid(f"{MOST} facets at once are the most")
    return tuple(found.items())


async def load(view: View, facets: tuple[tuple[str, str], ...]) -> dict[str, list[str]]:
    """The terms that are counted for each field; one more than are, where there are more."""
    terms = {field: await view.common_terms(field, MOST_VALUES + 1) for _, field in facets}
    await view.load_terms({term for found in terms.values() for term in found})
    return terms


def count(view: View, found: BitMap, facets: tuple[tuple[str, str], ...], terms: dict[str, list[str]]) -> list[Facet]:
    """The facets of the versions found."""
    counted = []
    for asked, field in facets:
        of = terms[field][:MOST_VALUES]
        values = [(value_of(term), found.intersection_cardinality(view.term(term))) for term in of]
        there = sorted(((value, n) for value, n in values if n), key=lambda one: (-one[1], one[0]))
        counted.append(Facet(asked, tuple(there), len(terms[field]) <= MOST_VALUES))
    return counted
