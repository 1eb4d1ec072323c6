"""Aggregates in Postgres: recorded with the rows, joined with words about them, folded, and read over any span.

`record` only inserts, in the transaction of the rows themselves: an aggregate is there exactly if its rows are. The
rest runs beside the traffic, each step one transaction, so that a crash between any two repeats nothing and loses
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from services.router.comparison.aggregates import BY_WEIGHT, Aggregate, Key, Outcome, Said, aggregate, judged
from services.router.comparison.spans import DAY, EPOCH, FOREVER, GRAINS, Span, ceiling, cover, floor, kept
from shared.db.database import Transaction
from shared.late import loaded

FOLD_MOST = 2_000
JOIN_MOST = 2_000
MOST_WAITING = 10_000
LOOK_AGAIN_S = 3600.0
GIVE_UP_DAYS = 30

Row = Mapping[str, Any]


class Source(NamedTuple):
    """Whose rows they are: the revision that routed them, the version ('' and 0 for none) and how it was chosen."""

    revision: int
    asset: str
    version: int
    digest: str
    route: str


class Ledger:
    """`queries` are those of this package. Works on any connection: JSON goes in and out as text."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    # -- with the rows

    async def record(self, tx: Transaction, group: str, rows: Sequence[Outcome]) -> None:
        """Add rows that `tx` inserts into the group's table to its aggregates; words that waited for them are woken.

        Call it once a row, in the row's own transaction. Two statements however many rows there are.
        """
        if not rows:
            return
        await loaded("numpy")
        await self._add(tx, group, aggregate(rows))
        waiting = {row["request_id"] async for row in self._waiting(tx, group)}
        here = [row.request_id for row in rows if row.request_id in waiting] if waiting else []
        if here:
            await self._sql.wake_words(tx.connection, group_name=group, request_ids=here)

    def _waiting(self, tx: Transaction, group: str) -> Any:
        return self._sql.waiting_requests(tx.connection, group_name=group, most=MOST_WAITING)

    async def _add(self, tx: Transaction, group: str, found: Mapping[Key, Aggregate]) -> None:
        await self.add_dumped(tx, group, [(key, part.dumped()) for key, part in found.items()])

    async def add_dumped(self, tx: Transaction, group: str, found: Sequence[tuple[Key, str]]) -> None:
        """Add aggregates that were made and dumped elsewhere: in another process."""
        if found:
            await self._sql.insert_deltas(
                tx.connection, workspace=tx.workspace, group_name=group, **_columns(key for key, _ in found),
                bodies=[body for _, body in found],
            )  # fmt: skip

    # -- words about rows

    async def groups_with_due_words(self, tx: Transaction) -> list[tuple[str, str]]:
        """(workspace, group); for a transaction that sees every workspace."""
        return [tuple(row.values()) async for row in self._sql.groups_with_due_words(tx.connection)]

    async def join(self, tx: Transaction, group: str) -> int:
        """Count words whose rows are there, put the others off; returns how many were looked at.

        The latest word on a request and metric counts. One that replaces another takes back what that one added.
        """
        if not await self._sql.lock_fold(tx.connection, group_name=group):
            return 0
        taken = self._sql.take_due_words(tx.connection, group_name=group, most=JOIN_MOST)
        words: list[Row] = [row async for row in taken]
        if not words:
            return 0
        ids = list({word["request_id"] for word in words})
        found: dict[UUID, list[Row]] = {}
        async for row in self._spoken_of(tx, group, ids):
            found.setdefault(row["spoken_of"], []).append(row)
        before = {(row["request_id"], row["metric"]): row async for row in self._counted(tx, group, list(found))}
        settled = _settle(words, found, before)
        await loaded("numpy")
        for sign, said in ((1, settled.added), (-1, settled.taken_back)):
            await self._add(tx, group, judged(said, sign))
        await self._sql.settle_words(
            tx.connection, counted=settled.counted, history=settled.history, superseded=settled.superseded
        )
        missing = [word["id"] for word in words if word["request_id"] not in found]
        if missing:
            await self._sql.postpone_words(tx.connection, ids=missing, most_s=LOOK_AGAIN_S, give_up_days=GIVE_UP_DAYS)
        return len(words)

    def _spoken_of(self, tx: Transaction, group: str, ids: list[UUID]) -> Any:
        return self._sql.rows_spoken_of(tx.connection, group_name=group, request_ids=ids)

    def _counted(self, tx: Transaction, group: str, ids: list[UUID]) -> Any:
        return self._sql.counted_words(tx.connection, group_name=group, request_ids=ids)

    # -- beside the traffic

    async def groups_with_deltas(self, tx: Transaction) -> list[tuple[str, str]]:
        """(workspace, group); for a transaction that sees every workspace."""
        return [tuple(row.values()) async for row in self._sql.groups_with_deltas(tx.connection)]

    async def fold(self, tx: Transaction, group: str) -> int:
        """Fold additions into the sums of every grain; returns how many, 0 when another folder is at it."""
        if not await self._sql.lock_fold(tx.connection, group_name=group):
            return 0
        taken = [row async for row in self._sql.take_deltas(tx.connection, group_name=group, most=FOLD_MOST)]
        if not taken:
            return 0
        sums: dict[tuple[int, Key], Aggregate] = {}
        for row in taken:
            addition = Aggregate.loaded(row["body"])
            for grain in GRAINS:
                key = _key(row)._replace(start=floor(row["start"], grain))
                sums.setdefault((grain, key), Aggregate()).add(addition)
        where = {"grains": [grain for grain, _ in sums], **_columns(key for _, key in sums)}
        async for row in self._sql.sums_at(tx.connection, group_name=group, **where):
            sums[row["grain"], _key(row)].add(Aggregate.loaded(row["body"]))
        await self._sql.put_sums(
            tx.connection, workspace=tx.workspace, group_name=group, **where,
            bodies=[one.bounded().dumped() for one in sums.values()], last_delta=max(row["id"] for row in taken),
        )  # fmt: skip
        # Last, so that a fold waits for nobody who tells of the group but for this one row.
        await self._sql.mark_moved(tx.connection, workspace=tx.workspace, group_name=group)
        return len(taken)

    async def prune(self, tx: Transaction, minutes_before: datetime, hours_before: datetime) -> None:
        """Forget fine grains of long ago, in every workspace that `tx` sees; days are kept."""
        await self._sql.prune_sums(tx.connection, minutes_before=minutes_before, hours_before=hours_before)

    # -- telling others

    async def groups_to_tell(self, tx: Transaction, before: datetime) -> list[tuple[str, str]]:
        """(workspace, group) of those that moved and were last told of before; for a view of every workspace."""
        return [tuple(row.values()) async for row in self._sql.groups_to_tell(tx.connection, before=before)]

    async def claim_telling(self, tx: Transaction, group: str, before: datetime, now: datetime) -> datetime | None:
        """Until when a group's figures are now to be told; None when that is not due, or another one is at it."""
        until: datetime | None = await self._sql.claim_telling(tx.connection, group_name=group, before=before, now=now)
        return until

    # -- views

    async def read(
        self, tx: Transaction, group: str, since: datetime | None, until: datetime | None, now: datetime
    ) -> dict[Source, Aggregate]:
        """Everything recorded in [since, until), by source. Ends fall back to the finest grain that is still kept."""
        rows = await self.stored(tx, group, since, until, now)
        return summed(rows)

    async def stored(
        self, tx: Transaction, group: str, since: datetime | None, until: datetime | None, now: datetime
    ) -> list[Row]:
        """The same as rows that were not added up yet, for `summed` in a thread."""
        first = EPOCH if since is None else max(EPOCH, kept(since, now))
        # Without an end: to the end of tomorrow, so that a clock that is ahead loses nothing.
        last = ceiling(now + timedelta(days=1), DAY) if until is None or until > now else max(first, kept(until, now))
        spans = [Span(FOREVER, EPOCH, last)] if since is None and until is None else cover(first, last)
        found = self._sql.sums_between(
            tx.connection, group_name=group, grains=[span.grain for span in spans],
            since=[span.since for span in spans], until=[span.until for span in spans], first=first, last=last,
        )  # fmt: skip
        return [row async for row in found]

    async def stamp(self, tx: Transaction, group: str) -> int:
        """Grows with every addition."""
        return int(await self._sql.stamp(tx.connection, group_name=group))


