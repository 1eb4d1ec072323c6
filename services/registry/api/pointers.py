"""Aliases, stages and what is in production: moved under If-Match, read as of any time."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.registry.api.parts import PREFIX, Alias, At, Mover, MoveView, Number, Reader, Reason, Size, Token, after
from services.registry.domain.assets import Stage
from services.registry.handlers import Handlers
from services.registry.handlers.pointers import Expected, alias_etag, stage_etag
from services.registry.handlers.reading import LAST
from shared.events.base import Actor, Kind, Name
from shared.http import Page, PageToken
from shared.http.edge import StrictRoute

Match = Annotated[str | None, Header(max_length=200)]
ASSET = "/assets/{kind}/{name}"


class AliasMove(BaseModel):
    """Point an alias at a version, and say why."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1, le=LAST)
    reason: Reason


class StageMove(BaseModel):
    """Move a version to a stage, and say why."""

    model_config = ConfigDict(extra="forbid")

    stage: Stage
    reason: Reason


class Why(BaseModel):
    """The reason of a rollback."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class ProtectionView(BaseModel):
    """What moves only to a version that passed its gate and was approved, and whether building needs an intent."""

    aliases: list[str]
    stages: list[str]
    intents: bool


class StageView(BaseModel):
    """Where a version stands; who moved it there, why and when are absent while nobody did."""

    urn: str
    version: int
    stage: str
    revision: int
    who: Actor | None
    reason: str | None
    at: str | None


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["pointers"])

    @routes.get("/protection")
    async def protection(caller: Reader) -> ProtectionView:
        """The aliases and stages that move only to a version that was let through, as policy was last heard."""
        found = await handlers.pointers.protection(caller)
        return ProtectionView(aliases=sorted(found.aliases), stages=sorted(found.stages), intents=found.intents)

    _aliases(routes, handlers)
    _stages(routes, handlers)
    return routes


def _aliases(routes: APIRouter, handlers: Handlers) -> None:
    pointers = handlers.pointers

    @routes.get(ASSET + "/aliases")
    async def aliases(kind: Kind, name: Name, caller: Reader, at: At = None) -> Page[MoveView]:
        """Where every alias points, or pointed at a moment."""
        urn = f"mm:{kind}/{name}"
        return Page(items=[MoveView.of(urn, move) for move in await pointers.aliases(caller, urn, at)])

    @routes.get(ASSET + "/aliases/{alias}")
    async def alias(
        kind: Kind, name: Name, alias: Alias, caller: Reader, response: Response, at: At = None
    ) -> MoveView:
        """Where an alias points, or pointed at a moment; who moved it there and why. The ETag is of the present."""
        urn = f"mm:{kind}/{name}"
        move = await pointers.alias(caller, urn, alias, at)
        if at is None:
            response.headers["etag"] = alias_etag(urn, alias, move)
        return MoveView.of(urn, move)

    @routes.put(ASSET + "/aliases/{alias}")
    async def set_alias(
        kind: Kind,
        name: Name,
        alias: Alias,
        wanted: AliasMove,
        caller: Mover,
        response: Response,
        if_match: Match = None,
        if_none_match: Match = None,
    ) -> MoveView:
        """Point an alias at a version: If-Match with what you read, or If-None-Match: * for a new one."""
        urn = f"mm:{kind}/{name}"
        expected = Expected(if_match, if_none_match)
        move = await pointers.set_alias(caller, urn, alias, wanted.version, wanted.reason, expected)
        response.headers["etag"] = alias_etag(urn, alias, move)
        return MoveView.of(urn, move)

    @routes.delete(ASSET + "/aliases/{alias}")
    async def remove_alias(
        kind: Kind,
        name: Name,
        alias: Alias,
        caller: Mover,
        reason: Annotated[Reason, Query()],
        if_match: Match = None,
    ) -> MoveView:
        """Remove an alias; its history stays."""
        urn = f"mm:{kind}/{name}"
        return MoveView.of(urn, await pointers.remove_alias(caller, urn, alias, reason, Expected(if_match)))

    @routes.post(ASSET + "/aliases/{alias}/rollback")
    async def roll_back_alias(
        kind: Kind, name: Name, alias: Alias, why: Why, caller: Mover, response: Response
    ) -> MoveView:
        """Back to where the alias pointed before its last move."""
        urn = f"mm:{kind}/{name}"
        move = await pointers.roll_back_alias(caller, urn, alias, why.reason)
        response.headers["etag"] = alias_etag(urn, alias, move)
        return MoveView.of(urn, move)

    @routes.get(ASSET + "/aliases/{alias}/history")
    async def alias_history(
        kind: Kind, name: Name, alias: Alias, caller: Reader, page_size: Size = 50, page_token: Token = None
    ) -> Page[MoveView]:
        """Every move, newest first."""
        urn = f"mm:{kind}/{name}"
        token = PageToken("alias", caller.workspace, urn, alias)
        found = await pointers.alias_history(caller, urn, alias, after(token, page_token), page_size + 1)
        more = token.make([found[page_size - 1].revision]) if len(found) > page_size else None
        return Page(items=[MoveView.of(urn, move) for move in found[:page_size]], next_page_token=more)


def _stages(routes: APIRouter, handlers: Handlers) -> None:
    pointers = handlers.pointers

    @routes.get(ASSET + "/versions/{number}/stage")
    async def stage(kind: Kind, name: Name, number: Number, caller: Reader, response: Response) -> StageView:
        """Where a version stands; the ETag is what the next move must name."""
        urn = f"mm:{kind}/{name}"
        move = await pointers.stage(caller, urn, number)
        response.headers["etag"] = stage_etag(urn, number, move)
        return StageView(
            urn=urn,
            version=number,
            stage=move.after if move else "development",
            revision=move.revision if move else 0,
            who=move.who if move else None,
            reason=move.reason if move else None,
            at=move.at.isoformat() if move else None,
        )

    @routes.put(ASSET + "/versions/{number}/stage")
    async def set_stage(
        kind: Kind,
        name: Name,
        number: Number,
        wanted: StageMove,
        caller: Mover,
        response: Response,
        if_match: Match = None,
    ) -> MoveView:
        """Move a version; one that enters production sends the one that was there to monitoring."""
        urn = f"mm:{kind}/{name}"
        move = await pointers.set_stage(caller, urn, number, wanted.stage, wanted.reason, Expected(if_match))
        response.headers["etag"] = stage_etag(urn, number, move)
        return MoveView.of(urn, move)

    @routes.get(ASSET + "/versions/{number}/stage/history")
    async def stage_history(
        kind: Kind, name: Name, number: Number, caller: Reader, page_size: Size = 50, page_token: Token = None
    ) -> Page[MoveView]:
        """Every move, newest first."""
        urn = f"mm:{kind}/{name}"
        token = PageToken("stage", caller.workspace, urn, number)
        found = await pointers.stage_history(caller, urn, number, after(token, page_token), page_size + 1)
        more = token.make([found[page_size - 1].revision]) if len(found) > page_size else None
        return Page(items=[MoveView.of(urn, move) for move in found[:page_size]], next_page_token=more)

    @routes.get(ASSET + "/production")
    async def production(kind: Kind, name: Name, caller: Reader, at: At = None) -> MoveView:
        """Which version is in production, or was at a moment; who moved it there, when and why."""
        urn = f"mm:{kind}/{name}"
        return MoveView.of(urn, await pointers.production(caller, urn, at))

    @routes.post(ASSET + "/production/rollback")
    async def roll_back_production(kind: Kind, name: Name, why: Why, caller: Mover) -> MoveView:
        """The version that was in production before the present one takes its place again."""
        urn = f"mm:{kind}/{name}"
        return MoveView.of(urn, await pointers.roll_back_production(caller, urn, why.reason))
