"""Groups over HTTP: made, weighted, promoted, rolled back, and what they were at any time."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.router.approval import Deployed
from services.router.domain import log_table
from services.router.handlers.deployments import Deployments
from services.router.handlers.groups import AtProvider, By, Groups, Named, arms, ref
from services.router.store import Entry
from shared.errors import PreconditionFailed, PreconditionRequired
from shared.events.base import AssetRef, Digest, Moment, Urn
from shared.events.router import Arm
from shared.http import Page, PageToken
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Reader = Annotated[Principal, require("read", "group")]
Router = Annotated[Principal, require("route", "group")]
Mover = Annotated[Principal, require("move", "group")]
Most = Annotated[int, Query(ge=1, le=200)]
IfMatch = Annotated[str | None, Header()]
Reason = Annotated[str, Field(max_length=4000)]


class Body(BaseModel):
    """What is sent; a field that is not known is refused, since it may be a misspelt one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AtUpstream(Body):
    """Which model of which provider; without a model it is the provider's own."""

    provider: str = Field(max_length=48)
    model: str = Field(default="", max_length=2048)


class Asset(Body):
    """A version; with its digest, it must be the one that is deployed or approved.

    `upstream` says that a provider answers for it and no deployment; left out, that stays as it is in the group.
    """

    urn: Urn
    version: int = Field(ge=1, le=2**31 - 1)
    digest: Digest | None = None
    upstream: AtUpstream | None = None

    def named(self) -> Named:
        upstream = AtProvider(self.upstream.provider, self.upstream.model) if self.upstream is not None else None
        return Named(self.urn, self.version, self.digest, upstream)


class NewGroup(Body):
    """`name` is judged by the domain, so that its refusal has a code of its own."""

    name: str
    champion: Asset
    reason: Reason = ""


class Weight(Body):
    """A challenger's share in basis points: 1000 is 10 %."""

    asset: Asset
    weight_bp: int


class Weights(Body):
    """All challengers there are to be; the champion has the rest."""

    challengers: list[Weight] = Field(max_length=100)
    reason: Reason = ""
    expected_revision: int | None = Field(default=None, ge=1)


class Promotion(Body):
    """The new champion. `force` promotes past a broken split of traffic, with a reason, which the evidence keeps."""

    asset: Asset
    force: bool = False
    reason: Reason = ""
    expected_revision: int | None = Field(default=None, ge=1)


class Shadowing(Body):
    """A shadow's share of the requests in basis points."""

    asset: Asset
    share_bp: int


class Shadows(Body):
    """All shadows there are to be."""

    shadows: list[Shadowing] = Field(max_length=100)
    reason: Reason = ""
    expected_revision: int | None = Field(default=None, ge=1)


class RollBack(Body):
    """Back to the champion before the last promotion."""

    reason: Reason = ""
    expected_revision: int | None = Field(default=None, ge=1)


class HostedView(BaseModel):
    """A version that a provider answers for in this group."""

    asset: AssetRef
    provider: str
    model: str


class GroupView(BaseModel):
    """A group at one revision: its arms, champion first, and how it came to be so.

    `unavailable` says why the champion of a group in force answers nowhere: the gateway then answers 503.
    """

    name: str
    revision: int
    champion: AssetRef
    arms: tuple[Arm, ...]
    hosted: tuple[HostedView, ...]
    change: str
    who: str
    why: str
    evidence: dict[str, Any]
    at: datetime
    created_at: datetime
    unit_header: str
    log_table: str
    unavailable: str | None

    @classmethod
    def of(cls, entry: Entry) -> GroupView:
        group = entry.group
        return cls(
            name=group.name, revision=group.revision, champion=ref(group.champion), arms=arms(group),
            hosted=tuple(
                HostedView(asset=ref(one.version), provider=one.provider, model=one.model) for one in group.hosted
            ),
            change=entry.change.value, who=entry.who, why=entry.why, evidence=entry.evidence, at=entry.at,
            created_at=entry.created_at, unit_header=group.unit_rule.header, log_table=log_table(group.name),
            unavailable=entry.unavailable,
        )  # fmt: skip


class DeploymentView(BaseModel):
    """Where a version answers; `objection` says why no traffic may be moved to it, null when it may."""

    asset: AssetRef
    target: str
    endpoint: str
    model_name: str
    completed_at: datetime
    objection: str | None

    @classmethod
    def of(cls, deployed: Deployed, objection: str | None) -> DeploymentView:
        return cls(
            asset=ref(deployed.version), target=deployed.target, endpoint=deployed.endpoint,
            model_name=deployed.model_name, completed_at=deployed.completed_at, objection=objection,
        )  # fmt: skip


