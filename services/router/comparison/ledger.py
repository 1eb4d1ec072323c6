"""Aggregates in Postgres: recorded with the rows, joined with words about them, folded, and read over any span.

`record` only inserts, in the transaction of the rows themselves: an aggregate is there exactly if its rows are. The
rest runs beside the traffic, each step one transaction, so that a crash between any two repeats nothing and loses
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from services.router.comparison.aggregates import BY_WEIGHT, Aggregate, Key, Outcome, Said, aggregate, judged
from services.router.comparison.spans import DAY, EPOCH, FOREVER, GRAINS, Span, ceiling, cover, floor, kept
from shared.db.database import Transaction
from shared.late import loaded

FOLD_MOST = 2_000
JOIN_MOST = 2_000
SHADOWED_MOST = 10  # batches, of up to some 5,000 requests each
MOST_WAITING = 10_000
LOOK_AGAIN_S = 3600.0
GIVE_UP_DAYS = 30

Row = Mapping[str, Any]
Subject = tuple[UUID, str]
"""A request and a metric; of the words on it one counts."""


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

    async def record(self, tx: Transaction, group: str, rows: Sequence[Outcome], shadowed: Sequence[UUID] = ()) -> None:
        """Add rows that `tx` inserts into the group's table to its aggregates; words that waited for them are woken.

        `shadowed` are the requests whose shadows are among the rows. Call it once a row, in the row's own transaction.
        Two statements however many rows there are, three where shadows are among them.
        """
        if not rows:
            return
        await loaded("numpy")
        await self._add(tx, group, aggregate(rows))
        await self._shadowed(tx, group, shadowed)
        waiting = {row["request_id"] async for row in self._waiting(tx, group)}
        here = [row.request_id for row in rows if row.request_id in waiting] if waiting else []
        if here:
            await self._sql.wake_words(tx.connection, group_name=group, request_ids=here)

    def _waiting(self, tx: Transaction, group: str) -> Any:
        return self._sql.waiting_requests(tx.connection, group_name=group, most=MOST_WAITING)

    async def _shadowed(self, tx: Transaction, group: str, request_ids: Sequence[UUID]) -> None:
        if request_ids:
            await self._sql.insert_shadowed(
                tx.connection, workspace=tx.workspace, group_name=group, request_ids=request_ids
            )

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
        """Count words whose requests' rows are there, put the others off; returns how many were looked at.

        The latest word on a request and metric counts. One that replaces another takes back what that one added.
        """
        if not await self._sql.lock_fold(tx.connection, group_name=group):
            return 0
        taken = self._sql.take_due_words(tx.connection, group_name=group, most=JOIN_MOST)
        words: list[Row] = [row async for row in taken]
        if not words:
            return 0
        found = await self._spoken_of(tx, group, {word["request_id"] for word in words})
        settled = _settle(words, found, await self._counted(tx, group, found))
        await self._write(tx, group, settled)
        if settled.waiting:
            await self._sql.postpone_words(
                tx.connection, ids=settled.waiting, most_s=LOOK_AGAIN_S, give_up_days=GIVE_UP_DAYS
            )
        return len(words)

    async def groups_with_shadowed(self, tx: Transaction) -> list[tuple[str, str]]:
        """(workspace, group); for a transaction that sees every workspace."""
        return [tuple(row.values()) async for row in self._sql.groups_with_shadowed(tx.connection)]

    async def join_shadowed(self, tx: Transaction, group: str) -> int:
        """Count words that counted before a shadow's row came for that row too; returns how many batches were taken.

        None is missed: batch and row are committed at once, and whoever counts words holds the lock until its commit.
        A word that was counted before this lock is seen here, one that is counted after it sees the row.
        """
        if not await self._sql.lock_fold(tx.connection, group_name=group):
            return 0
        taken = self._sql.take_shadowed(tx.connection, group_name=group, most=SHADOWED_MOST)
        batches: list[list[UUID]] = [row["request_ids"] async for row in taken]
        before = await self._counted(tx, group, {one for batch in batches for one in batch})
        found = await self._spoken_of(tx, group, {request_id for request_id, _ in before})
        await self._write(tx, group, _settle((), found, before))
        await self._shadowed(tx, group, list({word["request_id"] for word in before.values() if not word["held"]}))
        return len(batches)

    async def _spoken_of(self, tx: Transaction, group: str, ids: Collection[UUID]) -> dict[UUID, list[Row]]:
        """The rows that words on these requests judge, by request."""
        found: dict[UUID, list[Row]] = {}
        if ids:
            async for row in self._sql.rows_spoken_of(tx.connection, group_name=group, request_ids=list(ids)):
                found.setdefault(row["spoken_of"], []).append(row)
        return found

    async def _counted(self, tx: Transaction, group: str, ids: Collection[UUID]) -> dict[Subject, Row]:
        if not ids:
            return {}
        found = self._sql.counted_words(tx.connection, group_name=group, request_ids=list(ids))
        return {(row["request_id"], row["metric"]): row async for row in found}

    async def _write(self, tx: Transaction, group: str, settled: _Settled) -> None:
        if not (settled.counted or settled.past):
            return
        await loaded("numpy")
        for sign, said in ((1, settled.added), (-1, settled.taken_back)):
            await self._add(tx, group, judged(said, sign))
        pairs = [(word, row) for word, rows in settled.counted.items() for row in rows]
        await self._sql.settle_words(
            tx.connection, counted=[word for word, _ in pairs], row_ids=[row for _, row in pairs], past=settled.past
        )

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
    """The rows of each word that counts now, words that are history now or have to wait; and what sums change by."""

    counted: dict[UUID, list[UUID]]
    past: list[UUID]
    waiting: list[UUID]
    added: list[Said]
    taken_back: list[Said]


def _settle(words: Iterable[Row], rows: Mapping[UUID, list[Row]], counted: Mapping[Subject, Row]) -> _Settled:
    """Of the words on each subject the latest counts, be it new or counted already: for all rows that are there."""
    by_subject: dict[Subject, list[Row]] = {subject: [] for subject in counted}
    for word in words:
        by_subject.setdefault((word["request_id"], word["metric"]), []).append(word)
    settled = _Settled({}, [], [], [], [])
    for subject, new in by_subject.items():
        current = counted.get(subject)
        judged_rows = rows.get(subject[0], [])  # the request's own, and those of its shadows
        if not _may_settle(subject, judged_rows, current):
            settled.waiting.extend(word["id"] for word in new)
            continue
        latest = max([*new, *([current] if current else [])], key=lambda word: (word["received_at"], word["id"]))
        settled.past.extend(word["id"] for word in new if word is not latest)
        if latest is current:
            late = [row for row in judged_rows if not _counts_for(current, row)]
            if late:
                settled.counted[current["id"]] = [*current["counted_rows"], *(row["request_id"] for row in late)]
                settled.added.extend(_said(row, current) for row in late)
            continue
        settled.counted[latest["id"]] = [row["request_id"] for row in judged_rows]
        settled.added.extend(_said(row, latest) for row in judged_rows)
        if current is not None:
            settled.past.append(current["id"])
            known = [row for row in judged_rows if _counts_for(current, row)]
            settled.taken_back.extend(_said(_as_counted(row, current), current) for row in known)
    return settled


def _may_settle(subject: Subject, rows: list[Row], current: Row | None) -> bool:
    """The first word waits for the request's own row: that one tells nobody when it comes after a shadow's."""
    if current is None:
        return any(row["request_id"] == subject[0] for row in rows)
    return bool(rows) and bool(current["held"])


def _counts_for(word: Row, row: Row) -> bool:
    return word["counted_rows"] is None or row["request_id"] in word["counted_rows"]


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
