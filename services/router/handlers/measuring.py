"""Tells other services what a group's versions did in traffic: one event when its figures moved, and not too often."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from services.router.comparison.figures import figures
from services.router.comparison.ledger import Ledger, Row, summed
from services.router.comparison.live import latencies, measures
from services.router.domain import Group
from services.router.handlers.comparisons import by_side
from services.router.handlers.groups import ref
from services.router.store import Store
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database
from shared.events.router import GroupMeasured, LiveFigures

MOST_VERSIONS = 50
"""Of one event: who serves, then those with most requests. With all their measures about 0.4 MB; Kafka takes 1 MB."""


class Measuring:
    """The window is the comparative view's own: from the group's beginning until now, so that both say the same."""

    def __init__(self, database: Database, store: Store, ledger: Ledger, clock: Clock, every_s: float) -> None:
        self._database = database
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._every = timedelta(seconds=every_s)

    async def due(self) -> list[tuple[str, str]]:
        """(workspace, group) of those whose figures moved and were not told of for `every_s`."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            return await self._ledger.groups_to_tell(tx, self._clock() - self._every)

    async def tell(self, workspace: str, group: str) -> bool:
        """Say the group's figures, and remember in the same transaction that they were said.

        False where there was nothing to say: another process was first, the group is gone, no version was asked.
        """
        now = self._clock()
        async with self._database.begin(workspace) as tx:
            until = await self._ledger.claim_telling(tx, group, now - self._every, now)
            entry = await self._store.group(tx, group) if until is not None else None
            if until is None or entry is None:
                return False
            rows = await self._ledger.stored(tx, group, None, None, now)
            found = await asyncio.to_thread(live_figures, entry.group, rows)
            if not found:
                return False
            tx.emit(GroupMeasured(group=group, since=entry.created_at, until=until, figures=found))
            return True


def live_figures(group: Group, rows: Sequence[Row]) -> tuple[LiveFigures, ...]:
    """What each version did, of these stored rows; requests that reached no version are nobody's."""
    found = []
    for version, role, part in by_side(group, summed(rows)):
        if version is None or part.n < 1:
            continue
        shown = figures(part)
        found.append(
            LiveFigures.model_validate(
                {
                    "asset": ref(version),
                    "role": role,
                    "requests": shown.n,
                    "errors": shown.errors,
                    "latency_ms": latencies(shown),
                    "measures": measures(part),
                }
            )
        )
    return tuple(sorted(found, key=lambda one: (one.role == "former", -one.requests))[:MOST_VERSIONS])
