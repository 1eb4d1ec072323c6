"""Loads what a query asks for level by level: one statement for all that stand on a level, however many they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from strawberry.dataloader import DataLoader

from services.registry.beside.reading import Beside
from services.registry.domain.graph import ASSOCIATIONS, Direction, Walk
from services.registry.graphql.sources import Sources
from services.registry.handlers.lineage import BACK, FORTH
from services.registry.search.asked import Asked
from shared.db.database import Transaction

T = TypeVar("T")
Ref = tuple[str, int]
MOST_EDGES = 500
"""Of one walk; a query may hold many walks."""


@dataclass(frozen=True, slots=True)
class Pointers:
    """Where an asset's aliases point, and its version in production."""

    aliases: dict[str, int]
    production: int | None


@dataclass(frozen=True, slots=True)
class Walked:
    """A walk with what is known of its nodes."""

    walk: Walk
    facts: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class WalkKey:
    """Where a walk begins, which way it goes, and how far."""

    node: str
    direction: Direction
    depth: int


class Loaders:
    """Of one request, which reads in one transaction, one statement after the other."""

    def __init__(self, tx: Transaction, sources: Sources) -> None:
        self._tx = tx
        self._of = sources
        self._one_at_a_time = asyncio.Lock()
        self.assets: DataLoader[str, Any] = DataLoader(load_fn=self._alone(self._assets), max_batch_size=None)
        self.versions: DataLoader[Ref, Beside | None] = DataLoader(load_fn=self._alone(self._versions))
        self.newest: DataLoader[Ref, list[Ref]] = DataLoader(load_fn=self._alone(self._newest))
        self.pointers: DataLoader[str, Pointers] = DataLoader(load_fn=self._alone(self._pointers))
        self.walks: DataLoader[WalkKey, Walked] = DataLoader(load_fn=self._alone(self._walks))
        self.facts: DataLoader[str, dict[str, Any] | None] = DataLoader(load_fn=self._alone(self._facts))

    def _alone(self, load: Callable[[Any], Awaitable[T]]) -> Callable[[Any], Awaitable[T]]:
        """A connection takes one statement at a time, and levels of a query may meet."""

        async def alone(keys: Any) -> T:
            async with self._one_at_a_time:
                return await load(keys)

        return alone

    async def assets_after(self, kind: str | None, after: str, most: int) -> list[Any]:
        """A page of assets by URN."""
        async with self._one_at_a_time:
            rows = self._of.queries.assets_after(
                self._tx.connection, workspace=self._tx.workspace, kind=kind, after=after, most=most
            )
            return [row async for row in rows]

    async def search(self, asked: Asked, most: int) -> tuple[list[Ref], int]:
        """The first versions that a search finds, and how many it finds."""
        async with self._one_at_a_time:
            hits = await self._of.engine.search(self._tx, asked, None, most + 1)
            numbers = [hit.number for hit in hits.items]
            found = {one.number: one for one in await self._of.store.versions.numbered(self._tx, numbers)}
        refs = [found[number].ref for number in numbers if number in found]
        return [(ref.urn, ref.version) for ref in refs], hits.total

    async def _assets(self, urns: list[str]) -> list[Any]:
        rows = self._of.queries.assets(self._tx.connection, workspace=self._tx.workspace, urns=urns)
        found = {row["urn"]: row async for row in rows}
        return [found.get(urn) for urn in urns]

    async def _versions(self, refs: list[Ref]) -> list[Beside | None]:
        found = await self._of.besides.of(self._tx, refs)
        return [found.get(ref) for ref in refs]

    async def _newest(self, asked: list[Ref]) -> list[list[Ref]]:
        """Keys are URN and how many."""
        most = max(count for _, count in asked)
        urns = sorted({urn for urn, _ in asked})
        rows = self._of.queries.newest(self._tx.connection, workspace=self._tx.workspace, urns=urns, most=most)
        found: dict[str, list[Ref]] = {}
        async for row in rows:
            found.setdefault(row["urn"], []).append((row["urn"], row["version"]))
        return [found.get(urn, [])[:count] for urn, count in asked]

    async def _pointers(self, urns: list[str]) -> list[Pointers]:
        rows = self._of.queries.pointers(self._tx.connection, workspace=self._tx.workspace, urns=urns)
        aliases: dict[str, dict[str, int]] = {}
        production: dict[str, int] = {}
        async for row in rows:
            if row["kind"] == "alias":
                aliases.setdefault(row["urn"], {})[row["name"]] = row["version"]
            else:
                production[row["urn"]] = row["version"]
        return [Pointers(aliases.get(urn, {}), production.get(urn)) for urn in urns]

    async def _facts(self, nodes: list[str]) -> list[dict[str, Any] | None]:
        found = await self._of.store.graph.facts(self._tx, nodes, None, self._of.clock())
        return [found.get(node) for node in nodes]

    async def _walks(self, keys: list[WalkKey]) -> list[Walked]:
        """Walks that go the same way take each level together."""
        walks = {key: Walk(key.node, {key.node: 0}) for key in keys}
        for forth in (True, False):
            going = {key: {key.node} for key in keys if key.direction in (FORTH if forth else BACK)}
            parts = {key: Walk(key.node, {key.node: 0}) for key in going}
            for depth in range(1, max((key.depth for key in going), default=0) + 1):
                going = {key: ends for key, ends in going.items() if ends and key.depth >= depth}
                if not going:
                    break
                found = await self._of.store.graph.around(
                    self._tx, set().union(*going.values()), ASSOCIATIONS, forth=forth, at=None, most=MOST_EDGES + 1
                )
                for key, ends in going.items():
                    mine = [(asked, edge) for asked, edge in found if asked in ends]
                    going[key] = parts[key].take(mine, depth, MOST_EDGES, MOST_EDGES)
            for key, part in parts.items():
                # What is on both sides keeps its shorter distance.
                walks[key].depths = {**part.depths, **walks[key].depths}
                walks[key].edges.update(part.edges)
                walks[key].truncated = walks[key].truncated or part.truncated or bool(part.bounded)
        nodes = sorted({node for walk in walks.values() for node in walk.depths})
        facts = await self._of.store.graph.facts(self._tx, nodes, None, self._of.clock())
        return [Walked(walks[key], {n: facts[n] for n in walks[key].depths if n in facts}) for key in keys]


def refs_of(datasets: Sequence[dict[str, Any]]) -> list[Ref]:
    """`mm:dataset/x@3` of each as URN and number."""
    found = []
    for one in datasets:
        urn, _, number = one["dataset"].rpartition("@")
        found.append((urn, int(number)))
    return found
