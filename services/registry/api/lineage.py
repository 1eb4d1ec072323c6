"""Where a version comes from and what hangs on it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from services.registry.api.parts import PREFIX, At, Reader
from services.registry.handlers import Handlers
from services.registry.handlers.reading import Direction
from shared.http.edge import StrictRoute


class NodeView(BaseModel):
    """A node by its name; `depth` is its distance from where the walk began."""

    id: str
    kind: str
    depth: int


class EdgeView(BaseModel):
    """`source` has this association with `destination`."""

    source: str
    association: str
    destination: str
    since: datetime | None
    until: datetime | None


class LineageView(BaseModel):
    """A part of the graph; `truncated` when there was more than is given out at once."""

    node: str
    direction: str
    max_depth: int
    nodes: list[NodeView]
    edges: list[EdgeView]
    truncated: bool


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["lineage"])

    @routes.get("/lineage")
    async def lineage(
        caller: Reader,
        node: Annotated[str, Query(min_length=1, max_length=300, pattern=r"^[ -~]+$")],
        direction: Direction = "both",
        max_depth: Annotated[int, Query(ge=1, le=50)] = 10,
        at: At = None,
    ) -> LineageView:
        """Ascendants, descendants or both of `mm:model/x@3`, `run:17`, `group:<name>`, …, now or as of a moment."""
        found = await handlers.reading.lineage(caller, node, direction, max_depth, at)
        return LineageView(
            node=node,
            direction=direction,
            max_depth=max_depth,
            nodes=[
                NodeView(id=name, kind=kind_of(name), depth=depth)
                for name, depth in sorted(found.depths.items(), key=lambda item: (item[1], item[0]))
            ],
            edges=[
                EdgeView(
                    source=edge.source,
                    association=edge.association,
                    destination=edge.destination,
                    since=edge.since,
                    until=edge.until,
                )
                for edge in sorted(found.edges)
            ],
            truncated=found.truncated,
        )

    return routes


def kind_of(node: str) -> str:
    """`model` of mm:model/x@3, `run` of run:17."""
    return node.removeprefix("mm:").partition("/" if node.startswith("mm:") else ":")[0]
