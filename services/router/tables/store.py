"""Rows of the inference tables as people read them. The group must have been found in the transaction's workspace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
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


@dataclass(frozen=True, slots=True)
class Archive:
    """Rows of one day that stand in the artefact store under `digest`."""

    id: UUID
    group: str
    day: date
    digest: str
    bytes: int
    row_count: int
    cause: str
    made_at: datetime


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

    # -- archived

    async def log_days(self, tx: Transaction, group: str) -> list[tuple[str, date]]:
        """(partition, day), oldest first."""
        return [(row["partition"], row["day"]) async for row in self._sql.log_days(tx.connection, name=group)]

    async def export_statement(
        self, tx: Transaction, group: str, since: datetime, until: datetime, filters: Sequence[Filter]
    ) -> str:
        """What COPY takes rows by."""
        return str(
            await self._sql.export_statement(
                tx.connection, name=group, since=since, until=until, filters=as_json(filters)
            )
        )

    async def lock_archive(self, tx: Transaction, group: str) -> None:
        """Until the transaction ends nobody else archives or erases rows of the group."""
        await self._sql.lock_archive(tx.connection, name=group)

    async def drop_archived_day(self, tx: Transaction, group: str, partition: str, rows: int) -> bool:
        """False when the day has other rows than so many; the transaction must then be undone."""
        return bool(await self._sql.drop_archived_day(tx.connection, name=group, partition=partition, row_count=rows))

    async def add_archive(self, tx: Transaction, archive: Archive) -> None:
        await self._sql.add_archive(
            tx.connection, id=archive.id, workspace=tx.workspace, group_name=archive.group, day=archive.day,
            digest=archive.digest, bytes=archive.bytes, row_count=archive.row_count, cause=archive.cause,
            made_at=archive.made_at,
        )  # fmt: skip

    async def replace_archive(self, tx: Transaction, archive_id: UUID, by: UUID) -> None:
        await self._sql.replace_archive(tx.connection, id=archive_id, by=by)

    async def archives(self, tx: Transaction, group: str, after_day: date, after_id: UUID, most: int) -> list[Row]:
        rows = self._sql.archives(tx.connection, group_name=group, after_day=after_day, after_id=after_id, most=most)
        return [row async for row in rows]

    async def all_archives(self, tx: Transaction, group: str) -> list[Row]:
        return [row async for row in self._sql.all_archives(tx.connection, group_name=group)]

    async def archive(self, tx: Transaction, archive_id: UUID) -> Row | None:
        row: Row | None = await self._sql.archive(tx.connection, id=archive_id)
        return row

    async def archived_rows(self, tx: Transaction, group: str) -> int:
        return int(await self._sql.archived_rows(tx.connection, name=group))

    async def bytes_to_remove(self, tx: Transaction) -> list[tuple[UUID, str]]:
        """(archive, digest); for a transaction that sees every workspace."""
        return [(row["id"], row["digest"]) async for row in self._sql.bytes_to_remove(tx.connection)]

    async def bytes_removed(self, tx: Transaction, archive_id: UUID, at: datetime) -> None:
        await self._sql.bytes_removed(tx.connection, id=archive_id, at=at)

    # -- erased

    async def groups_with_rows(self, tx: Transaction) -> list[str]:
        return [row["name"] async for row in self._sql.groups_with_rows(tx.connection)]

    async def erase(self, tx: Transaction, group: str, units: list[str] | None, filters: Sequence[Filter]) -> Row:
        """`{row_count, word_count, digest}` of what was removed."""
        row: Row = await self._sql.erase_rows(tx.connection, name=group, units=units, filters=as_json(filters))
        return row

    async def unplaced(self, tx: Transaction, group: str) -> list[tuple[int, bytes]]:
        """(id, tuple) of the group's rows that no table took."""
        return [(row["id"], row["record"]) async for row in self._sql.unplaced_rows(tx.connection, name=group)]

    async def erase_unplaced(self, tx: Transaction, ids: list[int]) -> None:
        await self._sql.erase_unplaced(tx.connection, ids=ids)

    async def add_erasure(
        self,
        tx: Transaction,
        erasure_id: UUID,
        groups: Sequence[str] | None,
        salt: bytes,
        subjects: Sequence[bytes],
        filters: Sequence[Filter],
        reason: str,
        who: str,
        at: datetime,
        receipt: dict[str, Any],
    ) -> None:
        await self._sql.add_erasure(
            tx.connection, id=erasure_id, workspace=tx.workspace, groups=None if groups is None else list(groups),
            salt=salt, subjects=list(subjects), filters=as_json(filters) or None, reason=reason, who=who, at=at,
            receipt=receipt,
        )  # fmt: skip

    async def erasure(self, tx: Transaction, erasure_id: UUID) -> Row | None:
        row: Row | None = await self._sql.erasure(tx.connection, id=erasure_id)
        return row

    async def forget_filters(self, tx: Transaction, before: datetime) -> None:
        """For a transaction that sees every workspace."""
        await self._sql.forget_filters(tx.connection, before=before)

    # -- deleted with their group

    async def ramp_is_running(self, tx: Transaction, group: str) -> bool:
        return bool(await self._sql.ramp_is_running(tx.connection, name=group))

    async def lock_group(self, tx: Transaction, group: str) -> Row | None:
        row: Row | None = await self._sql.group_for_deletion(tx.connection, name=group)
        return row

    async def ask_deletion(
        self, tx: Transaction, deletion_id: UUID, group: str, policy: str, reason: str, who: str, at: datetime
    ) -> None:
        await self._sql.ask_deletion(
            tx.connection, id=deletion_id, workspace=tx.workspace, group_name=group, policy=policy, reason=reason,
            asked_by=who, asked_at=at,
        )  # fmt: skip

    async def retire(self, tx: Transaction, group: str, at: datetime | None) -> None:
        """No traffic and no change from here on; None brings the group back."""
        await self._sql.retire(tx.connection, name=group, at=at)

    async def deletion_of(self, tx: Transaction, group: str) -> Row | None:
        row: Row | None = await self._sql.deletion_of(tx.connection, name=group)
        return row

    async def agree_deletion(self, tx: Transaction, deletion_id: UUID, who: str, at: datetime) -> None:
        await self._sql.agree_deletion(tx.connection, id=deletion_id, who=who, at=at)

    async def keep_group(self, tx: Transaction, deletion_id: UUID, who: str, at: datetime) -> None:
        await self._sql.keep_group(tx.connection, id=deletion_id, who=who, at=at)

    async def deletions_due(self, tx: Transaction, asked_before: datetime) -> list[Row]:
        """For a transaction that sees every workspace."""
        return [row async for row in self._sql.deletions_due(tx.connection, asked_before=asked_before)]

    async def is_open(self, tx: Transaction, deletion_id: UUID) -> bool:
        """Locks it; False when it is done, taken back, or being done elsewhere."""
        return await self._sql.open_deletion(tx.connection, id=deletion_id) is not None

    async def drop_log(self, tx: Transaction, group: str) -> int:
        """Table, view, words and keys; returns how many rows there were."""
        return int(await self._sql.drop_log(tx.connection, name=group))

    async def end_group(self, tx: Transaction, group: str, at: datetime) -> None:
        await self._sql.end_group(tx.connection, name=group, at=at)

    async def end_deletion(self, tx: Transaction, deletion_id: UUID, at: datetime, rows: int) -> None:
        await self._sql.end_deletion(tx.connection, id=deletion_id, at=at, row_count=rows)

    # -- minimised

    async def group_keys(self, tx: Transaction, group: str) -> dict[str, dict[str, Any]]:
        """`{kind: {"value": …, "sealed": …}}`."""
        rows = self._sql.group_keys(tx.connection, name=group)
        return {row["kind"]: {"value": row["value"], "sealed": row["sealed"]} async for row in rows}

    async def add_group_key(self, tx: Transaction, group: str, kind: str, value: str, *, sealed: bool) -> None:
        await self._sql.add_group_key(
            tx.connection, workspace=tx.workspace, group_name=group, kind=kind, value=value, sealed=sealed
        )


def as_json(filters: Sequence[Filter]) -> list[dict[str, Any]]:
    """As `inference_condition` reads them."""
    return [one.to_json() for one in filters]
