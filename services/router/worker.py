"""Says in inference.logged what the gateways wrote: each row once, in the order of their transactions, in batches."""

from __future__ import annotations

import asyncio

from services.router.store import Row, Store
from shared import faults
from shared.db.database import EVERY_WORKSPACE, Database
from shared.events.base import AssetRef
from shared.events.router import InferenceLogged, InferenceRow

BATCH_ROWS = 300
"""At its longest a row is 2.2 kB as JSON (256 characters of unit, 100 of label), so that a batch stays under 900 kB."""
MAX_LABEL = 100


class RowPublisher:
    """Several may run: the lock on a group's cursor lets one at a time. Rows and cursor move in one transaction."""

    name = "row-publisher"

    def __init__(self, database: Database, store: Store, poll_s: float) -> None:
        self._database = database
        self._store = store
        self._poll_s = poll_s

    async def run(self) -> None:
        """Publish what is there, then look again after `poll_s` seconds."""
        while True:
            async with self._database.begin(EVERY_WORKSPACE) as tx:
                behind = await self._store.groups_with_unsaid_rows(tx)
            for workspace, group in behind:
                full = True
                while full:
                    full = await self.publish(workspace, group) == BATCH_ROWS
                    faults.point("worker.between")
            await asyncio.sleep(self._poll_s)

    async def publish(self, workspace: str, group: str) -> int:
        """Say the group's next rows; returns how many."""
        async with self._database.begin(workspace) as tx:
            rows = await self._store.take_unsaid_rows(tx, group, BATCH_ROWS)
            if rows:
                tx.emit(InferenceLogged(group=group, rows=tuple(_said(row) for row in rows)))
            return len(rows)


def _said(row: Row) -> InferenceRow:
    served = None
    if row["asset"] is not None:
        served = AssetRef(urn=row["asset"], version=row["version"], digest=row["digest"])
    return InferenceRow(
        request_id=row["request_id"],
        at=row["received_at"],
        asset=served,
        unit=row["unit"],
        status=row["status"],
        latency_ms=row["latency_ms"],
        score=row["score"],
        label=row["prediction"][:MAX_LABEL] if row["prediction"] is not None else None,
    )
