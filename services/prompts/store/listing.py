"""Prompts with what a list shows of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.db.database import Transaction


@dataclass(frozen=True, slots=True)
class Filter:
    """What a list is narrowed to; None narrows nothing."""

    title: str | None = None
    label: str | None = None
    tag: str | None = None
    updated_from: datetime | None = None
    updated_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One prompt of a list; `updated_at` is when it was last published or labelled."""

    name: str
    title: str
    is_text: bool
    versions: list[int]
    labels: list[str]
    tags: list[str]
    updated_at: datetime
    config: Any


class Listing:
    """A page at a time, by title."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def page(self, tx: Transaction, wanted: Filter, skip: int, most: int) -> tuple[int, list[Listed]]:
        """How many there are, and one page of them."""
        fields = {name: getattr(wanted, name) for name in Filter.__slots__}
        rows = self._queries.listed_prompts(tx.connection, workspace=tx.workspace, skip=skip, most=most, **fields)
        found = [row async for row in rows]
        listed = [Listed(**{name: row[name] for name in Listed.__slots__}) for row in found if row["name"] is not None]
        return (found[0]["total"] if found else 0), listed
