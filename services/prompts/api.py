"""HTTP of prompts: publish, read, compare, label."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.prompts.domain import LATEST, Content
from services.prompts.handlers import Handlers, shown
from services.prompts.store import PromptVersion
from shared.errors import Invalid
from shared.events.base import Moment, Name
from shared.http import Page, PageToken, etag, matches, require
from shared.http.edge import StrictRoute
from shared.identity import Principal

Reader = Annotated[Principal, require("read", "prompt")]
Publisher = Annotated[Principal, require("submit", "prompt")]
Mover = Annotated[Principal, require("move", "prompt")]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
Number = Annotated[int, Query(ge=1, le=2**31 - 1)]
Size = Annotated[int, Query(ge=1, le=500)]
MADE_UP = "page_token is not one that was given out here; start without it"


class NewVersion(Content):
    """A version to publish."""

    commit_message: str = Field(default="", max_length=2000)


class VersionView(BaseModel):
    """A version; `state` says what the registry made of it, `labels` which point at it now."""

    name: str
    version: int
    digest: str
    content: dict[str, Any]
    commit_message: str
    author: str
    submission_id: UUID
    state: str
    asset_version: int | None
    asset_digest: str | None
    code: str | None
    reason: str | None
    published_at: datetime
    labels: list[str] = []

    @classmethod
    def of(cls, version: PromptVersion, labels: list[str] | None = None) -> VersionView:
        return cls(**shown(version), labels=labels or [])


class PromptView(BaseModel):
    name: str
    last_version: int


class MoveBody(BaseModel):
    """Where a label is to point, and why."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, le=2**31 - 1)
    reason: str = Field(default="", max_length=2000)


class MoveView(BaseModel):
    label: str
    before: int | None
    after: int | None
    reason: str
    actor: str
    at: datetime


class LabelView(MoveView):
    """Where a label points, with all of its moves, newest first."""

    history: list[MoveView] = []


def router(handlers: Handlers) -> APIRouter:
    """`/prompts/v1`."""
    routes = APIRouter(prefix="/prompts/v1", route_class=StrictRoute, tags=["prompts"])

    @routes.post("/prompts/{name}/versions", status_code=201)
    async def publish(name: Name, body: NewVersion, caller: Publisher) -> VersionView:
        """Publish the next version; it is final, and submitted to the registry."""
        content = Content(**{field: getattr(body, field) for field in Content.model_fields})
        return VersionView.of(await handlers.publish(caller, name, content, body.commit_message))

    @routes.get("/prompts")
    async def prompts(caller: Reader, page_size: Size = 50, page_token: str | None = None) -> Page[PromptView]:
        """Prompts by name."""
        token = PageToken("prompts")
        after = token.read(page_token)
        if after is not None and not (len(after) == 1 and isinstance(after[0], str) and "\x00" not in after[0]):
            raise Invalid(MADE_UP)
        found = await handlers.listed(caller, after[0] if after else "", page_size + 1)
        page = [PromptView(name=name, last_version=last) for name, last in found[:page_size]]
        following = token.make([page[-1].name]) if len(found) > page_size else None
        return Page(items=page, next_page_token=following)

    @routes.get("/prompts/{name}")
    async def read(
        name: Name,
        caller: Reader,
        version: Number | None = None,
        label: Label = LATEST,
        at: Moment | None = None,
    ) -> VersionView:
        """One version: by number, else by label (`latest` without one), as of a time."""
        return VersionView.of(*await handlers.read(caller, name, version=version, label=label, at=at))

    @routes.get("/prompts/{name}/versions")
    async def versions(
        name: Name, caller: Reader, page_size: Size = 50, page_token: str | None = None
    ) -> Page[VersionView]:
        """Versions, newest first."""
        token = PageToken("versions", name)
        after = token.read(page_token)
        if after is not None and not (len(after) == 1 and type(after[0]) is int and 0 < after[0] < 2**31):
            raise Invalid(MADE_UP)
        found = await handlers.versions(caller, name, after[0] if after else 2**31 - 1, page_size + 1)
        page = [VersionView.of(version) for version in found[:page_size]]
        following = token.make([page[-1].version]) if len(found) > page_size else None
        return Page(items=page, next_page_token=following)

    @routes.get("/prompts/{name}/diff")
    async def diff(name: Name, before: Number, after: Number, caller: Reader) -> dict[str, str]:
        """The unified diff of two versions."""
        return {"diff": await handlers.diff(caller, name, before, after)}

    @routes.get("/prompts/{name}/labels/{label}")
    async def label_of(
        name: Name, label: Label, caller: Reader, response: Response, at: Moment | None = None
    ) -> LabelView:
        """Where a label points, now or at a time; its ETag is what a move has to name."""
        move, history = await handlers.label(caller, name, label, at)
        response.headers["etag"] = etag(history[0].id)
        return LabelView(**MoveView(**_of(move)).model_dump(), history=[MoveView(**_of(entry)) for entry in history])

    @routes.put("/prompts/{name}/labels/{label}")
    async def move(
        name: Name,
        label: Label,
        body: MoveBody,
        caller: Mover,
        response: Response,
        if_match: Annotated[str | None, Header(max_length=200)] = None,
    ) -> MoveView:
        """Move a label. The first move needs no If-Match; every later one names the state that it was decided on."""

        def match(state: int) -> None:
            matches(if_match, etag(state), required=state != 0)

        moved = await handlers.move_label(caller, name, label, body.version, body.reason, match)
        response.headers["etag"] = etag(moved.id)
        return MoveView(**_of(moved))

    return routes


def _of(move: Any) -> dict[str, Any]:
    return {name: getattr(move, name) for name in MoveView.model_fields}
