"""Where things come from and what hangs on them: walks through the graph, impact, ways between two nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.registry.domain import graph
from services.registry.domain.graph import ASSOCIATIONS, Direction, Served, Walk
from services.registry.domain.lineage import Edge
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound
from shared.identity.principal import Principal

MOST_EDGES = 20_000
USUAL_EDGES = 1_000
USUAL_EDGES_A_NODE = 500
"""A dataset that 10,000 versions were trained on is told as such (`bounded`); who asks for more gets it, later."""
BACK = ("ascendants", "upstream", "both")
FORTH = ("descendants", "downstream", "both")


@dataclass(frozen=True, slots=True)
class Question:
    """How far to walk, over which edges, and as of when."""

    max_depth: int = 10
    at: datetime | None = None
    associations: Sequence[str] = ASSOCIATIONS
    most: int = USUAL_EDGES
    most_a_node: int = USUAL_EDGES_A_NODE


@dataclass(frozen=True, slots=True)
class Lineage:
    """A walk, with what is known of each node."""

    walk: Walk
    facts: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Impact:
    """What hangs on a node, with the way that leads to each, and what of it served traffic at the moment."""

    lineage: Lineage
    serving: list[Served]


@dataclass(frozen=True, slots=True)
class Way:
    """The shortest way between two nodes, in the direction of the edges; empty when none was found."""

    edges: tuple[Edge, ...]
    facts: dict[str, dict[str, Any]]
    truncated: bool


class Lineages:
    """Walks level by level, each one query by index; no node is visited twice, so that a cycle ends."""

    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock

    async def around(self, caller: Principal, start: str, direction: Direction, question: Question) -> Lineage:
        """What a node comes from, what comes from it, or both. Raises NotFound for a node that nothing names."""
        async with self._database.begin(caller.workspace) as tx:
            walk = Walk(start, {start: 0})
            if direction in FORTH:
                walk = await self._walk(tx, start, question, forth=True)
            if direction in BACK:
                walk = graph.together(walk, await self._walk(tx, start, question, forth=False))
            await self._must_exist(tx, walk)
            return Lineage(walk, await self._store.graph.facts(tx, walk.depths, question.at, self._clock()))

    async def impact(self, caller: Principal, start: str, question: Question) -> Impact:
        """Everything downstream, and the parts in groups that it had at the moment. Raises NotFound."""
        found = await self.around(caller, start, "descendants", question)
        return Impact(found, graph.served_in(found.walk))

    async def way(self, caller: Principal, source: str, destination: str, question: Question) -> Way:
        """The shortest way from one node to another, walked from both ends. Raises NotFound for nodes unknown."""
        async with self._database.begin(caller.workspace) as tx:
            forth, back = Walk(source, {source: 0}), Walk(destination, {destination: 0})
            ends = ({source}, {destination})
            met = {source} & {destination}
            for _ in range(question.max_depth):
                if met or forth.truncated or back.truncated or not (ends[0] and ends[1]):
                    break
                # The smaller end goes on, so that a hub at one of them costs little.
                if len(ends[0]) <= len(ends[1]):
                    ends = (await self._level(tx, forth, ends[0], question, forth=True), ends[1])
                else:
                    ends = (ends[0], await self._level(tx, back, ends[1], question, forth=False))
                met = forth.depths.keys() & back.depths.keys()
            if not met:
                await self._must_exist(tx, forth)
                await self._must_exist(tx, back)
                cut = forth.truncated or back.truncated or bool(forth.bounded or back.bounded)
                return Way((), {}, cut)
            middle = min(met, key=lambda node: (forth.depths[node] + back.depths[node], node))
            edges = (*forth.way_to(middle), *reversed(back.way_to(middle)))
            nodes = {source, *(node for edge in edges for node in (edge.source, edge.destination))}
            return Way(edges, await self._store.graph.facts(tx, nodes, question.at, self._clock()), False)

    async def _walk(self, tx: Transaction, start: str, question: Question, *, forth: bool) -> Walk:
        walk, frontier = Walk(start, {start: 0}), {start}
        for _ in range(question.max_depth):
            frontier = await self._level(tx, walk, frontier, question, forth=forth)
            if not frontier or walk.truncated:
                break
        return walk

    async def _level(
        self, tx: Transaction, walk: Walk, frontier: set[str], question: Question, *, forth: bool
    ) -> set[str]:
        """One step further on; returns the nodes that were come to."""
        most = min(question.most_a_node, question.most)
        found = await self._store.graph.around(
            tx, frontier, question.associations, forth=forth, at=question.at, most=most + 1
        )
        depth = walk.depths[next(iter(frontier))] + 1
        return walk.take(found, depth, most, question.most)

    async def _must_exist(self, tx: Transaction, walk: Walk) -> None:
        if walk.edges or await self._store.graph.knows(tx, walk.start):
            return
        it = graph.identify(walk.start)
        if it.version is None or await self._store.versions.one(tx, it.name, it.version) is None:
            raise NotFound(f"lineage knows no node {walk.start[:200]!r}")
