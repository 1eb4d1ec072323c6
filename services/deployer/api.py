"""The deployer over HTTP: /deployer/v1."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from services.deployer.handlers import Account, Handlers, Wish
from services.deployer.store import Deployment
from shared.events.base import Actor, AssetRef, Digest, Json, Urn
from shared.http import Page, PageToken, require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

LAST = 2**63 - 1
Reader = Annotated[Principal, require("read", "deployment")]
Deployer = Annotated[Principal, require("deploy", "deployment")]
StateName = Literal[
    "requested", "approved", "bundled", "loaded", "completed", "restoring", "undeploying", "undeployed", "failed"
]


class VersionBody(BaseModel):
    """The version to deploy; with its digest, it must be the registered one."""

    model_config = ConfigDict(extra="forbid")

    urn: Urn
    version: int = Field(ge=1, le=2**31 - 1)
    digest: Digest | None = None


class DeploymentBody(BaseModel):
    """A wish to have a version on a target; the same `request_id` again is the same wish."""

    model_config = ConfigDict(extra="forbid")

    asset: VersionBody
    target: str = Field(default="local", min_length=1, max_length=100)
    parameters: Json = Field(default_factory=dict)
    request_id: UUID | None = None


class DeploymentView(BaseModel):
    """A deployment: how far it got, where it answers, why it did not. `endpoint` is the protocol's base URL.

    `complaint` says why a completed one would not be deployed today, though it answers; null when it would.
    """

    deployment_id: UUID
    request_id: UUID
    asset: AssetRef
    target: str
    parameters: dict[str, Any]
    requested_by: Actor
    state: StateName
    model_name: str | None
    endpoint: str | None
    bundle: str | None
    approval_id: UUID | None
    code: str | None
    reason: str | None
    complaint: str | None
    tries: int
    requested_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, found: Deployment) -> DeploymentView:
        return cls(**{name: getattr(found, name) for name in cls.model_fields})


class StepView(BaseModel):
    """One thing that was done."""

    step: str
    detail: str
    at: datetime


class DecisionView(BaseModel):
    """The decision about the version that is in force now; `statement` is the DSSE envelope to verify."""

    approval_id: UUID
    decision: str
    reason: str
    statement: dict[str, Any] | None


class AccountView(BaseModel):
    """A deployment with its steps and its evidence."""

    deployment: DeploymentView
    steps: list[StepView]
    decision: DecisionView | None
    groups: list[str]

    @classmethod
    def of(cls, found: Account) -> AccountView:
        decision = found.decision and DecisionView(
            approval_id=found.decision.approval_id,
            decision=found.decision.decision,
            reason=found.decision.reason,
            statement=found.decision.statement.model_dump(by_alias=True) if found.decision.statement else None,
        )
        return cls(
            deployment=DeploymentView.of(found.deployment),
            steps=[StepView(**step) for step in found.steps],
            decision=decision,
            groups=found.groups,
        )


def router(handlers: Handlers) -> APIRouter:
    """Every route."""
    routes = APIRouter(prefix="/deployer/v1", route_class=StrictRoute)

    @routes.post("/deployments", status_code=202)
    async def deploy(body: DeploymentBody, caller: Deployer) -> DeploymentView:
        """Ask for a version on a target. Whether an approval lets it through is verified when it is done."""
        asset = body.asset
        wish = Wish(asset.urn, asset.version, asset.digest, body.target, body.parameters, body.request_id)
        return DeploymentView.of(await handlers.request(caller, wish))

    @routes.get("/deployments")
    async def list_deployments(
        caller: Reader,
        urn: Annotated[Urn | None, Query()] = None,
        state: Annotated[StateName | None, Query()] = None,
        page_size: Annotated[int, Query(ge=1, le=500)] = 50,
        page_token: Annotated[str | None, Query(max_length=500)] = None,
    ) -> Page[DeploymentView]:
        """Newest first."""
        token = PageToken("deployments", caller.workspace, urn, state)
        before = (token.read(page_token) or [LAST])[0]
        found = await handlers.deployments(caller.workspace, urn, state, before, page_size + 1)
        more = token.make([found[page_size - 1].number]) if len(found) > page_size else None
        return Page(items=[DeploymentView.of(one) for one in found[:page_size]], next_page_token=more)

    @routes.get("/deployments/{deployment_id}")
    async def get_deployment(deployment_id: UUID, caller: Reader) -> AccountView:
        """One deployment: every step, the decision in force about its version, the groups that route to it."""
        return AccountView.of(await handlers.account(caller.workspace, deployment_id))

    @routes.post("/deployments/{deployment_id}:undeploy", status_code=202)
    async def undeploy(deployment_id: UUID, caller: Deployer) -> DeploymentView:
        """Take it from its target. Refused while a group routes to the version."""
        return DeploymentView.of(await handlers.undeploy(caller, deployment_id))

    return routes
