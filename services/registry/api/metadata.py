"""Metadata: changed under If-Match, told and logged; and versions yanked."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.registry.api.parts import PREFIX, Mover, Number, Reader, Reason, Size, Submitter, Token, after
from services.registry.domain.assets import Change, Version
from services.registry.handlers import Handlers
from services.registry.handlers.catalog import Wanted, asset_etag, version_etag
from services.registry.handlers.pointers import Expected
from shared.events.base import Actor, Kind, Name, Title
from shared.http import Page, PageToken
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Match = Annotated[str | None, Header(max_length=200)]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]
TagKey = Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=r"^[^\x00]+$")]
TagValue = Annotated[str, StringConstraints(max_length=100_000, pattern=r"^[^\x00]*$")]
ASSET = "/assets/{kind}/{name}"


class VersionMetadata(BaseModel):
    """What to change; a tag that is null is removed, a field that is absent stays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    description: Text | None = None
    tags: dict[TagKey, TagValue | None] = Field(default_factory=dict, max_length=1000)
    reason: Reason | None = None


class AssetMetadata(VersionMetadata):
    """The same for an asset, which can be called something else, too; its URN stays."""

    title: Title | None = None


class Yank(BaseModel):
    """Why a version is hidden."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class MetadataView(BaseModel):
    """Metadata as they are now."""

    urn: str
    version: int | None
    title: str
    description: str
    tags: dict[str, str]
    revision: int
    updated_at: datetime | None
    yanked_at: datetime | None = None


class ChangeView(BaseModel):
    """One change: `field` is description, title, yanked or tag:<key>."""

    revision: int
    field: str
    before: str | None
    after: str | None
    who: Actor
    reason: str
    at: datetime

    @classmethod
    def of(cls, change: Change) -> ChangeView:
        return cls(
            revision=change.revision,
            field=change.field,
            before=change.before,
            after=change.after,
            who=change.who,
            reason=change.reason,
            at=change.at,
        )


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["metadata"])
    catalog = handlers.catalog

    @routes.patch(ASSET)
    async def describe_asset(
        kind: Kind, name: Name, wanted: AssetMetadata, caller: Submitter, response: Response, if_match: Match = None
    ) -> MetadataView:
        """Another title, description or tags; If-Match names the ETag of the asset as you read it."""
        asked = Wanted(wanted.description, wanted.title, wanted.tags, wanted.reason or "")
        asset = await catalog.describe_asset(caller, f"mm:{kind}/{name}", asked, Expected(if_match))
        response.headers["etag"] = asset_etag(asset)
        return MetadataView(
            urn=asset.urn,
            version=None,
            title=asset.title,
            description=asset.description,
            tags=asset.tags,
            revision=asset.revision,
            updated_at=asset.updated_at,
        )

    @routes.patch(ASSET + "/versions/{number}")
    async def describe_version(
        kind: Kind,
        name: Name,
        number: Number,
        wanted: VersionMetadata,
        caller: Submitter,
        response: Response,
        if_match: Match = None,
    ) -> MetadataView:
        """Another description or other tags; what the version's digest covers cannot be changed."""
        asked = Wanted(wanted.description, None, wanted.tags, wanted.reason or "")
        version = await catalog.describe_version(caller, f"mm:{kind}/{name}", number, asked, Expected(if_match))
        response.headers["etag"] = version_etag(version)
        return _of_version(version)

    @routes.post(ASSET + "/versions/{number}/yank")
    async def yank(
        kind: Kind, name: Name, number: Number, why: Yank, caller: Mover, response: Response, if_match: Match = None
    ) -> MetadataView:
        """Hide a version. What is in use is refused, with what uses it; nothing is deleted, no number given again."""
        version = await catalog.yank(caller, f"mm:{kind}/{name}", number, why.reason, Expected(if_match))
        response.headers["etag"] = version_etag(version)
        return _of_version(version)

    @routes.get(ASSET + "/metadata/history")
    async def asset_changes(
        kind: Kind, name: Name, caller: Reader, page_size: Size = 50, page_token: Token = None
    ) -> Page[ChangeView]:
        """Every change of the asset's metadata, newest first."""
        return await _changes(caller, f"mm:{kind}/{name}", 0, page_size, page_token)

    @routes.get(ASSET + "/versions/{number}/metadata/history")
    async def version_changes(
        kind: Kind, name: Name, number: Number, caller: Reader, page_size: Size = 50, page_token: Token = None
    ) -> Page[ChangeView]:
        """Every change of the version's metadata, newest first."""
        return await _changes(caller, f"mm:{kind}/{name}", number, page_size, page_token)

    async def _changes(
        caller: Principal, urn: str, version: int, page_size: int, page_token: str | None
    ) -> Page[ChangeView]:
        token = PageToken("metadata", caller.workspace, urn, version)
        found = await catalog.changes(caller, urn, version, after(token, page_token), page_size + 1)
        # Changes that were made together have one revision, and stay together on one page.
        kept = [change for change in found if len(found) <= page_size or change.revision > found[-1].revision]
        more = token.make([kept[-1].revision]) if kept and len(found) > page_size else None
        return Page(items=[ChangeView.of(change) for change in kept or found], next_page_token=more)

    return routes


def _of_version(version: Version) -> MetadataView:
    return MetadataView(
        urn=version.ref.urn,
        version=version.ref.version,
        title=version.title,
        description=version.description,
        tags=version.tags,
        revision=version.revision,
        updated_at=version.updated_at,
        yanked_at=version.yanked_at,
    )
