"""Assets and versions with everything next to them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
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
from services.registry.handlers import Handlers
from services.registry.handlers.catalog import asset_etag, version_etag
from services.registry.handlers.reading import AssetStanding
from shared.events.base import Kind, Name
from shared.events.names import LONGEST_TITLE
from shared.http import Page, PageToken
from shared.http.edge import StrictRoute

Called = Annotated[str, Query(min_length=1, max_length=LONGEST_TITLE, pattern=NO_NUL)]


class AssetView(BaseModel):
    """An asset: its newest version, where its aliases point, the version in production."""

    urn: str
    title: str
    description: str
    tags: dict[str, str]
    versions: int
    production: int | None
    aliases: list[MoveView]
    newest: StandingView | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, found: AssetStanding) -> AssetView:
        asset = found.asset
        return cls(
            urn=asset.urn,
            title=asset.title,
            description=asset.description,
            tags=asset.tags,
            versions=asset.last_version,
            production=found.production,
            aliases=[MoveView.of(asset.urn, move) for move in found.aliases],
            newest=StandingView.of(found.newest) if found.newest else None,
            created_at=asset.created_at,
            updated_at=asset.updated_at,
        )


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["assets"])

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
    async def version(kind: Kind, name: Name, number: Number, caller: Reader, response: Response) -> StandingView:
        """One version with its evaluations, gate, approval, waivers, deployments, groups and classification.

        The ETag is of its metadata. A yanked version is shown to who asks for it by its number.
        """
        found = await handlers.reading.version(caller, f"mm:{kind}/{name}", number)
        response.headers["etag"] = version_etag(found.version)
        return StandingView.of(found)

    @routes.get("/assets/{kind}/{name}")
    async def asset(kind: Kind, name: Name, caller: Reader, response: Response) -> AssetView:
        """An asset by its newest version; the ETag is of its metadata."""
        found = await handlers.reading.asset(caller, f"mm:{kind}/{name}")
        response.headers["etag"] = asset_etag(found.asset)
        return AssetView.of(found)

    @routes.get("/assets/{kind}")
    async def called(kind: Kind, title: Called, caller: Reader, response: Response) -> AssetView:
        """An asset by what people call it, `?title=Credit PD (v2)`, or by its name."""
        found = await handlers.reading.called(caller, kind, title)
        response.headers["etag"] = asset_etag(found.asset)
        return AssetView.of(found)

    return routes
