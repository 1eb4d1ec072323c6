"""What the routes share: who may call, what a path or query takes, and the shapes of answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Path, Query, Request
from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from services.registry.handlers.reading import LAST, LAST_NUMBER, Standing
from services.registry.licences import expressions
from services.registry.licences.obligations import ORDER
from services.registry.store import Move
from shared.errors import Forbidden, Invalid
from shared.events.base import Actor
from shared.http import PageToken
from shared.http.callers import caller_of, require
from shared.identity.principal import Principal

Reader = Annotated[Principal, require("read", "asset")]
Submitter = Annotated[Principal, require("submit", "asset")]
Mover = Annotated[Principal, require("move", "asset")]
Importer = Annotated[Principal, require("configure", "asset")]


async def _uploading(request: Request) -> Principal:
    """Who may register versions, or bring in what another registry has, sends bytes first."""
    principal = await caller_of(request)
    authorizer = request.app.state.identity.authorizer
    try:
        authorizer.require(principal, "submit", "asset")
    except Forbidden:
        authorizer.require(principal, "configure", "asset")
    return principal


Uploader = Annotated[Principal, Depends(_uploading)]

Number = Annotated[int, Path(ge=1, le=LAST)]
Alias = Annotated[str, Path(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")]
Size = Annotated[int, Query(ge=1, le=500)]
Token = Annotated[str | None, Query(max_length=2000)]
At = Annotated[AwareDatetime | None, Query(description="as of this moment, e.g. 2026-11-20T10:00:00Z")]
NO_NUL = r"^[^\x00]*$"  # Postgres' text holds every character but this one
Reason = Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True, pattern=NO_NUL)]

PREFIX = "/registry/v1"


def after(token: PageToken, text: str | None, start: int = LAST) -> int:
    """The whole number that a page continues below. Raises Invalid for a token that was made up."""
    values = token.read(text)
    if values is None:
        return start
    if len(values) != 1 or type(values[0]) is not int or not 0 <= values[0] <= LAST_NUMBER:
        raise Invalid("page_token is not one that was given out here; start without it")
    return int(values[0])


class VersionView(BaseModel):
    """One immutable version; `content` is what its digest covers."""

    urn: str
    kind: str
    name: str
    title: str
    version: int
    digest: str
    stage: str
    aliases: list[str]
    content: dict[str, Any]
    artefact_size: int | None
    tags: dict[str, str]
    description: str
    metrics: dict[str, float]
    author: Actor
    submission_id: str
    registered_at: datetime
    updated_at: datetime
    yanked_at: datetime | None
    undeployable: str | None = Field(description="why this model can never be put where it serves")

    @classmethod
    def of(cls, standing: Standing) -> VersionView:
        return cls.model_validate(version_fields(standing))


class LicenceSummary(BaseModel):
    """The declared licence in short; what it stands on is judged at `judged_at`."""

    declared: str | None
    expression: str | None = Field(description="as SPDX and the table of model licences read it; none where unknown")
    commercial: str
    judged_at: str

    @classmethod
    def of(cls, standing: Standing) -> LicenceSummary:
        version = standing.version
        written = version.content["licence"]
        reading = expressions.read(written) if written else None
        rights = [{terms.commercial for terms in one} for one in reading.alternatives] if reading else []
        kind, _, name = version.urn[3:].partition("/")
        return cls(
            declared=written,
            expression=reading.expression if reading else None,
            # The best of the alternatives, each as good as its worst part.
            commercial=min((max(one, key=ORDER.index) for one in rights), key=ORDER.index, default="unknown"),
            judged_at=f"{PREFIX}/assets/{kind}/{name}/versions/{version.ref.version}/licence",
        )


class LiveFigures(BaseModel):
    """What it did in a group's traffic from `since` until `until`, as the router last said; a shadow's copies apart.

    `measures` have intervals, of 100 rows and more; `latency_ms` are quantiles without one.
    """

    role: str
    since: datetime
    until: datetime
    requests: int
    errors: int
    latency_ms: dict[str, float]
    measures: dict[str, Any]


class LiveView(BaseModel):
    """A version's share of a group's traffic now (`former`: none any more) and its figures there, newest first.

    `figures_at` compares it with the others of the group.
    """

    group: str
    role: str
    weight_bp: int
    figures: list[LiveFigures]
    figures_at: str

    @classmethod
    def of(cls, group: dict[str, Any]) -> LiveView:
        return cls(
            group=group["group"],
            role=group["role"],
            weight_bp=group["weight_bp"],
            figures=[LiveFigures.model_validate(one) for one in group["figures"]],
            figures_at=f"/router/v1/groups/{group['group']}/comparison",
        )


class StandingView(VersionView):
    """A version and everything next to it, each newest first."""

    evaluations: list[dict[str, Any]]
    gate: dict[str, Any] | None
    approval: dict[str, Any] | None
    waivers: list[dict[str, Any]]
    deployments: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    classification: dict[str, Any] | None
    risk: str | None = Field(description="risk class; none where nobody said it")
    cost: str | None = Field(description="cost class; none where nobody said it")
    licence: LicenceSummary
    consumers: list[dict[str, Any]] = Field(description="who is bound to this version")
    prompts: list[str] = Field(description="prompt versions that it closes over")
    closed_over_by: list[str] = Field(description="versions that it is part of; of a prompt, the models bound to it")
    datasets: list[dict[str, Any]] = Field(description="what it was trained and measured on, and whether that may be")
    live: list[LiveView]
    lineage: str = Field(description="where the graph around it is")
    overlaps: list[dict[str, Any]] = Field(description="rows of its training set that stand in its golden set too")

    @classmethod
    def of(cls, standing: Standing) -> StandingView:
        beside = standing.beside

        def said(kind: str) -> list[dict[str, Any]]:
            return [finding.document for finding in standing.findings if finding.kind == kind]

        return cls.model_validate(
            {
                **version_fields(standing),
                "evaluations": said("evaluation"),
                "gate": next(iter(said("gate")), None),
                "approval": next(iter(said("approval")), None),
                "waivers": said("waiver"),
                "deployments": said("deployment"),
                "groups": [group for group in said("group") if group["serves"]],
                "classification": (classes := next(iter(said("classification")), None)),
                "risk": (classes or {}).get("risk"),
                "cost": (classes or {}).get("cost"),
                "licence": LicenceSummary.of(standing),
                "consumers": list(beside.bindings) if beside else [],
                "prompts": [f"{one['urn']}@{one['version']}" for one in standing.version.content["prompts"]],
                "closed_over_by": list(beside.closed_over_by) if beside else [],
                "datasets": list(beside.datasets) if beside else [],
                "live": [LiveView.of(group) for group in beside.live] if beside else [],
                "lineage": f"{PREFIX}/lineage?node={quote(str(standing.version.ref), safe='')}",
                "overlaps": said("overlap"),
            }
        )


def version_fields(standing: Standing) -> dict[str, Any]:
    """A VersionView, before it is one."""
    version = standing.version
    return {
        "urn": version.ref.urn,
        "kind": version.content["kind"],
        "name": version.ref.name,
        "title": version.title,
        "version": version.ref.version,
        "digest": version.ref.digest,
        "stage": standing.stage,
        "aliases": list(standing.aliases),
        "content": version.content,
        "artefact_size": version.artefact_size,
        "tags": version.tags,
        "description": version.description,
        "metrics": version.metrics,
        "author": version.author,
        "submission_id": str(version.submission_id),
        "registered_at": version.registered_at,
        "updated_at": version.updated_at,
        "yanked_at": version.yanked_at,
        "undeployable": version.undeployable,
    }


class MoveView(BaseModel):
    """One move of an alias (`before` and `after` are versions) or of a version (they are stages)."""

    urn: str
    alias: str | None
    version: int | None
    revision: int
    before: int | str | None
    after: int | str | None
    who: Actor
    reason: str
    at: datetime

    @classmethod
    def of(cls, urn: str, move: Move) -> MoveView:
        return cls(
            urn=urn,
            alias=move.name,
            version=move.version,
            revision=move.revision,
            before=move.before,
            after=move.after,
            who=move.who,
            reason=move.reason,
            at=move.at,
        )
