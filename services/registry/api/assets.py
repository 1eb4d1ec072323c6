"""Assets and versions with everything next to them, and search."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from services.registry.api.parts import (
    NO_NUL,
    PREFIX,
    MoveView,
    Number,
    Reader,
    Size,
    StandingView,
    Token,
    VersionView,
    after,
)
from services.registry.domain.assets import Stage, tag_term
from services.registry.handlers import Handlers
from services.registry.handlers.reading import LAST_NUMBER
from shared.errors import Invalid
from shared.events.base import Kind, Name
from shared.http import Page, PageToken
from shared.http.edge import StrictRoute

Term = Annotated[str | None, Query(min_length=1, max_length=200, pattern=NO_NUL)]
KNOWN = {"q", "kind", "name", "stage", "task", "licence", "author", "page_size", "page_token"}


class AssetView(BaseModel):
    """An asset: its newest version, where its aliases point, the version in production."""

    urn: str
    versions: int
    production: int | None
    aliases: list[MoveView]
    newest: StandingView


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["assets"])

    @routes.get("/search")
    async def search(
        request: Request,
        caller: Reader,
        q: Annotated[str, Query(max_length=1000, pattern=NO_NUL)] = "",
        kind: Kind | None = None,
        stage: Stage | None = None,
        name: Term = None,
        task: Term = None,
        licence: Term = None,
        author: Term = None,
        page_size: Size = 50,
        page_token: Token = None,
    ) -> Page[VersionView]:
        """Versions that fit everything that is asked, newest first: words in `q`, tags as `tag.<key>=<value>`."""
        fields = {"kind": kind, "stage": stage, "name": name, "task": task, "licence": licence, "author": author}
        terms = sorted([f"{field}:{value}" for field, value in fields.items() if value is not None] + _tags(request))
        token = PageToken("search", caller.workspace, q, terms)
        before = after(token, page_token, LAST_NUMBER)
        found = await handlers.reading.search(caller, terms, q, before, page_size + 1)
        more = token.make([found[page_size - 1].version.number]) if len(found) > page_size else None
        return Page(items=[VersionView.of(standing) for standing in found[:page_size]], next_page_token=more)

    @routes.get("/assets/{kind}/{name}/versions")
    async def versions(
        kind: Kind, name: Name, caller: Reader, page_size: Size = 50, page_token: Token = None
    ) -> Page[VersionView]:
        """Newest first."""
        token = PageToken("versions", caller.workspace, kind, name)
        found = await handlers.reading.versions(caller, f"mm:{kind}/{name}", after(token, page_token), page_size + 1)
        more = token.make([found[page_size - 1].version.ref.version]) if len(found) > page_size else None
        return Page(items=[VersionView.of(standing) for standing in found[:page_size]], next_page_token=more)

    @routes.get("/assets/{kind}/{name}/versions/{number}")
    async def version(kind: Kind, name: Name, number: Number, caller: Reader) -> StandingView:
        """One version with its evaluations, gate, approval, waivers, deployments, groups and classification."""
        return StandingView.of(await handlers.reading.version(caller, f"mm:{kind}/{name}", number))

    @routes.get("/assets/{kind}/{name}")
    async def asset(kind: Kind, name: Name, caller: Reader) -> AssetView:
        """An asset by its newest version."""
        urn = f"mm:{kind}/{name}"
        found = await handlers.reading.asset(caller, urn)
        return AssetView(
            urn=urn,
            versions=found.newest.version.ref.version,
            production=found.production,
            aliases=[MoveView.of(urn, move) for move in found.aliases],
            newest=StandingView.of(found.newest),
        )

    return routes


def _tags(request: Request) -> list[str]:
    """`tag.<key>=<value>` as terms. Raises Invalid for a parameter that is none of search's."""
    terms = []
    for key, value in request.query_params.multi_items():
        if key.startswith("tag.") and len(key) > 4 and "\x00" not in key + value:
            terms.append(tag_term(key[4:], value))
        elif key not in KNOWN:
            raise Invalid(f"search does not know {key[:100]!r}; it takes {', '.join(sorted(KNOWN))} and tag.<key>")
    if len(terms) > 20:
        raise Invalid("search takes 20 tags at most")
    return terms
