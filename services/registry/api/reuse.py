"""Intents, bindings, and the reuse rate."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.registry.api.parts import PREFIX, Reader, Reason, Size, Submitter, Token
from services.registry.handlers import Handlers
from services.registry.handlers.reading import LAST
from services.registry.reuse.intents import MUST_EXPLAIN
from services.registry.reuse.store import Binding, BindingsAsked, Intent, Place
from services.registry.reuse.wishes import Candidate, Wish
from shared.clock import utc_now
from shared.errors import Invalid
from shared.events.base import Actor, Kind, Name, Urn
from shared.http import Page, PageToken
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Moment = Annotated[AwareDatetime | None, Query()]


class OutcomeView(BaseModel):
    """How an intent ended; `why_not` says of candidates why they do not fit."""

    outcome: Literal["reuse", "build"]
    binding_id: UUID | None
    why_not: dict[str, str]
    reason: str
    who: Actor
    at: datetime


class IntentView(BaseModel):
    """What a team described, and what was there, best first; `to_explain` are those that a build must speak of."""

    intent_id: UUID
    wish: Wish
    candidates: list[Candidate]
    to_explain: list[str]
    who: Actor
    created_at: datetime
    expires_at: datetime
    outcome: OutcomeView | None

    @classmethod
    def of(cls, intent: Intent) -> IntentView:
        outcome = intent.outcome
        return cls(
            intent_id=intent.id,
            wish=intent.wish,
            candidates=list(intent.candidates),
            to_explain=[one.node for one in intent.candidates[:MUST_EXPLAIN]],
            who=intent.who,
            created_at=intent.created_at,
            expires_at=intent.expires_at,
            outcome=None
            if outcome is None
            else OutcomeView(
                outcome=outcome.outcome,
                binding_id=outcome.binding_id,
                why_not=outcome.why_not,
                reason=outcome.reason,
                who=outcome.who,
                at=outcome.at,
            ),
        )


class Use(BaseModel):
    """A version for a consumer, and what for."""

    model_config = ConfigDict(extra="forbid")

    urn: Urn
    version: int = Field(ge=1, le=LAST)
    consumer: Name
    purpose: Reason


class Build(BaseModel):
    """Why something new is built: a sentence for each of the first candidates, by `mm:model/x@3`, and a general one."""

    model_config = ConfigDict(extra="forbid")

    why_not: dict[Annotated[str, Field(max_length=300)], Reason] = Field(default_factory=dict, max_length=50)
    reason: Reason


class Release(BaseModel):
    """Why a consumer lets go."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


class BindingView(BaseModel):
    """A consumer uses a version; no longer where `released_at` is set."""

    binding_id: UUID
    urn: str
    version: int
    consumer: str
    purpose: str
    intent_id: UUID | None
    who: Actor
    at: datetime
    released_at: datetime | None
    release_reason: str | None
    released_by: str | None

    @classmethod
    def of(cls, binding: Binding) -> BindingView:
        return cls(
            binding_id=binding.id,
            urn=binding.urn,
            version=binding.version,
            consumer=binding.consumer,
            purpose=binding.purpose,
            intent_id=binding.intent_id,
            who=binding.who,
            at=binding.at,
            released_at=binding.released_at,
            release_reason=binding.release_reason,
            released_by=binding.released_by,
        )


class RateView(BaseModel):
    """Intents of a period and how they ended; `rate` is the share of the ended ones that ended with reuse."""

    intents: int
    reused: int
    built: int
    open: int
    rate: float | None


class TaskRateView(RateView):
    """The same of one task."""

    task: str | None


class TeamRateView(RateView):
    """The same of one team."""

    team: str


class ReusedView(BaseModel):
    """An asset by how often its versions were bound."""

    urn: str
    bindings: int
    consumers: int
    active: int


class ReuseView(RateView):
    """The reuse rate, by task and team, and the assets that were bound most."""

    since: datetime
    until: datetime
    by_task: list[TaskRateView]
    by_team: list[TeamRateView]
    most_reused: list[ReusedView]


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["reuse"])
    _intents(routes, handlers)
    _bindings(routes, handlers)

    @routes.get("/reuse")
    async def rate(caller: Reader, since: Moment = None, until: Moment = None) -> ReuseView:
        """How often what is there was reused instead of built again; over the last 90 days, or another period."""
        end = until or utc_now()
        start = since or _days_before(end, 90)
        if start >= end:
            raise Invalid("since must be before until")
        found: dict[str, Any] = await handlers.intents.figures(caller, start, end)
        return ReuseView.model_validate({"since": start, "until": end, **found})

    return routes


def _days_before(end: datetime, days: int) -> datetime:
    try:
        return end - timedelta(days=days)
    except OverflowError:
        raise Invalid("until is outside of the calendar") from None


