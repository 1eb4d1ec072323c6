"""Ramps over HTTP: begun with a plan, looked at, paused, resumed, aborted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, Field

from services.router.api.groups import Body, Reason, expected
from services.router.handlers.groups import By
from services.router.handlers.ramps import Ramps, Told
from services.router.ramps.plan import Plan
from services.router.ramps.store import Ramp
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Reader = Annotated[Principal, require("read", "group")]
Router = Annotated[Principal, require("route", "group")]
Mover = Annotated[Principal, require("move", "group")]


class NewRamp(Body):
    """A plan for the group as it was read (If-Match or `expected_revision`; without either, as it is now)."""

    plan: Plan
    reason: Reason = ""
    expected_revision: int | None = Field(default=None, ge=1)


class Command(Body):
    """Why, for the log."""

    reason: Reason = ""


class EntryView(BaseModel):
    at: datetime
    what: str
    details: dict[str, Any]


class RampView(BaseModel):
    """`step` counts from 0 and is the number of steps when all are done. `why` says what a paused ramp waits for."""

    id: UUID
    group: str
    phase: str
    step: int
    why: str | None
    weight_bp: int
    mirror_bp: int
    revision: int
    first_revision: int
    promoted_revision: int | None
    who: str
    created_at: datetime
    entered_at: datetime
    next_at: datetime | None
    tallies: dict[str, Any]
    plan: dict[str, Any]
    log: list[EntryView] = []

    @classmethod
    def of(cls, ramp: Ramp) -> RampView:
        state = ramp.state
        return cls(
            id=ramp.id, group=ramp.group, phase=state.phase.value, step=state.step,
            why=state.why.value if state.why else None, weight_bp=state.weight_bp, mirror_bp=state.mirror_bp,
            revision=ramp.revision, first_revision=ramp.first_revision, promoted_revision=state.promoted_revision,
            who=ramp.actor.id, created_at=ramp.created_at, entered_at=state.entered_at, next_at=ramp.next_at,
            tallies={key: tally.model_dump() for key, tally in state.tallies.items()},
            plan=ramp.plan.model_dump(mode="json", by_alias=True, exclude_none=True),
        )  # fmt: skip

    @classmethod
    def with_log(cls, told: Told) -> RampView:
        log = [EntryView(at=one.at, what=one.what, details=one.details) for one in told.log]
        return cls.of(told.ramp).model_copy(update={"log": log})


def router(ramps: Ramps) -> APIRouter:
    routes = APIRouter(prefix="/groups/{group}", route_class=StrictRoute, tags=["ramps"])

    @routes.post("/ramp", status_code=201)
    async def start(
        group: str,
        body: NewRamp,
        caller: Mover,
        _: Router,
        response: Response,
        if_match: Annotated[str | None, Header()] = None,
    ) -> RampView:
        """Begin a ramp, one at a time in a group. It acts as its starter, who must be allowed to route and promote."""
        asked = if_match is not None or body.expected_revision is not None
        revision = expected(if_match, body.expected_revision) if asked else None
        by = By(caller.workspace, caller.actor, body.reason, revision)
        ramp = await ramps.start(by, group, body.plan)
        response.headers["location"] = f"/router/v1/groups/{group}/ramp"
        return RampView.of(ramp)

    @routes.get("/ramp")
    async def get_ramp(group: str, caller: Reader) -> RampView:
        """The group's ramp, or the one that it had last, with its log, the latest first."""
        return RampView.with_log(await ramps.told(caller.workspace, group))

    @routes.post("/ramp:pause")
    async def pause(group: str, body: Command, caller: Router) -> RampView:
        """Stay as it is until resumed."""
        return RampView.of(await ramps.pause(By(caller.workspace, caller.actor, body.reason), group))

    @routes.post("/ramp:resume")
    async def resume(group: str, body: Command, caller: Router) -> RampView:
        """Go on, from the group as it is now: also past a pause without a duration."""
        return RampView.of(await ramps.resume(By(caller.workspace, caller.actor, body.reason), group))

    @routes.post("/ramp:abort")
    async def abort(group: str, body: Command, caller: Router) -> RampView:
        """End it and take the challenger's traffic back; a promotion that is still watched is rolled back."""
        return RampView.of(await ramps.abort(By(caller.workspace, caller.actor, body.reason), group))

    return routes
