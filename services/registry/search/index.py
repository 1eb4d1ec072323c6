"""Writing the index: in the transaction that registers or changes a version, so that search never differs from it.

One row of a log is inserted, whatever finds the version; `folding` takes it from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from services.registry.search.facts import ALL, Found, milliseconds, presences
from shared.db.database import Transaction

Numbers = Mapping[str, float | None]


class Index:
    """`queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def add(self, tx: Transaction, number: int, found: Found, version: int | None = None) -> None:
        """A new version, by its order of registration, is found from now on; `version` is its number in its asset."""
        numbers = {**numbers_of(found), "version": version}
        await self._insert(tx, number, [], come_of(found), ("", found.text), numbers, found.gist, found.urn)

    async def change(
        self,
        tx: Transaction,
        number: int,
        *,
        gone: Iterable[str] = (),
        come: Iterable[str] = (),
        text: tuple[str, str] | None = None,
        numbers: Numbers | None = None,
        gist: str | None = None,
        at: datetime | None = None,
    ) -> None:
        """What finds a version changed: terms that find it no longer and ones that do, its text before and after,
        numbers (None where there is none any more), its gist, and when.

        Whoever changes a version holds its asset (or hears of it in order), so that the last change counts.
        """
        given: dict[str, float | None] = dict(numbers or {})
        if at is not None:
            given["updated"] = milliseconds(at)
        left, found = _moved(gone, come)
        await self._insert(tx, number, left, found, text or ("", ""), given, gist, None)

    async def change_asset(
        self, tx: Transaction, urn: str, *, gone: Iterable[str] = (), come: Iterable[str] = ()
    ) -> None:
        """The same terms go and come for every version of an asset; none is registered until commit."""
        await self._queries.hold_asset(tx.connection, workspace=tx.workspace, urn=urn)
        left, found = _moved(gone, come)
        await self._queries.insert_change_of_asset(
            tx.connection, workspace=tx.workspace, urn=urn, gone=left, come=found
        )

    async def change_version(
        self,
        tx: Transaction,
        urn: str,
        version: int,
        *,
        gone: Iterable[str] = (),
        come: Iterable[str] = (),
        numbers: Numbers | None = None,
    ) -> None:
        """As `change`, of a version by its asset; nothing where it is not known here."""
        left, found = _moved(gone, come)
        fields, values = _columns(numbers or {})
        await self._queries.insert_change_of_version(
            tx.connection, workspace=tx.workspace, urn=urn, version=version, gone=left, come=found, fields=fields,
            numbers=values,
        )  # fmt: skip

    async def _insert(
        self,
        tx: Transaction,
        number: int,
        gone: list[str],
        come: list[str],
        text: tuple[str, str],
        numbers: Numbers,
        gist: str | None,
        urn: str | None,
    ) -> None:
        fields, values = _columns(numbers)
        await self._queries.insert_change(
            tx.connection, workspace=tx.workspace, number=number, gone=gone, come=come, before=text[0], after=text[1],
            fields=fields, numbers=values, gist=gist, urn=urn,
        )  # fmt: skip


def come_of(found: Found) -> list[str]:
    """The terms by which a new version is found, and what says which fields it has."""
    return [ALL, *found.terms, *presences(found.terms)]


def numbers_of(found: Found) -> dict[str, float | None]:
    """The numbers of a new version but its own."""
    at = milliseconds(found.at)
    return {**found.numbers, "created": at, "updated": at}


def _moved(gone: Iterable[str], come: Iterable[str]) -> tuple[list[str], list[str]]:
    """With the presence of fields: one that loses its value without another is no longer there."""
    left, found = list(gone), list(come)
    return [*left, *presences(left)], [*found, *presences(found)]


def _columns(numbers: Numbers) -> tuple[list[str], list[float | None]]:
    """Without values that have no place in an order."""
    kept = {of: value for of, value in numbers.items() if value is None or math.isfinite(value)}
    return list(kept), list(kept.values())