def _intents(routes: APIRouter, handlers: Handlers) -> None:
    intents = handlers.intents

    @routes.post("/intents", status_code=201)
    async def describe(wish: Wish, caller: Submitter) -> IntentView:
        """Say what you want to build, fine-tune or buy; the answer ranks what is there, with evidence and what speaks
        against it. It is good for 90 days."""
        return IntentView.of(await intents.describe(caller, wish))

    @routes.get("/intents")
    async def listed(
        caller: Reader, team: Name | None = None, page_size: Size = 50, page_token: Token = None
    ) -> Page[IntentView]:
        """Newest first."""
        token = PageToken("intents", caller.workspace, team)
        found = await intents.listed(caller, team, _below(token, page_token), page_size + 1)
        last = found[page_size - 1] if len(found) > page_size else None
        more = token.make([last.created_at.isoformat(), str(last.id)]) if last else None
        return Page(items=[IntentView.of(intent) for intent in found[:page_size]], next_page_token=more)

    @routes.get("/intents/{intent_id}")
    async def one(intent_id: UUID, caller: Reader) -> IntentView:
        """What was described, and what was there then."""
        return IntentView.of(await intents.one(caller, intent_id))

    @routes.post("/intents/{intent_id}/reuse")
    async def reuse(intent_id: UUID, wanted: Use, caller: Submitter) -> IntentView:
        """Bind a version for a consumer; the intent ends with it."""
        intent, _ = await intents.reuse(caller, intent_id, wanted.urn, wanted.version, wanted.consumer, wanted.purpose)
        return IntentView.of(intent)

    @routes.post("/intents/{intent_id}/build")
    async def build(intent_id: UUID, why: Build, caller: Submitter) -> IntentView:
        """Build all the same, and say of each of the first candidates why it does not fit; submissions and training
        requests name this intent then."""
        return IntentView.of(await intents.build(caller, intent_id, why.why_not, why.reason))


def _bindings(routes: APIRouter, handlers: Handlers) -> None:
    bindings = handlers.bindings

    @routes.post("/bindings", status_code=201)
    async def bind(wanted: Use, caller: Submitter) -> BindingView:
        """A consumer uses a version from now on; who is bound to it already gets that binding."""
        return BindingView.of(
            await bindings.create(caller, wanted.urn, wanted.version, wanted.consumer, wanted.purpose)
        )

    async def page(
        caller: Principal, asked: BindingsAsked, page_size: int, page_token: str | None
    ) -> Page[BindingView]:
        token = PageToken("bindings", caller.workspace, asked.urn, asked.version, asked.consumer, asked.active)
        found = await bindings.listed(caller, asked, _below(token, page_token), page_size + 1)
        last = found[page_size - 1] if len(found) > page_size else None
        more = token.make([last.at.isoformat(), str(last.id)]) if last else None
        return Page(items=[BindingView.of(binding) for binding in found[:page_size]], next_page_token=more)

    @routes.get("/bindings")
    async def listed(
        caller: Reader,
        consumer: Name | None = None,
        urn: Annotated[Urn | None, Query()] = None,
        released: bool = False,
        page_size: Size = 50,
        page_token: Token = None,
    ) -> Page[BindingView]:
        """Who uses what, newest first; with `released` also who did."""
        asked = BindingsAsked(urn=urn, consumer=consumer, active=not released)
        return await page(caller, asked, page_size, page_token)

    @routes.get("/assets/{kind}/{name}/bindings")
    async def of_asset(
        kind: Kind,
        name: Name,
        caller: Reader,
        version: Annotated[int | None, Query(ge=1, le=LAST)] = None,
        released: bool = False,
        page_size: Size = 50,
        page_token: Token = None,
    ) -> Page[BindingView]:
        """Who uses an asset, or one of its versions."""
        asked = BindingsAsked(urn=f"mm:{kind}/{name}", version=version, active=not released)
        return await page(caller, asked, page_size, page_token)

    @routes.get("/bindings/{binding_id}")
    async def one(binding_id: UUID, caller: Reader) -> BindingView:
        """One binding, released or not."""
        return BindingView.of(await bindings.one(caller, binding_id))

    @routes.post("/bindings/{binding_id}/release")
    async def release(binding_id: UUID, why: Release, caller: Submitter) -> BindingView:
        """The consumer uses the version no longer."""
        return BindingView.of(await bindings.release(caller, binding_id, why.reason))


def _below(token: PageToken, text: str | None) -> Place:
    """The time and id that a page continues below. Raises Invalid for a token that was made up."""
    values = token.read(text)
    if values is None:
        return None
    try:
        at, last = values
        return datetime.fromisoformat(at), UUID(last)
    except (ValueError, TypeError, AttributeError):
        raise Invalid("page_token is not one that was given out here; start without it") from None
