"""The ledger's rows as the documents that are hashed, exported and verified."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shared.clock import Clock
from shared.db.database import Transaction
from shared.events.envelope import Envelope, Origin

TRACE_ID = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")


class LedgerStore:
    """The ledger's rows. Entries leave here as the documents that are hashed, exported and verified."""

    def __init__(self, queries: Any, clock: Clock) -> None:
        self._sql = queries
        self._clock = clock

    async def arrive(self, tx: Transaction, envelope: Envelope, origin: Origin) -> None:
        """One insert: no lock and no hash, so that events are recorded side by side."""
        trace = TRACE_ID.match(str(envelope.traceparent or ""))
        await self._sql.add_arrival(
            tx.connection,
            workspace=tx.workspace,
            at=self._clock(),
            event_id=envelope.id,
            source=envelope.source,
            type=envelope.type,
            key=envelope.subject,
            event_time=_storable_time(envelope.time),
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
            trace_id=trace[1] if trace else None,
            correlation_id=_text(envelope.correlation_id),
            causation_id=_text(envelope.causation_id),
            proof=_text(envelope.proof),
            data=envelope.data,
        )

    async def waiting(self, tx: Transaction) -> list[str]:
        """Workspaces with events that are not in the chain yet."""
        return [row["workspace"] async for row in self._sql.waiting_workspaces(tx.connection)]

    async def seal(self, tx: Transaction, most: int) -> int:
        """Put up to `most` waiting events into the chain; how many it were."""
        return int(await self._sql.seal(tx.connection, workspace=tx.workspace, most=most))

    async def head(self, tx: Transaction) -> tuple[int, str]:
        """Index and hash of the newest entry; (0, zeros) of an empty ledger."""
        row = await self._sql.ledger_head(tx.connection, workspace=tx.workspace)
        return (0, "sha256:" + "0" * 64) if row is None else (row["index"], row["hash"])

    async def entry(self, tx: Transaction, index: int) -> dict[str, Any] | None:
        row = await self._sql.ledger_entry(tx.connection, workspace=tx.workspace, index=index)
        return None if row is None else _entry(row)

    async def entries(
        self,
        tx: Transaction,
        after: int,
        most: int,
        *,
        key: str | None = None,
        type: str | None = None,
        trace: str | None = None,
    ) -> list[dict[str, Any]]:
        rows = self._sql.ledger_entries(
            tx.connection, workspace=tx.workspace, after=after, most=most, key=key, type=type, trace=trace
        )
        return [_entry(row) async for row in rows]


def _entry(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": row["index"],
        "at": row["at_text"],
        "workspace": row["workspace"],
        "id": row["event_id"],
        "source": row["source"],
        "type": row["type"],
        "key": row["key"],
        "time": row["event_time_text"],
        "topic": row["topic"],
        "partition": row["partition"],
        "offset": row["offset"],
        "trace_id": row["trace_id"],
        "correlation_id": row["correlation_id"],
        "causation_id": row["causation_id"],
        "proof": row["proof"],
        "data_digest": row["data_digest"],
        "data": bytes(row["data"]),
        "previous": row["previous"],
        "hash": row["hash"],
    }


def _text(value: object) -> str | None:
    """A header as Postgres can hold it: an event is recorded even when an optional attribute of it is odd."""
    if value is None:
        return None
    return str(value).encode("utf-8", "replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _storable_time(moment: datetime | None) -> datetime | None:
    """The time in UTC. One without a zone, or at the very end of the calendar, says nothing certain and is left out."""
    if moment is None or moment.tzinfo is None:
        return None
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None