def summed(rows: Iterable[Row]) -> dict[Source, Aggregate]:
    """Stored rows added up by source; about 0.2 ms a row."""
    found: dict[Source, Aggregate] = {}
    for row in rows:
        source = Source(row["revision"], row["asset"], row["version"], row["digest"], row["route"])
        found.setdefault(source, Aggregate()).add(Aggregate.loaded(row["body"]))
    return found


class _Settled(NamedTuple):
    """Ids of words that count now, that are history at once, that counted until now; and what sums change by."""

    counted: list[UUID]
    history: list[UUID]
    superseded: list[UUID]
    added: list[Said]
    taken_back: list[Said]


def _settle(words: Iterable[Row], rows: Mapping[UUID, list[Row]], counted: Mapping[tuple[UUID, str], Row]) -> _Settled:
    """Of the words on each request and metric the latest counts, be it new or counted already."""
    by_subject: dict[tuple[UUID, str], list[Row]] = {}
    for word in words:
        if word["request_id"] in rows:
            by_subject.setdefault((word["request_id"], word["metric"]), []).append(word)
    settled = _Settled([], [], [], [], [])
    for subject, new in by_subject.items():
        current = counted.get(subject)
        latest = max([*new, *([current] if current else [])], key=lambda word: (word["received_at"], word["id"]))
        settled.history.extend(word["id"] for word in new if word is not latest)
        if latest is current:
            continue
        judged_rows = rows[subject[0]]  # the request's own, and those of its shadows
        settled.counted.append(latest["id"])
        settled.added.extend(_said(row, latest) for row in judged_rows)
        if current is not None:
            settled.superseded.append(current["id"])
            settled.taken_back.extend(_said(_as_counted(row, current), current) for row in judged_rows)
    return settled


def _as_counted(row: Row, word: Row) -> Row:
    """The row as when the word was counted: words of long ago all count by weight, whatever chose the version."""
    return {**row, "route": BY_WEIGHT} if word["counted_by_weight"] and row["route"] != "shadow" else row


def _said(row: Row, word: Row) -> Said:
    return Said(_outcome(row), row["prediction"], word["metric"], word["value"], word["label"])


def _outcome(row: Row) -> Outcome:
    return Outcome(
        request_id=row["request_id"], at=row["received_at"], revision=row["revision"], asset=row["asset"],
        version=row["version"], digest=row["digest"], unit=row["unit"], status=row["status"],
        error_code=row["error_code"], latency_ms=row["latency_ms"], score=row["score"],
        route=row["route"],
    )  # fmt: skip


def _columns(keys: Iterable[Key]) -> dict[str, list[Any]]:
    """Keys as one array a column; no version is '' and 0."""
    found = list(keys)
    return {
        "starts": [key.start for key in found],
        "revisions": [key.revision for key in found],
        "assets": [key.asset or "" for key in found],
        "versions": [key.version or 0 for key in found],
        "digests": [key.digest or "" for key in found],
        "routes": [key.route for key in found],
    }


def _key(row: Row) -> Key:
    return Key(row["start"], row["revision"], row["asset"], row["version"], row["digest"], row["route"])
