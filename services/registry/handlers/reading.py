"""What is asked: submissions, versions with what was said of them, lineage, search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from services.registry.domain.assets import Version
from services.registry.domain.lineage import Edge, Finding
from services.registry.store import Move, Store, Submission
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound
from shared.identity.principal import Principal

LAST = 2**31 - 1
LAST_NUMBER = 2**63 - 1
MOST_EDGES = 5_000

Direction = Literal["ascendants", "descendants", "both"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A version with its stage, the aliases that point at it, and everything that was said of it, newest first."""

    version: Version
    stage: str
    aliases: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class AssetStanding:
    """An asset: its newest version, all aliases, and the version that is in production."""

    newest: Standing
    aliases: tuple[Move, ...]
    production: int | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """The part of the graph that was asked for; nodes by their distance from where it began."""

    start: str
    depths: dict[str, int]
    edges: tuple[Edge, ...]
    truncated: bool


class Reading:
    """Answers from this workspace alone."""

    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock

    async def submission(self, caller: Principal, submission_id: UUID) -> Submission:
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.submissions.one(tx, submission_id)
        if found is None:
            raise NotFound(f"there is no submission {submission_id}")
        return found

    async def version(self, caller: Principal, urn: str, number: int) -> Standing:
        """One version and everything next to it. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.versions.one(tx, urn, number)
            if found is None:
                raise NotFound(f"there is no {urn}@{number}")
            return await self._with_findings(tx, found)

    async def asset(self, caller: Principal, urn: str) -> AssetStanding:
        """The asset by its newest version. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.versions.before(tx, urn, LAST, 1)
            if not found:
                raise NotFound(f"there is no {urn}")
            now = self._clock()
            production = await self._store.pointers.in_stage(tx, urn, "production", now)
            return AssetStanding(
                newest=await self._with_findings(tx, found[0]),
                aliases=tuple(await self._store.pointers.aliases(tx, urn, now)),
                production=production[0].version if production else None,
            )

    async def versions(self, caller: Principal, urn: str, before: int, most: int) -> list[Standing]:
        """Newest first, below a number. Raises NotFound for an asset that is not there."""
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.versions.before(tx, urn, before, most)
            if not found and not await self._store.versions.before(tx, urn, LAST, 1):
                raise NotFound(f"there is no {urn}")
            return await self._standings(tx, found)

    async def search(
        self, caller: Principal, terms: Sequence[str], text: str, before: int, most: int
    ) -> list[Standing]:
        """Versions that every term and every word finds, newest first, below an order of registration."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._standings(tx, await self._store.versions.find(tx, terms, text, before, most))

    async def lineage(
        self, caller: Principal, start: str, direction: Direction, max_depth: int, at: datetime | None
    ) -> Lineage:
        """What a node comes from, what comes from it, or both, up to a depth. Raises NotFound for no such node.

        Walked level by level, each one query by index; no node is visited twice, so that a cycle ends.
        """
        async with self._database.begin(caller.workspace) as tx:
            depths = {start: 0}
            edges: dict[Edge, None] = {}
            truncated = False
            for forth in (True, False):
                if direction == ("ascendants" if forth else "descendants"):
                    continue
                frontier, seen = {start}, {start}
                for depth in range(1, max_depth + 1):
                    room = MOST_EDGES - len(edges)
                    found = await self._store.graph.around(tx, frontier, forth=forth, most=room + 1)
                    truncated = truncated or len(found) > room
                    kept = [edge for edge in found[:room] if _held(edge, at)]
                    edges.update(dict.fromkeys(kept))
                    frontier = {edge.destination if forth else edge.source for edge in kept} - seen
                    seen |= frontier
                    for node in frontier:
                        depths.setdefault(node, depth)
                    if not frontier or truncated:
                        break
            if not edges and not await self._is_version(tx, start):
                raise NotFound(f"lineage knows no node {start[:200]!r}")
        return Lineage(start, depths, tuple(edges), truncated)

    async def _is_version(self, tx: Transaction, node: str) -> bool:
        urn, _, number = node.rpartition("@")
        if not number.isdecimal() or not 0 < int(number[:10]) <= LAST:
            return False
        return await self._store.versions.one(tx, urn, int(number[:10])) is not None

    async def _with_findings(self, tx: Transaction, version: Version) -> Standing:
        (standing,) = await self._standings(tx, [version])
        findings = await self._store.graph.findings(tx, version.ref.urn, version.ref.version)
        return Standing(standing.version, standing.stage, standing.aliases, tuple(findings))

    async def _standings(self, tx: Transaction, versions: Sequence[Version]) -> list[Standing]:
        stages: dict[tuple[str, int], str] = {}
        aliases: dict[tuple[str, int], list[str]] = {}
        for urn in {version.ref.urn for version in versions}:
            numbers = [version.ref.version for version in versions if version.ref.urn == urn]
            for number, stage in (await self._store.pointers.stages(tx, urn, numbers)).items():
                stages[urn, number] = stage
            for move in await self._store.pointers.aliases(tx, urn, self._clock()):
                aliases.setdefault((urn, move.after), []).append(move.name or "")
        keys = [(version.ref.urn, version.ref.version) for version in versions]
        return [
            Standing(version, stages.get(key, "development"), tuple(aliases.get(key, ())))
            for version, key in zip(versions, keys, strict=True)
        ]


def _held(edge: Edge, at: datetime | None) -> bool:
    """Whether an edge held at a moment; without one, whether it holds now."""
    if at is None:
        return edge.until is None
    return edge.since is not None and edge.since <= at and (edge.until is None or edge.until > at)
