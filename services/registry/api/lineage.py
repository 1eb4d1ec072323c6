"""Where a version comes from, what hangs on it, and the way between two nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from services.registry.api.parts import NO_NUL, PREFIX, At, Reader
from services.registry.domain.graph import ASSOCIATIONS, Direction, Walk, kind_of, label_of
from services.registry.domain.lineage import Association, Edge
from services.registry.handlers import Handlers
from services.registry.handlers.lineage import MOST_EDGES, USUAL_EDGES, USUAL_EDGES_A_NODE, Question
from shared.http.edge import StrictRoute

Node = Annotated[str, Query(min_length=1, max_length=1000, pattern=NO_NUL)]
Depth = Annotated[int, Query(ge=1, le=50)]
Over = Annotated[list[Association] | None, Query(max_length=5, description="over these edges alone")]
Kinds = Annotated[
    list[Annotated[str, Query(min_length=1, max_length=60)]] | None,
    Query(max_length=20, description="nodes of these kinds alone; edges between them"),
]
Most = Annotated[int, Query(ge=1, le=MOST_EDGES)]


class NodeView(BaseModel):
    """A node by its name, in words, and what is known of it; `depth` is its distance from where the walk began."""

    id: str
    kind: str
    label: str
    depth: int
    details: dict[str, Any]


class EdgeView(BaseModel):
    """`source` has this association with `destination`; `properties` are a version's role and weight in a group."""

    source: str
    association: str
    destination: str
    since: datetime | None
    until: datetime | None
    properties: dict[str, Any]


class LineageView(BaseModel):
    """A part of the graph. `truncated` when there was more than is given out at once; `bounded` names the nodes that
    have more edges than are followed at one."""

    node: str
    direction: str
    max_depth: int
    at: datetime | None
    nodes: list[NodeView]
    edges: list[EdgeView]
    truncated: bool
    bounded: list[str]


class ServedView(BaseModel):
    """A version's part in a group's traffic at the moment that was asked for."""

    group: str
    version: str
    role: str
    weight_bp: int
    since: datetime | None
    until: datetime | None


class AffectedView(NodeView):
    """A node that hangs on the other one, and the way that leads to it."""

    path: list[EdgeView]


class ImpactView(BaseModel):
    """What hangs on a node, by kind, and what of it served traffic."""

    node: str
    at: datetime | None
    affected: dict[str, list[AffectedView]]
    counts: dict[str, int]
    serving: list[ServedView]
    truncated: bool
    bounded: list[str]


class PathView(BaseModel):
    """The shortest way, in the direction of the edges; `found` false when there is none up to the depth."""

    source: str
    destination: str
    found: bool
    nodes: list[NodeView]
    edges: list[EdgeView]
    truncated: bool


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["lineage"])

    @routes.get("/lineage", response_model=LineageView)
    async def lineage(
        caller: Reader,
        node: Node,
        direction: Direction = "both",
        max_depth: Depth = 10,
        at: At = None,
        association: Over = None,
        type: Kinds = None,
        max_edges: Most = USUAL_EDGES,
        max_edges_a_node: Most = USUAL_EDGES_A_NODE,
    ) -> Response:
        """Upstream (ascendants), downstream (descendants) or both of `mm:model/x@3`, `run:17`, `group:<name>`, …"""
        question = Question(max_depth, at, association or ASSOCIATIONS, max_edges, max_edges_a_node)
        found = await handlers.lineage.around(caller, node, direction, question)
        kept = _kept(found.walk, type)
        edges = (_edge(edge) for edge in sorted(found.walk.edges) if edge.source in kept and edge.destination in kept)
        return _answer(
            {
                "node": node,
                "direction": direction,
                "max_depth": max_depth,
                "at": at,
                "nodes": [_node(name, depth, found.facts) for name, depth in _ordered(kept)],
                "edges": list(edges),
                "truncated": found.walk.truncated,
                "bounded": sorted(found.walk.bounded),
            }
        )

    @routes.get("/lineage/impact", response_model=ImpactView)
    async def impact(
        caller: Reader,
        node: Node,
        max_depth: Depth = 20,
        at: At = None,
        max_edges: Most = USUAL_EDGES,
        max_edges_a_node: Most = USUAL_EDGES_A_NODE,
    ) -> Response:
        """A dataset is poisoned: which models, deployments and groups hang on it, by which way, and who served then."""
        question = Question(max_depth, at, ASSOCIATIONS, max_edges, max_edges_a_node)
        found = await handlers.lineage.impact(caller, node, question)
        walk, facts = found.lineage.walk, found.lineage.facts
        affected: dict[str, list[dict[str, Any]]] = {}
        for name, depth in _ordered(walk.depths):
            if name != node:
                way = [_edge(edge) for edge in walk.way_to(name)]
                affected.setdefault(kind_of(name), []).append({**_node(name, depth, facts), "path": way})
        return _answer(
            {
                "node": node,
                "at": at,
                "affected": affected,
                "counts": {kind: len(nodes) for kind, nodes in affected.items()},
                "serving": found.serving,
                "truncated": walk.truncated,
                "bounded": sorted(walk.bounded),
            }
        )

    @routes.get("/lineage/path", response_model=PathView)
    async def path(
        caller: Reader, source: Node, destination: Node, max_depth: Depth = 20, at: At = None, association: Over = None
    ) -> Response:
        """The shortest way from one node down to another."""
        question = Question(max_depth, at, association or ASSOCIATIONS)
        found = await handlers.lineage.way(caller, source, destination, question)
        order = dict.fromkeys([source]) if found.edges else {}
        for edge in found.edges:
            order[edge.destination if edge.source in order else edge.source] = None
        return _answer(
            {
                "source": source,
                "destination": destination,
                "found": bool(found.edges) or source == destination,
                "nodes": [_node(name, depth, found.facts) for depth, name in enumerate(order)],
                "edges": [_edge(edge) for edge in found.edges],
                "truncated": found.truncated,
            }
        )

    return routes


def _kept(walk: Walk, kinds: list[str] | None) -> Mapping[str, int]:
    """The nodes of the kinds that were asked for, and the one that the walk began at."""
    if kinds is None:
        return walk.depths
    return {name: depth for name, depth in walk.depths.items() if name == walk.start or kind_of(name) in kinds}


def _ordered(depths: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    return sorted(depths.items(), key=lambda item: (item[1], item[0]))


def _node(name: str, depth: int, facts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    fact = facts.get(name)
    return {"id": name, "kind": kind_of(name), "label": label_of(name, fact), "depth": depth, "details": fact or {}}


def _edge(edge: Edge) -> dict[str, Any]:
    return {
        "source": edge.source,
        "association": edge.association,
        "destination": edge.destination,
        "since": edge.since,
        "until": edge.until,
        "properties": edge.properties,
    }


def _answer(document: dict[str, Any]) -> Response:
    """Thousands of nodes as they are: checking what was just made here took longer than finding it."""
    return Response(orjson.dumps(document), media_type="application/json")
