"""Walking the lineage: names of nodes and what they mean, the part that was found, ways through it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from services.registry.domain.lineage import Edge
from shared.events.base import LAST_VERSION

Direction = Literal["ascendants", "descendants", "both", "upstream", "downstream"]
ASSOCIATIONS = ("ContributedTo", "AssociatedWith", "DerivedFrom", "Produced", "SameAs")
SAID = ("evaluation", "gate", "approval", "waiver", "deployment")
"""Kinds of nodes that a finding tells more of."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node's name says: `mm:model/x@3` is version 3 of mm:model/x, of kind model; `run:17` is run 17.

    `openlineage:dataset:<namespace>/<name>` is a dataset that others' events spoke of, `openlineage:job:…` a job.
    """

    kind: str
    name: str
    version: int | None = None


def identify(node: str) -> Identity:
    """Read a node's name. Every text is one; of a kind that nobody knows, if need be."""
    if node.startswith("mm:"):
        urn, at, number = node.rpartition("@")
        kind = node[3:].partition("/")[0]
        if at and number.isdecimal() and 0 < int(number[:11]) <= LAST_VERSION:
            return Identity(kind, urn, int(number))
        return Identity(kind, node)
    kind, _, name = node.removeprefix("openlineage:").partition(":")
    return Identity(kind, name)


def kind_of(node: str) -> str:
    """`model` of mm:model/x@3, `run` of run:17."""
    return identify(node).kind


def label_of(node: str, fact: Mapping[str, Any] | None) -> str:
    """A node in words: `credit-pd 3 (production)`, `evaluation: tabular-classification on 9,000 rows`, `gate: pass`."""
    it, fact = identify(node), fact or {}
    if it.version is not None:
        return f"{it.name.partition('/')[2]} {it.version}" + (f" ({fact['stage']})" if fact else "")
    if it.kind == "evaluation":
        if "code" in fact:
            return f"evaluation failed: {fact['code']}"
        return f"evaluation: {fact['template']} on {fact['rows']:,} rows" if "template" in fact else "evaluation"
    if it.kind == "group":
        champion = next((arm["asset"] for arm in fact.get("arms", ()) if arm["role"] == "champion"), None)
        named = f"{champion['urn'].partition('/')[2]} {champion['version']}" if champion else None
        return f"group {it.name}" + (f": champion {named}" if named else "")
    if it.kind == "deployment" and fact:
        return f"deployment on {fact.get('target')}" + (f": {fact['code']}" if "code" in fact else "")
    if it.kind == "run":
        return f"run of {fact['job']} ({fact['state']})" if fact.get("job") else f"run {it.name}"
    word = fact.get("verdict") or fact.get("decision") or fact.get("measure")
    if it.kind in SAID:
        return f"{it.kind}: {word}" if word else it.kind
    return it.name.partition("/")[2] if node.startswith("mm:") else it.name


@dataclass(slots=True)
class Walk:
    """What was found: nodes by their distance from the start, edges, and the edge by which each node was come to first.

    `bounded` are nodes that have more edges than are followed at one; `truncated` says that the whole walk was cut off.
    """

    start: str
    depths: dict[str, int] = field(default_factory=dict)
    edges: dict[Edge, None] = field(default_factory=dict)
    came_by: dict[str, tuple[str, Edge]] = field(default_factory=dict)
    bounded: set[str] = field(default_factory=set)
    truncated: bool = False

    def take(self, found: Iterable[tuple[str, Edge]], depth: int, most_a_node: int, most: int) -> set[str]:
        """Add one level's edges; returns the nodes that are new."""
        counts: dict[str, int] = {}
        fresh: set[str] = set()
        for asked, edge in found:
            counts[asked] = counts.get(asked, 0) + 1
            if counts[asked] > most_a_node:
                self.bounded.add(asked)
                continue
            if edge not in self.edges:
                if len(self.edges) >= most:
                    self.truncated = True
                    break
                self.edges[edge] = None
            other = edge.destination if edge.source == asked else edge.source
            if other not in self.depths:
                self.depths[other] = depth
                self.came_by[other] = (asked, edge)
                fresh.add(other)
        return fresh

    def way_to(self, node: str) -> tuple[Edge, ...]:
        """The edges from the start to a node, in order, by the shortest way that was found."""
        steps: list[Edge] = []
        while node in self.came_by:
            node, edge = self.came_by[node]
            steps.append(edge)
        return tuple(reversed(steps))


def together(forth: Walk, back: Walk) -> Walk:
    """Two walks from one start as one."""
    for node, depth in back.depths.items():
        forth.depths.setdefault(node, depth)
    forth.edges.update(back.edges)
    forth.bounded |= back.bounded
    forth.truncated = forth.truncated or back.truncated
    return forth


@dataclass(frozen=True, slots=True)
class Served:
    """A version's part in a group's traffic that held at the moment that was asked for."""

    group: str
    version: str
    role: str
    weight_bp: int
    since: datetime | None
    until: datetime | None


def served_in(walk: Walk) -> list[Served]:
    """Who of the affected served traffic: the arms among the edges, shadows and weights of nothing too."""
    return [
        Served(
            group=edge.destination.removeprefix("group:"),
            version=edge.source,
            role=str(edge.properties.get("role", "")),
            weight_bp=int(edge.properties.get("weight_bp", 0)),
            since=edge.since,
            until=edge.until,
        )
        for edge in sorted(walk.edges)
        if edge.destination.startswith("group:") and edge.association == "AssociatedWith"
    ]
