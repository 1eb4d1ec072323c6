"""Prompts and their versions: publish, read, compare, render."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from services.prompts.api.parts import (
    LAST,
    MADE_UP,
    PROMPT,
    Given,
    Label,
    Number,
    Publisher,
    Reader,
    Size,
    VersionView,
    pointer,
)
from services.prompts.domain.content import LATEST, Content
from services.prompts.handlers import Handlers
from services.prompts.handlers.reading import Found, Pointer
from shared.errors import Invalid
from shared.http import Page, PageToken

At = Annotated[Pointer, Depends(pointer)]
Unit = Annotated[str | None, Query(max_length=500)]
Wait = Annotated[int, Query(ge=0, le=30)]
Tag = Annotated[str, Field(min_length=1, max_length=100)]


class NewVersion(Content):
    """A version to publish. `labels` move to it with it; `tags` are the prompt's, for all of its versions."""

    commit_message: str = Field(default="", max_length=2000)
    labels: tuple[Label, ...] = Field(default=(), max_length=20)
    tags: tuple[Tag, ...] | None = Field(default=None, max_length=50)


class PromptView(BaseModel):
    name: str
    title: str
    last_version: int
    tags: list[str]


class DiffView(BaseModel):
    """`diff` is of what was written, `resolved` of what is used, with every include put in."""

    diff: str
    resolved: str
    variables: dict[str, list[str]]
    closure: list[dict[str, Any]]
    config: bool


class RenderBody(BaseModel):
    """Values of the variables, and which version."""

    model_config = ConfigDict(extra="forbid")

    variables: dict[str, Any] = Field(default_factory=dict, max_length=500)
    version: int | None = Field(default=None, ge=1, le=LAST)
    label: Label = LATEST


class RenderedView(BaseModel):
    """`text` or `messages`, as a model would be sent it."""

    name: str
    title: str
    version: int
    digest: str
    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    config: dict[str, Any]


def add(routes: APIRouter, handlers: Handlers) -> None:
    publishing, reading = handlers.publishing, handlers.reading

    @routes.post(PROMPT + "/versions", status_code=201)
    async def publish(name: Given, body: NewVersion, caller: Publisher) -> VersionView:
        """Publish the next version; it is final, and submitted to the registry. Labels need the right to move them."""
        written = Content(**{field: getattr(body, field) for field in Content.model_fields})
        if body.labels:
            handlers.labels.may_move(caller)
        made = await publishing.publish(caller, name, written, body.commit_message, labels=body.labels, tags=body.tags)
        return VersionView.of(await reading.one(caller, made.name, Pointer(made.version)))

    @routes.get("/prompts")
    async def prompts(caller: Reader, page_size: Size = 50, page_token: str | None = None) -> Page[PromptView]:
        """Prompts by name."""
        token = PageToken("prompts")
        after = token.read(page_token)
        if after is not None and not (len(after) == 1 and isinstance(after[0], str) and "\x00" not in after[0]):
            raise Invalid(MADE_UP)
        found = await reading.prompts(caller, after[0] if after else "", page_size + 1)
        page = [
            PromptView(name=one.name, title=one.title, last_version=one.last_version, tags=list(one.tags))
            for one in found[:page_size]
        ]
        following = token.make([page[-1].name]) if len(found) > page_size else None
        return Page(items=page, next_page_token=following)

    @routes.get(PROMPT)
    async def read(name: Given, caller: Reader, at: At, unit: Unit = None, wait_s: Wait = 0) -> VersionView:
        """One version: by number, else by label (`latest` without one), as of a time.

        Without a time it is answered from memory, with an ETag: `If-None-Match` gets 304, after `wait_s` seconds at the
        latest or as soon as the prompt changes. `unit` falls to an arm of the label's split; `x-mintmark-label` says to
        which. `x-mintmark-application` and `x-mintmark-group` are what the fetch is counted under.
        """
        return VersionView.of(await reading.one(caller, name, at))

    @routes.get(PROMPT + "/versions")
    async def versions(
        name: Given, caller: Reader, page_size: Size = 50, page_token: str | None = None
    ) -> Page[VersionView]:
        """Versions, newest first; those with a `proposal` are candidates until it is merged."""
        token = PageToken("versions", name)
        after = token.read(page_token)
        if after is not None and not (len(after) == 1 and type(after[0]) is int and 0 < after[0] < 2**31):
            raise Invalid(MADE_UP)
        found: list[Found]
        _, found = await reading.versions(caller, name, after[0] if after else LAST, page_size + 1)
        page = [VersionView.of(one) for one in found[:page_size]]
        following = token.make([page[-1].version]) if len(found) > page_size else None
        return Page(items=page, next_page_token=following)

    @routes.get(PROMPT + "/diff")
    async def diff(name: Given, before: Number, after: Number, caller: Reader) -> DiffView:
        """How two versions differ: text, variables and what they include."""
        return DiffView(**await reading.diff(caller, name, before, after))

    @routes.post(PROMPT + "/render")
    async def render(name: Given, body: RenderBody, caller: Reader) -> RenderedView:
        """A version with its variables filled in, each checked against its schema; within limits."""
        found, rendered = await reading.render(caller, name, Pointer(body.version, body.label), body.variables)
        version = found.version
        return RenderedView(
            name=version.name,
            title=found.prompt.title,
            version=version.version,
            digest=version.digest,
            config=version.content.get("config", {}),
            **rendered,
        )
