"""What a group answered: its rows, why each went where it went, and its versions compared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from services.router.domain import Version, bucket_of, choose
from services.router.errors import TooMuchToRead, UnknownGroup, UnknownRequest
from services.router.gateway.minimisation.keys import ENCRYPTED, HASHED
from services.router.handlers.explaining import Told, explain
from services.router.handlers.keys import GroupKeyring
from services.router.store import Entry, Row, Store
from services.router.tables.errors import UnitNotKept
from services.router.tables.store import Found, Place, TableStore, Wanted
from shared.db.database import Database, Transaction

READ_S = 15.0
"""Longer than this no reader holds a connection that traffic's own changes wait for."""
BUDGET_MS = 50.0
"""How long a search looks for rows before it says how far it came; what it asked last is then over within 100 ms."""
FIRST = datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 1, 1, tzinfo=UTC)
LAST_ID = UUID(int=2**128 - 1)
MOST_WORDS = 100


@dataclass(frozen=True, slots=True)
class PageOfRows:
    """`truths` are the labels known of the rows; `reached` is where a search that ran out of time goes on."""

    rows: list[Row]
    truths: dict[UUID, str]
    reached: Place | None


@dataclass(frozen=True, slots=True)
class Inference:
    """One request's whole row, with the latest words about it, latest first."""

    row: Row
    feedback: list[Row]


@dataclass(frozen=True, slots=True)
class Why:
    """Which bucket the unit fell into, whose it was at that revision, what was done, and the sentence that says so.

    `chosen` is whose bucket it was; a rule may have sent the request elsewhere, which `told` tells.

    `revision` is the one that the gateway had in memory when it answered, not the one that was newest.
    """

    row: Row
    revision: Entry
    bucket: int
    chosen: Version
    served: Version | None
    told: Told
    explanation: str


class Inferences:
    """Reads of one workspace's groups, bounded in time."""

    def __init__(self, database: Database, store: Store, tables: TableStore, keyring: GroupKeyring) -> None:
        self._database = database
        self._keyring = keyring
        self._store = store
        self._tables = tables

    async def page(self, workspace: str, group: str, wanted: Wanted, most: int, as_of: datetime = LAST) -> PageOfRows:
        """Newest first, with the labels that were known at `as_of`. Raises UnknownGroup, TooMuchToRead."""
        async with self._reading(workspace, group) as (tx, _):
            found = await self._tables.search(tx, group, wanted, most, BUDGET_MS)
            truths = await self._truths(tx, group, found, as_of)
            return PageOfRows(found.rows, truths, found.reached)

    async def _truths(self, tx: Transaction, group: str, found: Found, as_of: datetime) -> dict[UUID, str]:
        """By request; what is known of a request is known of its shadows' rows."""
        named = {row["shadow_of"] or row["request_id"] for row in found.rows}
        return await self._tables.labels(tx, group, named, as_of) if named else {}

    async def one(
        self, workspace: str, group: str, request_id: UUID, as_of: datetime = LAST, *, reveal: bool = False
    ) -> Inference:
        """With what had been said about it at `as_of`; `reveal` opens what field rules have encrypted.

        Raises UnknownGroup, UnknownRequest, SealBroken.
        """
        async with self._reading(workspace, group) as (tx, _):
            row = await self._row(tx, group, request_id)
            if row["received_at"] > as_of:
                raise UnknownRequest(f"The request {request_id} came after {as_of.isoformat()}.")
            words = await self._tables.words(tx, group, request_id, as_of, (LAST, LAST_ID), MOST_WORDS)
            if reveal:
                row = await self._keyring.revealed(tx, group, dict(row))
            return Inference(row, words)

    async def words(
        self, workspace: str, group: str, request_id: UUID, as_of: datetime, before: Place, most: int
    ) -> list[Row]:
        """All that was said about a request, whether or not its row is there; latest first. Raises UnknownGroup."""
        async with self._reading(workspace, group) as (tx, _):
            return await self._tables.words(tx, group, request_id, as_of, before, most)

    async def why(self, workspace: str, group: str, request_id: UUID) -> Why:
        """Raises UnknownGroup, UnknownRequest, UnitNotKept."""
        async with self._reading(workspace, group) as (tx, _):
            row = await self._row(tx, group, request_id)
            revision = await self._store.group_revision(tx, group, row["revision"])
        assert revision is not None, "a row's revision stays in the log"
        if is_minimised(row):
            raise UnitNotKept()
        chosen = choose(revision.group, row["unit"])
        served = None if row["asset"] is None else Version(row["asset"], row["version"], row["digest"])
        bucket = bucket_of(group, row["unit"])
        told = Told.of(row)
        return Why(row, revision, bucket, chosen, served, told, explain(revision.group, bucket, chosen, served, row))

    async def _row(self, tx: Transaction, group: str, request_id: UUID) -> Row:
        row = await self._tables.row(tx, group, request_id)
        if row is None:
            raise UnknownRequest(f"The group {group!r} has no request {request_id}.")
        return row

    @asynccontextmanager
    async def _reading(self, workspace: str, group: str) -> AsyncIterator[tuple[Transaction, Entry]]:
        """A transaction in which the group was found in the workspace, before its table is touched."""
        async with self._database.begin(workspace) as tx:
            entry = await self._store.group(tx, group)
            if entry is None:
                raise UnknownGroup(group)
            await self._tables.limit_time(tx, READ_S)
            try:
                yield tx, entry
            except asyncpg.QueryCanceledError:
                raise TooMuchToRead() from None


def is_minimised(row: Row) -> bool:
    """True when the row does not keep the unit that chose its version."""
    return str(row["unit"]).startswith((HASHED, ENCRYPTED)) or (row["tags"] or {}).get("consent") == "none"
