"""The types of the graph. What other services said (evaluations, gates, approvals, …) is given as it was said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar, cast

import strawberry
from strawberry.scalars import JSON
from strawberry.types import Info

from services.registry.beside.reading import Beside
from services.registry.domain.graph import Direction, kind_of, label_of
from services.registry.graphql.limits import MOST_FIRST, USUAL_FIRST
from services.registry.graphql.loading import Loaders, Ref, Walked, WalkKey, refs_of
from services.registry.search.asked import Asked
from services.registry.search.asking import Is, Question, both
from services.registry.search.facts import keyed
from services.registry.search.grammar import LONGEST, parse
from shared.errors import Invalid
from shared.events.base import KINDS, LAST_VERSION

MOST_WALK = 10
Context = Info[Loaders, None]
First = Annotated[int, strawberry.argument(description=f"how many, {MOST_FIRST} at most")]


Resolver = TypeVar("Resolver", bound=Callable[..., Any])


def told(description: str) -> Callable[[Resolver], Resolver]:
    """A field with a sentence about it."""
    return cast("Callable[[Resolver], Resolver]", strawberry.field(description=description))


def checked_first(first: int) -> int:
    """Raises Invalid for a number that is not taken."""
    if not 1 <= first <= MOST_FIRST:
        raise Invalid(f"first takes 1 to {MOST_FIRST}, not {first}")
    return first


@strawberry.type(description="A node of the lineage by its name, in words, with what is known of it.")
class Node:
    id: str
    kind: str
    label: str
    depth: int
    details: JSON


@strawberry.type(description="`source` has this association with `destination`.")
class Edge:
    source: str
    association: str
    destination: str
    since: datetime | None
    properties: JSON


@strawberry.type(description="A part of the lineage around a node; `truncated` where there was more.")
class Lineage:
    nodes: list[Node]
    edges: list[Edge]
    truncated: bool

    @classmethod
    def of(cls, found: Walked) -> Lineage:
        walk = found.walk
        return cls(
            nodes=[
                Node(
                    id=name,
                    kind=kind_of(name),
                    label=label_of(name, found.facts.get(name)),
                    depth=depth,
                    details=_json(found.facts.get(name, {})),
                )
                for name, depth in sorted(walk.depths.items(), key=lambda item: (item[1], item[0]))
            ],
            edges=[
                Edge(
                    source=edge.source,
                    association=edge.association,
                    destination=edge.destination,
                    since=edge.since,
                    properties=_json(edge.properties),
                )
                for edge in sorted(walk.edges)
            ],
            truncated=walk.truncated,
        )


async def walked(info: Context, node: str, direction: Direction, depth: int) -> Lineage:
    """Raises Invalid for a depth that is not taken."""
    if not 1 <= depth <= MOST_WALK:
        raise Invalid(f"depth takes 1 to {MOST_WALK}, not {depth}")
    return Lineage.of(await info.context.walks.load(WalkKey(node, direction, depth)))


@strawberry.type(description="A consumer's use of a version.")
class Binding:
    id: strawberry.ID
    consumer: str
    purpose: str
    at: datetime


@strawberry.type(description="A version's share of a group's traffic.")
class Group:
    name: str
    role: str
    weight_bp: int

    @told("every version in the group, as it was heard of last")
    async def arms(self, info: Context) -> JSON:
        found = await info.context.facts.load(f"group:{self.name}")
        return _json((found or {}).get("arms", []))


@strawberry.type(description="A version's part in a group's traffic, `former` where it serves no longer.")
class Live:
    group: str
    role: str
    weight_bp: int
    figures: list[JSON]


@strawberry.type(description="A training run, as it was heard of.")
class Run:
    id: str
    job: str | None
    state: str | None
    ended_at: datetime | None


@strawberry.type(description="A dataset version in its role, with the newest word on whether it may be used.")
class DatasetUse:
    role: str
    approval: JSON | None
    ref: strawberry.Private[Ref]

    @told("the version itself, with its manifest in `content`")
    async def version(self, info: Context) -> Version | None:
        return await version_at(info, self.ref)


@strawberry.type(description="One immutable version, and everything next to it, newest first.")
class Version:
    beside: strawberry.Private[Beside]

    @strawberry.field
    def urn(self) -> str:
        return self.beside.version.urn

    @strawberry.field
    def version(self) -> int:
        return self.beside.version.ref.version

    @strawberry.field
    def digest(self) -> str:
        return self.beside.version.ref.digest

    @strawberry.field
    def kind(self) -> str:
        return cast(str, self.beside.version.content["kind"])

    @strawberry.field
    def title(self) -> str:
        return self.beside.version.title

    @strawberry.field
    def task(self) -> str | None:
        return cast("str | None", self.beside.version.content["task"])

    @strawberry.field
    def licence(self) -> str | None:
        return cast("str | None", self.beside.version.content["licence"])

    @strawberry.field
    def description(self) -> str:
        return self.beside.version.description

    @strawberry.field
    def tags(self) -> JSON:
        return _json(self.beside.version.tags)

    @strawberry.field
    def metrics(self) -> JSON:
        return _json(self.beside.version.metrics)

    @told("what the digest covers")
    def content(self) -> JSON:
        return _json(self.beside.version.content)

    @strawberry.field
    def author(self) -> str:
        return self.beside.version.author.id

    @strawberry.field
    def registered_at(self) -> datetime:
        return self.beside.version.registered_at

    @strawberry.field
    def yanked_at(self) -> datetime | None:
        return self.beside.version.yanked_at

    @strawberry.field
    def stage(self) -> str:
        return self.beside.stage

    @strawberry.field
    def aliases(self) -> list[str]:
        return list(self.beside.aliases)

    @strawberry.field
    def evaluations(self) -> list[JSON]:
        return _each(self.beside.said("evaluation"))

    @strawberry.field
    def gates(self) -> list[JSON]:
        return _each(self.beside.said("gate"))

    @strawberry.field
    def approvals(self) -> list[JSON]:
        return _each(self.beside.said("approval"))

    @strawberry.field
    def waivers(self) -> list[JSON]:
        return _each(self.beside.said("waiver"))

    @strawberry.field
    def deployments(self) -> list[JSON]:
        return _each(self.beside.said("deployment"))

    @told("risk and cost class")
    def classification(self) -> JSON | None:
        found = self.beside.newest("classification")
        return None if found is None else _json(found)

    @strawberry.field
    def groups(self) -> list[Group]:
        return [Group(name=one["group"], role=one["role"], weight_bp=one["weight_bp"]) for one in self.beside.groups]

    @told("what it did in traffic, by group, with the figures that the router last said")
    def live(self) -> list[Live]:
        return [
            Live(group=one["group"], role=one["role"], weight_bp=one["weight_bp"], figures=_each(one["figures"]))
            for one in self.beside.live
        ]

    @told("who is bound to it")
    def bindings(self) -> list[Binding]:
        return [
            Binding(
                id=strawberry.ID(one["binding_id"]),
                consumer=one["consumer"],
                purpose=one["purpose"],
                at=datetime.fromisoformat(one["at"]),
            )
            for one in self.beside.bindings
        ]

    @told("what it was trained and measured on")
    def datasets(self) -> list[DatasetUse]:
        return [
            DatasetUse(role=one["role"], approval=None if one["approval"] is None else _json(one["approval"]), ref=ref)
            for one, ref in zip(self.beside.datasets, refs_of(self.beside.datasets), strict=True)
        ]

    @told("prompts that it closes over")
    async def prompts(self, info: Context) -> list[Version]:
        refs = [(one["urn"], one["version"]) for one in self.beside.version.content["prompts"]]
        found = await info.context.versions.load_many(refs)
        return [Version(beside=one) for one in found if one is not None]

    @told("the run that made it")
    async def run(self, info: Context) -> Run | None:
        name = self.beside.version.training.run_id
        return None if name is None else await run_at(info, name)

    @strawberry.field
    async def asset(self, info: Context) -> Asset | None:
        return await asset_at(info, self.beside.version.urn)

    @told("what it comes from")
    async def upstream(self, info: Context, depth: int = 3) -> Lineage:
        return await walked(info, str(self.beside.version.ref), "upstream", depth)

    @told("what hangs on it")
    async def downstream(self, info: Context, depth: int = 3) -> Lineage:
        return await walked(info, str(self.beside.version.ref), "downstream", depth)


@strawberry.type(description="Where an alias points.")
class Alias:
    name: str
    version: int


@strawberry.type(description="An asset without its versions.")
class Asset:
    urn: str
    kind: str
    name: str
    title: str
    description: str
    tags: JSON
    last_version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Any) -> Asset:
        fields = ("urn", "kind", "name", "title", "description", "last_version", "created_at", "updated_at")
        return cls(**{name: row[name] for name in fields}, tags=_json(row["tags"]))

    @told("its newest versions that are not yanked")
    async def versions(self, info: Context, first: First = USUAL_FIRST) -> list[Version]:
        refs = await info.context.newest.load((self.urn, checked_first(first)))
        found = await info.context.versions.load_many(refs)
        return [Version(beside=one) for one in found if one is not None]

    @strawberry.field
    async def aliases(self, info: Context) -> list[Alias]:
        found = await info.context.pointers.load(self.urn)
        return [Alias(name=name, version=version) for name, version in sorted(found.aliases.items())]

    @told("the version in production")
    async def production(self, info: Context) -> Version | None:
        found = await info.context.pointers.load(self.urn)
        return None if found.production is None else await version_at(info, (self.urn, found.production))


@strawberry.type(description="A page of assets; `next` is what the next one continues after.")
class Assets:
    items: list[Asset]
    next: str | None


@strawberry.type(description="The first versions that a search finds, and how many it finds.")
class Found:
    items: list[Version]
    total: int


@strawberry.input(description="A tag and its value.")
class Tag:
    key: str
    value: str


@strawberry.type
class Query:
    @strawberry.field
    async def asset(self, info: Context, urn: str) -> Asset | None:
        return await asset_at(info, urn)

    @told("assets by URN")
    async def assets(
        self, info: Context, kind: str | None = None, after: str = "", first: First = USUAL_FIRST
    ) -> Assets:
        if kind is not None and kind not in KINDS:
            raise Invalid(f"kind takes one of {', '.join(KINDS)}")
        most = checked_first(first)
        rows = await info.context.assets_after(kind, _text(after), most + 1)
        more = rows[most - 1]["urn"] if len(rows) > most else None
        return Assets(items=[Asset.of(row) for row in rows[:most]], next=more)

    @strawberry.field
    async def version(self, info: Context, urn: str, version: int) -> Version | None:
        return await version_at(info, (_text(urn), version)) if 1 <= version <= LAST_VERSION else None

    @told("the version that an alias points at")
    async def aliased(self, info: Context, urn: str, alias: str) -> Version | None:
        found = (await info.context.pointers.load(_text(urn))).aliases.get(alias)
        return None if found is None else await version_at(info, (urn, found))

    @told("by a filter as GET /search takes it, words, kind and tags; newest first")
    async def search(
        self,
        info: Context,
        q: str = "",
        filter: str = "",
        kind: str | None = None,
        tags: list[Tag] | None = None,
        first: First = USUAL_FIRST,
    ) -> Found:
        if len(q) > 1000 or len(filter) > LONGEST or len(tags or ()) > 20:
            raise Invalid(f"q takes 1000 characters, filter {LONGEST}, and there are 20 tags at most")
        parts: list[Question] = [parse(_text(filter))]
        parts += [Is("kind", (_text(kind),))] if kind is not None else []
        parts += [Is(keyed("tag", _text(tag.key)), (_text(tag.value),)) for tag in tags or ()]
        refs, total = await info.context.search(Asked(both(*parts), _text(q)), checked_first(first))
        found = await info.context.versions.load_many(refs)
        return Found(items=[Version(beside=one) for one in found if one is not None], total=total)

    @told("around any node: mm:model/x@3, run:17, group:<name>, …")
    async def lineage(self, info: Context, node: str, direction: str = "both", depth: int = 3) -> Lineage:
        if direction not in ("upstream", "downstream", "both"):
            raise Invalid("direction takes upstream, downstream or both")
        return await walked(info, _text(node)[:1000], cast(Direction, direction), depth)

    @strawberry.field
    async def run(self, info: Context, id: str) -> Run | None:
        return await run_at(info, _text(id))


async def asset_at(info: Context, urn: str) -> Asset | None:
    row = await info.context.assets.load(_text(urn))
    return None if row is None else Asset.of(row)


async def version_at(info: Context, ref: Ref) -> Version | None:
    found = await info.context.versions.load(ref)
    return None if found is None else Version(beside=found)


async def run_at(info: Context, name: str) -> Run | None:
    found = await info.context.facts.load(f"run:{name}")
    if found is None:
        return None
    return Run(id=name, job=found["job"], state=found["state"], ended_at=found["ended_at"])


def _text(text: str) -> str:
    """Raises Invalid for what no column holds."""
    if "\x00" in text:
        raise Invalid("a text holds a NUL character, which nothing here takes")
    return text


def _json(value: Any) -> JSON:
    return cast(JSON, value)


def _each(values: list[dict[str, Any]]) -> list[JSON]:
    return [_json(value) for value in values]
