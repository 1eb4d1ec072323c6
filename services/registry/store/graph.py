"""Lineage edges, and what other services said of a version."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from services.registry.domain.lineage import Arms, Edge, Finding
from shared.db.database import Transaction
from shared.events.router import Arm


class Graph:
    """Tables edge, finding, model_group."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def link(self, tx: Transaction, edges: Iterable[Edge], since: datetime, event_id: str) -> None:
        """These edges hold from now on; known ones stay as they are."""
        found = sorted({(edge.source, edge.association, edge.destination) for edge in edges})
        if found:
            sources, associations, destinations = zip(*found, strict=True)
            await self._queries.link(
                tx.connection,
                workspace=tx.workspace,
                sources=sources,
                associations=associations,
                destinations=destinations,
                since=since,
                event_id=event_id,
            )

    async def unlink(self, tx: Transaction, edges: Iterable[Edge], until: datetime) -> None:
        """These edges hold no longer."""
        for edge in sorted(edges):
            await self._queries.unlink(
                tx.connection,
                workspace=tx.workspace,
                source=edge.source,
                association=edge.association,
                destination=edge.destination,
                until=until,
            )

    async def around(self, tx: Transaction, nodes: Iterable[str], *, forth: bool, most: int) -> list[Edge]:
        """Edges that leave (forth) or arrive at any of the nodes, at most so many."""
        query = self._queries.edges_from if forth else self._queries.edges_to
        rows = query(tx.connection, workspace=tx.workspace, nodes=sorted(nodes), most=most)
        return [
            Edge(row["source"], row["association"], row["destination"], row["since"], row["until"])
            async for row in rows
        ]

    async def put(self, tx: Transaction, finding: Finding) -> None:
        """Keep what was said, unless something newer about it was heard before."""
        await self._queries.put_finding(
            tx.connection,
            workspace=tx.workspace,
            kind=finding.kind,
            id=finding.id,
            urn=finding.urn,
            version=finding.version,
            at=finding.at,
            document=finding.document,
        )

    async def findings(self, tx: Transaction, urn: str, version: int) -> list[Finding]:
        """What was said of a version and of its asset, newest first."""
        rows = self._queries.findings(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return [Finding(row["kind"], row["id"], urn, version, row["at"], row["document"]) async for row in rows]

    async def hold_group(self, tx: Transaction, name: str) -> tuple[int, Arms]:
        """Revision and arms of a group as heard of last, held until commit; revision 0 when it is new."""
        row = await self._queries.hold_group(tx.connection, workspace=tx.workspace, name=name)
        return row["revision"], tuple(Arm.model_validate(arm) for arm in row["arms"])

    async def put_group(self, tx: Transaction, name: str, revision: int, arms: Arms) -> None:
        await self._queries.put_group(
            tx.connection,
            workspace=tx.workspace,
            name=name,
            revision=revision,
            arms=[arm.model_dump(mode="json") for arm in arms],
        )
