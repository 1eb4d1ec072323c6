"""Taking OpenLineage events in, and reading ours as theirs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.registry.openlineage import telling
from services.registry.openlineage.heard import Heard, read
from services.registry.openlineage.store import OpenLineageStore, Place
from services.registry.openlineage.telling import HEARD, Told
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import Invalid, NotFound, Refused
from shared.identity.principal import Principal

MOST_AT_ONCE = 1_000
PAGE = 500


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one event of a list; `new` false when it had come before."""

    index: int
    new: bool
    reason: str | None = None


class OpenLineage:
    """In and out; each event is a transaction of its own."""

    def __init__(self, database: Database, store: Store, rows: OpenLineageStore, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._rows = rows
        self._clock = clock

    async def take(self, caller: Principal, document: Any) -> bool:
        """Keep an event and what it says; False when it had come before. Raises Invalid."""
        heard = read(document, caller.workspace)
        async with self._database.begin(caller.workspace) as tx:
            new = await self._rows.keep(tx, heard, caller.id, self._clock())
            if new:
                await self._link(tx, heard)
        return new

    async def take_all(self, caller: Principal, documents: list[Any]) -> list[Taken]:
        """Each by itself: one that is not valid keeps none of the others out. Raises Invalid for too many."""
        if len(documents) > MOST_AT_ONCE:
            raise Invalid(f"{len(documents)} events at once; {MOST_AT_ONCE} is the most")
        taken = []
        for index, document in enumerate(documents):
            try:
                taken.append(Taken(index, await self.take(caller, document)))
            except Refused as error:
                taken.append(Taken(index, False, error.message))
        return taken

    async def _link(self, tx: Transaction, heard: Heard) -> None:
        await self._store.graph.link(tx, heard.edges, heard.at, HEARD + heard.digest)
        await self._rows.put_facets(tx, heard.facets, heard.at)
        if heard.run is not None:
            await self._store.graph.put_run(tx, heard.run)

    async def facets(self, caller: Principal, node: str) -> list[tuple[str, str, datetime, dict[str, Any]]]:
        """Everything that OpenLineage events said of a node. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._rows.facets(tx, node)
        if not found:
            raise NotFound(f"no OpenLineage event said anything of {node[:200]!r}")
        return found

    async def told_after(self, caller: Principal, place: Place) -> list[Told]:
        """Our lineage after a place, as OpenLineage events."""
        async with self._database.begin(caller.workspace) as tx:
            return await self.telling(tx, place)

    async def telling(self, tx: Transaction, place: Place) -> list[Told]:
        """The same, in a transaction that is there already."""
        linked = await self._rows.linked_after(tx, place, PAGE)
        facts = await self._store.graph.facts(tx, telling.nodes_of(linked), None, self._clock())
        return telling.tell(tx.workspace, linked, facts)
