"""What a group answered: its rows, why each went where it went, and its versions compared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from services.router.domain import Version, bucket_of, choose
from services.router.errors import TooMuchToRead, UnknownGroup, UnknownRequest
from services.router.handlers.explaining import Told, explain
from services.router.store import Entry, Row, Store, Wanted
from shared.db.database import Database, Transaction

READ_S = 15.0
"""Longer than this no reader holds a connection that traffic's own changes wait for."""


@dataclass(frozen=True, slots=True)
class Inference:
    """One request's whole row, with everything that was said about it, latest first."""

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

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store

    async def page(self, workspace: str, group: str, wanted: Wanted, most: int) -> list[Row]:
        """Newest first. Raises UnknownGroup, TooMuchToRead."""
        async with self._reading(workspace, group) as (tx, _):
            return await self._store.inferences(tx, group, wanted, most)

    async def one(self, workspace: str, group: str, request_id: UUID) -> Inference:
        """Raises UnknownGroup, UnknownRequest."""
        async with self._reading(workspace, group) as (tx, _):
            row = await self._row(tx, group, request_id)
            return Inference(row, await self._store.feedback(tx, group, request_id))

    async def why(self, workspace: str, group: str, request_id: UUID) -> Why:
        """Raises UnknownGroup, UnknownRequest."""
        async with self._reading(workspace, group) as (tx, _):
            row = await self._row(tx, group, request_id)
            revision = await self._store.group_revision(tx, group, row["revision"])
        assert revision is not None, "a row's revision stays in the log"
        chosen = choose(revision.group, row["unit"])
        served = None if row["asset"] is None else Version(row["asset"], row["version"], row["digest"])
        bucket = bucket_of(group, row["unit"])
        told = Told.of(row)
        return Why(row, revision, bucket, chosen, served, told, explain(revision.group, bucket, chosen, served, row))

    async def _row(self, tx: Transaction, group: str, request_id: UUID) -> Row:
        row = await self._store.inference(tx, group, request_id)
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
            await self._store.limit_time(tx, READ_S)
            try:
                yield tx, entry
            except asyncpg.QueryCanceledError:
                raise TooMuchToRead() from None
