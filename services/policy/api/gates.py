"""Gates over HTTP: rules in force, every version of them, publishing a new one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.policy.api.values import Instant, Text, VersionNumber
from services.policy.handlers import Gates
from services.policy.store import Row
from shared.events.base import Actor
from shared.http import etag, require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

GateName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,59}$")]
MeasureName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,300}$")]


class RuleBody(BaseModel):
    """`{column}` in `measure` stands for each sensitive column of the golden set."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    measure: MeasureName
    operator: Literal[">=", "<="]
    threshold: float
    on: Literal["interval", "value"] = "interval"


class GateBody(BaseModel):
    """The rules of a gate; without `unverified_author` the installation's setting holds."""

    model_config = ConfigDict(extra="forbid")

    rules: list[RuleBody] = Field(min_length=1, max_length=200)
    unverified_author: Literal["allow", "review", "reject"] | None = None
    description: str = Field(default="", max_length=4000)


class GateVersion(BaseModel):
    """One version of a gate's rules."""

    name: str
    version: int
    document: dict[str, Any]
    digest: str
    actor: Actor
    reason: str
    published_at: datetime

    @classmethod
    def of(cls, row: Row) -> GateVersion:
        return cls(
            name=row["name"],
            version=row["number"],
            document=row["document"],
            digest=row["digest"],
            actor=Actor.model_validate(row["actor"]),
            reason=row["reason"],
            published_at=row["published_at"],
        )


def router(gates: Gates) -> APIRouter:
    routes = APIRouter(prefix="/gates", route_class=StrictRoute, tags=["gates"])

    @routes.get("")
    async def list_gates(caller: Annotated[Principal, require("read", "gate")]) -> list[str]:
        """Names of the gates; an asset is judged by the one of its task, else by `default`."""
        return await gates.names(caller.workspace)

    @routes.get("/{name}")
    async def get_gate(
        name: GateName,
        caller: Annotated[Principal, require("read", "gate")],
        response: Response,
        at: Annotated[Instant | None, Query()] = None,
    ) -> GateVersion:
        """The rules in force, or those in force at a time."""
        found = GateVersion.of(await gates.gate(caller.workspace, name, at=at))
        response.headers["etag"] = etag(found.digest)
        return found

    @routes.get("/{name}/versions")
    async def list_versions(name: GateName, caller: Annotated[Principal, require("read", "gate")]) -> list[GateVersion]:
        """Every version, newest first."""
        return [GateVersion.of(row) for row in await gates.versions(caller.workspace, name)]

    @routes.get("/{name}/versions/{number}")
    async def get_version(
        name: GateName, number: VersionNumber, caller: Annotated[Principal, require("read", "gate")]
    ) -> GateVersion:
        """One version."""
        return GateVersion.of(await gates.gate(caller.workspace, name, number=number))

    @routes.put("/{name}")
    async def publish(
        name: GateName,
        body: GateBody,
        caller: Annotated[Principal, require("configure", "gate")],
        response: Response,
        reason: Annotated[Text, Query(max_length=4000)] = "",
        if_match: Annotated[str | None, Header()] = None,
    ) -> GateVersion:
        """Publish rules; the same rules again change nothing. With If-Match, only if nobody published in between."""
        document = body.model_dump(mode="json", exclude_none=True)
        found = GateVersion.of(await gates.publish(caller.workspace, name, document, caller.actor, reason, if_match))
        response.headers["etag"] = etag(found.digest)
        return found

    return routes
