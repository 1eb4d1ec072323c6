"""Waivers and protection over HTTP: propose, sign, withdraw; what moves only to a version that was let through."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.policy.api.approvals import VersionBody, approver_of
from services.policy.api.gates import MeasureName
from services.policy.api.values import Instant, last_id
from services.policy.handlers import Waivers
from services.policy.handlers.waivers import Proposal
from services.policy.store import Row, Waiver
from shared.events.base import Actor, AssetRef, Sentence, Urn
from shared.http import Page, PageToken, etag, require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

LONGEST_DAYS = 365
Status = Literal["proposed", "signed", "refused", "withdrawn", "expired"]
Pointer = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")]
Stage = Literal["development", "staging", "production", "monitoring", "retired"]


class WaiverBody(BaseModel):
    """`measure` is a rule's name as the gate says it, or `evaluation` where nothing was measured."""

    model_config = ConfigDict(extra="forbid")

    asset: VersionBody
    measure: MeasureName
    reason: Sentence
    expires_in_days: int = Field(default=90, ge=1, le=LONGEST_DAYS)


class DecisionBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    decision: Literal["signed", "refused"] = "signed"
    reason: Sentence


class WithdrawalBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Sentence


class WaiverView(BaseModel):
    """A waiver and what became of it; `statement` is the DSSE envelope of a signed one."""

    waiver_id: UUID
    asset: AssetRef
    measure: str
    observed: float | None
    reason: str
    status: Status
    proposer: Actor
    proposed_at: datetime
    signer: Actor | None
    decider: Actor | None
    decision_reason: str | None
    decided_at: datetime | None
    expires_at: datetime
    statement: dict[str, Any] | None

    @classmethod
    def of(cls, waiver: Waiver, now: datetime) -> WaiverView:
        expired = waiver.status == "signed" and waiver.expires_at <= now
        return cls(
            status="expired" if expired else waiver.status,
            **{name: getattr(waiver, name) for name in cls.model_fields if name != "status"},
        )


class ProtectionBody(BaseModel):
    """Aliases and stages of the registry and labels of prompts that move only to a version that was let through."""

    model_config = ConfigDict(extra="forbid")

    aliases: list[Pointer] = Field(default_factory=list, max_length=200)
    labels: list[Pointer] = Field(default_factory=list, max_length=200)
    stages: list[Stage] = Field(default_factory=list, max_length=5)
    intents: bool = Field(
        default=False, description="a new model or a training needs an intent that looked for what is there"
    )


class ProtectionView(BaseModel):
    """One version of it; version 0 is what a workspace has that never said anything."""

    version: int
    aliases: list[str]
    labels: list[str]
    stages: list[str]
    intents: bool = False
    actor: Actor
    reason: str
    published_at: datetime | None

    @classmethod
    def of(cls, row: Row) -> ProtectionView:
        return cls(
            version=row["number"],
            **row["document"],
            actor=Actor.model_validate(row["actor"]),
            reason=row["reason"],
            published_at=row["published_at"],
        )


def router(waivers: Waivers) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["waivers"])
    _waivers(routes, waivers)
    _protection(routes, waivers)
    return routes


def _waivers(routes: APIRouter, waivers: Waivers) -> None:
    @routes.get("/waivers")
    async def list_waivers(
        caller: Annotated[Principal, require("read", "waiver")],
        urn: Annotated[Urn | None, Query()] = None,
        status: Annotated[Status | None, Query()] = None,
        max_results: Annotated[int, Query(ge=1, le=200)] = 50,
        page_token: Annotated[str | None, Query(max_length=500)] = None,
    ) -> Page[WaiverView]:
        """Waivers, newest first."""
        token = PageToken("waivers", caller.workspace, urn, status)
        last = last_id(token.read(page_token))
        found = await waivers.listed(caller.workspace, urn, status, last, max_results)
        items = [WaiverView.of(waiver, waivers.now()) for waiver in found]
        return Page(items=items, next_page_token=token.make([found[-1].id]) if len(found) == max_results else None)

    @routes.get("/waivers/{waiver_id}")
    async def get_waiver(waiver_id: UUID, caller: Annotated[Principal, require("read", "waiver")]) -> WaiverView:
        """One waiver."""
        return WaiverView.of(await waivers.one(caller.workspace, waiver_id), waivers.now())

    @routes.post("/waivers", status_code=201)
    async def propose(body: WaiverBody, caller: Annotated[Principal, require("approve", "waiver")]) -> WaiverView:
        """Propose to set a rule aside for one version: the first of two signatures, never the author's."""
        wish = Proposal(
            body.asset.urn, body.asset.version, body.measure, body.reason, body.expires_in_days, body.asset.digest
        )
        return WaiverView.of(await waivers.propose(caller.workspace, caller.actor, wish), waivers.now())

    @routes.post("/waivers/{waiver_id}/decision")
    async def decide(
        waiver_id: UUID,
        body: DecisionBody,
        request: Request,
        caller: Annotated[Principal, require("approve", "waiver")],
    ) -> WaiverView:
        """The second signature, a release manager's, or a refusal. A signed waiver leads to a new gate at once."""
        signer = approver_of(request, caller)
        found = await waivers.decide(caller.workspace, signer, waiver_id, body.decision, body.reason)
        return WaiverView.of(found, waivers.now())

    @routes.post("/waivers/{waiver_id}/withdrawal")
    async def withdraw(
        waiver_id: UUID,
        body: WithdrawalBody,
        request: Request,
        caller: Annotated[Principal, require("approve", "waiver")],
    ) -> WaiverView:
        """Take a signed waiver back; an approval that rests on it ends with it."""
        found = await waivers.withdraw(caller.workspace, approver_of(request, caller), waiver_id, body.reason)
        return WaiverView.of(found, waivers.now())


def _protection(routes: APIRouter, waivers: Waivers) -> None:
    @routes.get("/protection")
    async def get_protection(
        caller: Annotated[Principal, require("read", "protection")],
        response: Response,
        at: Annotated[Instant | None, Query()] = None,
    ) -> ProtectionView:
        """What is protected, or was at a time."""
        row = await waivers.protection(caller.workspace, at)
        response.headers["etag"] = etag(row["digest"])
        return ProtectionView.of(row)

    @routes.get("/protection/versions")
    async def list_protections(caller: Annotated[Principal, require("read", "protection")]) -> list[ProtectionView]:
        """Every version, newest first."""
        return [ProtectionView.of(row) for row in await waivers.protections(caller.workspace)]

    @routes.put("/protection")
    async def protect(
        body: ProtectionBody,
        caller: Annotated[Principal, require("configure", "protection")],
        response: Response,
        reason: Annotated[str, Query(max_length=4000, pattern=r"^[^\x00]*$")] = "",
        if_match: Annotated[str | None, Header()] = None,
    ) -> ProtectionView:
        """Say what is protected from now on; registry and prompts know within a second or so."""
        document = {
            "aliases": sorted(set(body.aliases)),
            "labels": sorted(set(body.labels)),
            "stages": sorted(set(body.stages)),
            "intents": body.intents,
        }
        row = await waivers.protect(caller.workspace, document, caller.actor, reason, if_match)
        response.headers["etag"] = etag(row["digest"])
        return ProtectionView.of(row)
