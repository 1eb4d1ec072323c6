"""Labels: moved under If-Match, read as of any time, rolled back in one call."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.prompts.api.parts import LAST, PROMPT, Given, Label, Mover, Reader
from services.prompts.handlers import Handlers
from services.prompts.store import LabelMove
from shared.events.base import Moment
from shared.http import etag, matches

Match = Annotated[str | None, Header(max_length=200)]
Reason = Annotated[str, Query(max_length=2000)]


class MoveBody(BaseModel):
    """Where a label is to point, and why."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, le=LAST)
    reason: str = Field(default="", max_length=2000)


class Why(BaseModel):
    """The reason of a rollback."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=2000)


class MoveView(BaseModel):
    label: str
    before: int | None
    after: int | None
    reason: str
    actor: str
    at: datetime

    @classmethod
    def of(cls, move: LabelMove) -> MoveView:
        return cls(**{name: getattr(move, name) for name in MoveView.model_fields})


class ProtectionView(BaseModel):
    labels: list[str]


class LabelView(MoveView):
    """Where a label points, with all of its moves, newest first."""

    history: list[MoveView] = []


def add(routes: APIRouter, handlers: Handlers) -> None:
    labels = handlers.labels

    @routes.get("/protection")
    async def protection(caller: Reader) -> ProtectionView:
        """The labels that move only to a version that passed and was approved, as policy was last heard."""
        return ProtectionView(labels=await labels.protected(caller))

    @routes.get(PROMPT + "/labels")
    async def all_labels(name: Given, caller: Reader, at: Moment | None = None) -> list[MoveView]:
        """Where every label points, now or at a time, and by which move it came there."""
        return [MoveView.of(move) for move in await labels.all(caller, name, at)]

    @routes.get(PROMPT + "/labels/{label}")
    async def label_of(
        name: Given, label: Label, caller: Reader, response: Response, at: Moment | None = None
    ) -> LabelView:
        """Where a label points, now or at a time; its ETag is what a move has to name."""
        move, history = await labels.one(caller, name, label, at)
        response.headers["etag"] = etag(history[0].id)
        return LabelView(**MoveView.of(move).model_dump(), history=[MoveView.of(entry) for entry in history])

    @routes.put(PROMPT + "/labels/{label}")
    async def move(
        name: Given, label: Label, body: MoveBody, caller: Mover, response: Response, if_match: Match = None
    ) -> MoveView:
        """Move a label. The first move needs no If-Match; every later one names the state that it was decided on."""

        def match(state: int) -> None:
            matches(if_match, etag(state), required=state != 0)

        moved = await labels.move(caller, name, label, body.version, body.reason, match)
        response.headers["etag"] = etag(moved.id)
        return MoveView.of(moved)

    @routes.delete(PROMPT + "/labels/{label}")
    async def remove(
        name: Given, label: Label, caller: Mover, response: Response, reason: Reason = "", if_match: Match = None
    ) -> MoveView:
        """Take a label away; its history stays."""
        moved = await labels.remove(caller, name, label, reason, lambda state: matches(if_match, etag(state)))
        response.headers["etag"] = etag(moved.id)
        return MoveView.of(moved)

    @routes.post(PROMPT + "/labels/{label}/rollback")
    async def roll_back(name: Given, label: Label, why: Why, caller: Mover, response: Response) -> MoveView:
        """Back to where the label pointed before its last move."""
        moved = await labels.roll_back(caller, name, label, why.reason)
        response.headers["etag"] = etag(moved.id)
        return MoveView.of(moved)
