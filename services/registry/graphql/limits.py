"""How much a query may ask for; `costs` tells how much one does."""

from __future__ import annotations

from shared.errors import Refused

MOST_CHARACTERS = 20_000
MOST_TOKENS = 3_000
MOST_DEPTH = 10
MOST_INTROSPECTION_DEPTH = 16
MOST_COST = 20_000
USUAL_FIRST = 20
MOST_FIRST = 100
LISTS = {"assets", "versions", "search", "upstream", "downstream", "lineage"}
"""Fields whose `first` (or usual number) multiplies what is below them; others' lists hold a few."""
MOST_STEPS = 50_000


class QueryTooDeep(Refused):
    """The query is nested deeper than is answered here."""

    code = "too-deep"


class QueryTooDear(Refused):
    """The query may ask for more than is answered at once."""

    code = "too-dear"
