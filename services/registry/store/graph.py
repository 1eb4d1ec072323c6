"""Lineage: edges as intervals, what is known of their nodes, and what other services said of a version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import orjson

from services.registry.domain.assets import Version
from services.registry.domain.graph import SAID, identify
from services.registry.domain.lineage import Arms, Edge, Finding, Run
from shared.db.database import Transaction
from shared.events.router import Arm


class Graph:
    """Tables edge, finding, model_group, lineage_run."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def link(self, tx: Transaction, edges: Iterable[Edge], since: datetime, event_id: str) -> None:
        """These edges hold from now on; those that do already stay as they are, but for an earlier beginning."""
        found = {(edge.source, edge.association, edge.destination): edge.properties for edge in edges}
        if found:
            sources, associations, destinations = zip(*sorted(found), strict=True)
            await self._queries.link(
                tx.connection,
                workspace=tx.workspace,
                sources=sources,
                associations=associations,
                destinations=destinations,
                properties=[orjson.dumps(found[key]).decode() for key in sorted(found)],
                since=since,
                event_id=event_id,
            )

    async def link_bases(self, tx: Transaction, version: Version, since: datetime, event_id: str) -> None:
        """A new version hangs on the newest version, of before it, of each asset that it was derived from."""
        if version.training.base:
            await self._queries.link_bases(
                tx.connection, workspace=tx.workspace, node=str(version.ref), number=version.number,
                bases=sorted(set(version.training.base)), since=since, event_id=event_id,
            )  # fmt: skip

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

    async def around(
        self,
        tx: Transaction,
        nodes: Iterable[str],
        associations: Sequence[str],
        *,
        forth: bool,
        at: datetime | None,
        most: int,
    ) -> list[tuple[str, Edge]]:
        """Edges that leave (forth) or arrive at the nodes, with the node each was found at; so many a node at most.

        Those of now, or of a moment. What is the SameAs a node counts as leaving and as arriving.
        """
        asked = {"workspace": tx.workspace, "nodes": sorted(nodes), "associations": list(associations), "most": most}
        if at is None:
            rows = (self._queries.edges_from if forth else self._queries.edges_to)(tx.connection, **asked)
        else:
            rows = (self._queries.edges_from_at if forth else self._queries.edges_to_at)(tx.connection, **asked, at=at)
        return [
            (
                row["asked"],
                Edge(
                    row["source"],
                    row["association"],
                    row["destination"],
                    row["since"],
                    row["until"],
                    row["properties"],
                ),
            )
            async for row in rows
        ]

    async def resting_on(self, tx: Transaction, node: str) -> list[str]:
        """Other versions that a version is part of; at most twenty."""
        rows = self._queries.derived(tx.connection, workspace=tx.workspace, source=node)
        return [row["destination"] async for row in rows if row["destination"].startswith("mm:")]

    async def knows(self, tx: Transaction, name: str) -> bool:
        """Whether anything was ever linked with a node."""
        return bool(await self._queries.is_linked(tx.connection, workspace=tx.workspace, node=name))

    async def facts(
        self, tx: Transaction, nodes: Iterable[str], at: datetime | None, now: datetime
    ) -> dict[str, dict[str, Any]]:
        """What is known of nodes in a few words: stages at a moment, verdicts, roles; a query a kind of node."""
        asked = [identify(node) for node in nodes]
        found: dict[str, dict[str, Any]] = {}
        common = {"conn": tx.connection, "workspace": tx.workspace}
        versions = [one for one in asked if one.version is not None]
        if versions:
            urns, numbers = [one.name for one in versions], [one.version for one in versions]
            async for row in self._queries.versions_of_nodes(**common, urns=urns, versions=numbers, at=at or now):
                found[f"{row['urn']}@{row['version']}"] = {"stage": row["stage"]}
        said = [one for one in asked if one.kind in SAID]
        if said:
            kinds, ids = [one.kind for one in said], [one.name for one in said]
            async for row in self._queries.said_of_nodes(**common, kinds=kinds, ids=ids):
                about = f"{row['urn']}@{row['version']}"
                found[f"{row['kind']}:{row['id']}"] = {**row["words"], "of": about, "at": row["at"]}
        groups = [one.name for one in asked if one.kind == "group"]
        if groups and at is None:  # who served at a moment is in the edges
            async for row in self._queries.groups_of_nodes(**common, names=groups):
                found[f"group:{row['name']}"] = {"revision": row["revision"], "arms": row["arms"]}
        runs = [one.name for one in asked if one.kind == "run"]
        if runs:
            async for row in self._queries.runs_of_nodes(**common, ids=runs):
                found[f"run:{row['run_id']}"] = {"job": row["job"], "state": row["state"], "ended_at": row["ended_at"]}
        return found

    async def put_run(self, tx: Transaction, run: Run) -> None:
        """Keep what was heard of a run, in whatever order it is heard."""
        await self._queries.put_run(
            tx.connection,
            workspace=tx.workspace,
            run_id=run.id,
            job=run.job,
            state=run.state,
            state_at=run.at,
            started_at=run.started_at,
            ended_at=run.ended_at,
        )

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
