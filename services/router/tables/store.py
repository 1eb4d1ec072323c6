"""Rows of the inference tables as people read them. The group must have been found in the transaction's workspace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.router.tables.filters import Filter
from shared.db.database import Transaction

Row = Mapping[str, Any]
Place = tuple[datetime, UUID]
"""Where a page ended: a row's time and id."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows of an inference table: since inclusive, until exclusive, before where a page ended."""

    since: datetime
    until: datetime
    before: Place
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Rows, newest first; `reached` is where a search went on from if it ran out of time, None if it did not."""

    rows: list[Row]
    reached: Place | None = None


class TableStore:
    """`queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    # -- read

    async def limit_time(self, tx: Transaction, seconds: float) -> None:
        """A statement that runs longer is a QueryCanceledError."""
        await self._sql.limit_time(tx.connection, milliseconds=str(int(seconds * 1000)))

    async def search(self, tx: Transaction, group: str, wanted: Wanted, most: int, budget_ms: float) -> Found:
        """Newest first, at most `most`; it stops soon after `budget_ms` with what it has found by then."""
        found = self._sql.inference_search(
            tx.connection, name=group, since=wanted.since, until=wanted.until, before=wanted.before[0],
            before_id=wanted.before[1], filters=as_json(wanted.filters), most=most, budget_ms=budget_ms,
        )  # fmt: skip
        rows: list[Row] = [row async for row in found]
        if rows and rows[-1]["request_id"] is None:
            return Found(rows[:-1], (rows[-1]["reached_at"], rows[-1]["reached_id"]))
        return Found(rows)

    async def labels(
        self, tx: Transaction, group: str, request_ids: Iterable[UUID], as_of: datetime
    ) -> dict[UUID, str]:
        """The true labels that were known of these requests at a moment."""
        rows = self._sql.labels_known(tx.connection, name=group, request_ids=list(request_ids), as_of=as_of)
        return {row["request_id"]: row["label"] async for row in rows}

    async def row(self, tx: Transaction, group: str, request_id: UUID) -> Row | None:
        row: Row | None = await self._sql.inference_row(tx.connection, name=group, request_id=request_id)
        return row

    async def words(
        self, tx: Transaction, group: str, request_id: UUID, as_of: datetime, before: Place, most: int
    ) -> list[Row]:
        """Latest first; `counts` tells the latest of its metric."""
        rows = self._sql.feedback_of(
            tx.connection, name=group, request_id=request_id, as_of=as_of, before=before[0], before_id=before[1],
            most=most,
        )  # fmt: skip
        return [row async for row in rows]

    # -- kept, for a transaction that sees every workspace

    async def make_days_ahead(self, tx: Transaction) -> None:
        """Today's and tomorrow's partition of every group."""
        await self._sql.log_days_ahead(tx.connection)

    async def days_due(self, tx: Transaction) -> list[Row]:
        """`{workspace, group_name, partition, day}` of days that are older than their group keeps its rows."""
        return [row async for row in self._sql.log_days_due(tx.connection)]

    async def drop_day(self, tx: Transaction, partition: str) -> None:
        await self._sql.drop_log_day(tx.connection, partition=partition)

    async def views_due(self, tx: Transaction) -> list[tuple[str, str]]:
        """(workspace, group) of views that are not of their group's champion."""
        return [(row["workspace"], row["group_name"]) async for row in self._sql.views_due(tx.connection)]

    async def renew_view(self, tx: Transaction, group: str) -> None:
        await self._sql.renew_view(tx.connection, name=group)


def as_json(filters: Sequence[Filter]) -> list[dict[str, Any]]:
    """As `inference_condition` reads them."""
    return [one.to_json() for one in filters]