def expected(if_match: str | None, revision: int | None) -> int:
    """The revision that was decided on, from the body or If-Match. Raises PreconditionRequired, PreconditionFailed.

    A revision that is no longer current is a 409 in either case: the compare-and-swap itself says so.
    """
    if revision is not None:
        return revision
    if if_match is None:
        raise PreconditionRequired("Send If-Match with the group's ETag, or expected_revision, as you read it.")
    quoted = re.fullmatch(r'\s*"([1-9][0-9]{0,17})"\s*', if_match)
    if quoted is None:
        raise PreconditionFailed(f"If-Match is {if_match[:60]}; a group's ETag is its revision in quotes.")
    return int(quoted[1])


def router(deployments: Deployments, groups: Groups) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["groups"])

    def shown(response: Response, entry: Entry) -> GroupView:
        response.headers["etag"] = f'"{entry.group.revision}"'
        return GroupView.of(entry)

    @routes.get("/deployments")
    async def list_deployments(
        caller: Reader, max_results: Most = 50, page_token: Annotated[str | None, Query(max_length=500)] = None
    ) -> Page[DeploymentView]:
        """Versions that answer somewhere, in the order of names."""
        token = PageToken("deployments", caller.workspace)
        urn, version = token.read(page_token) or ("", 0)
        found = await deployments.listed(caller.workspace, (str(urn), int(version)), max_results + 1)
        items = [DeploymentView.of(*one) for one in found[:max_results]]
        more = token.make([items[-1].asset.urn, items[-1].asset.version]) if len(found) > max_results else None
        return Page(items=items, next_page_token=more)

    @routes.post("/groups", status_code=201)
    async def create(body: NewGroup, caller: Router, response: Response) -> GroupView:
        """A new group and its inference table; all traffic goes to the champion."""
        by = By(caller.workspace, caller.actor, body.reason)
        entry = await groups.create(by, body.name, body.champion.named())
        response.headers["location"] = f"/router/v1/groups/{body.name}"
        return shown(response, entry)

    @routes.get("/groups")
    async def list_groups(
        caller: Reader, max_results: Most = 50, page_token: Annotated[str | None, Query(max_length=500)] = None
    ) -> Page[GroupView]:
        """Groups of the workspace, in the order of names."""
        token = PageToken("groups", caller.workspace)
        (after,) = token.read(page_token) or ("",)
        found = await groups.listed(caller.workspace, str(after), max_results + 1)
        items = [GroupView.of(entry) for entry in found[:max_results]]
        return Page(items=items, next_page_token=token.make([items[-1].name]) if len(found) > max_results else None)

    @routes.get("/groups/{group}")
    async def get_group(group: str, caller: Reader, response: Response) -> GroupView:
        """A group as it is in force; its ETag is its revision."""
        return shown(response, await groups.one(caller.workspace, group))

    @routes.put("/groups/{group}/challengers")
    async def weigh(
        group: str, body: Weights, caller: Router, response: Response, if_match: IfMatch = None
    ) -> GroupView:
        """The whole list of challengers. Nobody who saw a growing challenger flips back to the champion."""
        by = By(caller.workspace, caller.actor, body.reason, expected(if_match, body.expected_revision))
        weights = [(one.asset.named(), one.weight_bp) for one in body.challengers]
        return shown(response, await groups.weigh(by, group, weights))

    @routes.put("/groups/{group}/shadows")
    async def mirror(
        group: str, body: Shadows, caller: Router, response: Response, if_match: IfMatch = None
    ) -> GroupView:
        """The whole list of shadows: versions that are sent a share of the requests, and whose answers nobody sees."""
        by = By(caller.workspace, caller.actor, body.reason, expected(if_match, body.expected_revision))
        return shown(
            response, await groups.mirror(by, group, [(one.asset.named(), one.share_bp) for one in body.shadows])
        )

    @routes.post("/groups/{group}:promote")
    async def promote(
        group: str, body: Promotion, caller: Mover, response: Response, if_match: IfMatch = None
    ) -> GroupView:
        """A new champion, in force at every gateway within the second. Of many at once one wins, the others get 409."""
        by = By(caller.workspace, caller.actor, body.reason, expected(if_match, body.expected_revision))
        return shown(response, await groups.promote(by, group, body.asset.named(), force=body.force))

    @routes.post("/groups/{group}:rollback")
    async def roll_back(
        group: str, body: RollBack, caller: Mover, response: Response, if_match: IfMatch = None
    ) -> GroupView:
        """Back to the champion before. Needs no revision: who rolls back is in a hurry. With one, it is held to it."""
        revision = (
            None if if_match is None and body.expected_revision is None else expected(if_match, body.expected_revision)
        )
        by = By(caller.workspace, caller.actor, body.reason, revision)
        return shown(response, await groups.roll_back(by, group))

    @routes.get("/groups/{group}/history")
    async def history(group: str, caller: Reader) -> list[GroupView]:
        """Every state that the group was ever in, oldest first."""
        return [GroupView.of(entry) for entry in await groups.history(caller.workspace, group)]

    @routes.get("/groups/{group}/at")
    async def at(group: str, time: Moment, caller: Reader) -> GroupView:
        """What served the group at a moment."""
        return GroupView.of(await groups.at(caller.workspace, group, time))

    return routes
