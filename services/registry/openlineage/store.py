"""OpenLineage's rows: events as they came, facets, and how far others were told."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.registry.domain.lineage import Edge
from services.registry.openlineage.heard import Facet, Heard
from shared.db.database import Transaction


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the order in which edges became visible."""

    xid: int
    number: int


BEGINNING = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Linked:
    """One edge with its place, and the event that it was made by."""

    place: Place
    event_id: str
    edge: Edge


@dataclass(frozen=True, slots=True)
class Turn:
    """A workspace whose news are to be told, held by a lease; `refusals` of the `attempts` were of the event itself."""

    workspace: str
    lease: UUID
    place: Place
    attempts: int
    refusals: int


class OpenLineageStore:
    """Tables openlineage_event, openlineage_facet, openlineage_cursor; reads edge."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def keep(self, tx: Transaction, heard: Heard, who: str, at: datetime) -> bool:
        """Keep an event as it came; False when it had come before."""
        return bool(
            await self._queries.keep_event(
                tx.connection,
                workspace=tx.workspace,
                digest=heard.digest,
                kind=heard.kind,
                event_at=heard.at,
                document=json.dumps(heard.document),
                who=who,
                received_at=at,
            )
        )

    async def put_facets(self, tx: Transaction, facets: Iterable[Facet], at: datetime) -> None:
        found = {(facet.node, facet.scope, facet.name): facet.document for facet in facets}
        if found:
            nodes, scopes, names = zip(*sorted(found), strict=True)
            documents = [json.dumps(found[key]) for key in sorted(found)]
            await self._queries.put_facets(
                tx.connection,
                workspace=tx.workspace,
                nodes=nodes,
                scopes=scopes,
                names=names,
                documents=documents,
                at=at,
            )

    async def facets(self, tx: Transaction, node: str) -> list[tuple[str, str, datetime, dict[str, Any]]]:
        """Scope, name, since when, and the facet."""
        rows = self._queries.facets(tx.connection, workspace=tx.workspace, node=node)
        return [(row["scope"], row["name"], row["at"], row["document"]) async for row in rows]

    async def linked_after(self, tx: Transaction, place: Place, most: int) -> list[Linked]:
        """Edges after a place, in order, those of one event together; the last event is left out where it may go on."""
        rows = self._queries.told_after(
            tx.connection, workspace=tx.workspace, xid=str(place.xid), number=place.number, most=most
        )
        found = [
            Linked(
                Place(int(row["xid"]), row["number"]),
                row["event_id"],
                Edge(
                    row["source"],
                    row["association"],
                    row["destination"],
                    row["since"],
                    properties=row["properties"],
                ),
            )
            async for row in rows
        ]
        if len(found) < most:
            return found
        whole = [one for one in found if one.event_id != found[-1].event_id]
        return whole or found

    async def claim(self, tx: Transaction, url: str, lease: UUID, now: datetime, until: datetime) -> Turn | None:
        """The workspace whose turn it is, of all."""
        await self._queries.ensure_cursors(tx.connection, url=url, at=now)
        row = await self._queries.claim_cursor(tx.connection, url=url, lease=lease, now=now, until=until)
        if row is None:
            return None
        return Turn(row["workspace"], lease, Place(int(row["xid"]), row["number"]), row["attempts"], row["refusals"])

    async def advance(
        self, tx: Transaction, url: str, turn: Turn, place: Place, until: datetime, *, told: int, skipped: int
    ) -> bool:
        """Remember that everything up to a place was told; False when the lease was lost."""
        return bool(
            await self._queries.advance_cursor(
                tx.connection,
                workspace=turn.workspace,
                url=url,
                lease=turn.lease,
                xid=str(place.xid),
                number=place.number,
                told=told,
                skipped=skipped,
                until=until,
            )
        )

    async def rest(
        self, tx: Transaction, url: str, turn: Turn, due_at: datetime, failed: tuple[int, int], error: str | None
    ) -> None:
        """Give the workspace back; `failed` are attempts and refusals since the last success."""
        await self._queries.rest_cursor(
            tx.connection,
            workspace=turn.workspace,
            url=url,
            lease=turn.lease,
            attempts=failed[0],
            refusals=failed[1],
            error=error,
            due_at=due_at,
        )

    async def told(self, tx: Transaction) -> list[dict[str, Any]]:
        """How far each server was told of this workspace."""
        return [dict(row) async for row in self._queries.cursors(tx.connection, workspace=tx.workspace)]
