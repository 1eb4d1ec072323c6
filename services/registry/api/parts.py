"""What the routes share: who may call, what a path or query takes, and the shapes of answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import AwareDatetime, BaseModel, StringConstraints

from services.registry.handlers.reading import LAST, LAST_NUMBER, Standing
from services.registry.store import Move
from shared.errors import Invalid
from shared.events.base import Actor
from shared.http import PageToken
from shared.http.callers import require
from shared.identity.principal import Principal

Reader = Annotated[Principal, require("read", "asset")]
Submitter = Annotated[Principal, require("submit", "asset")]
Mover = Annotated[Principal, require("move", "asset")]

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

    @classmethod
    def of(cls, standing: Standing) -> VersionView:
        return cls.model_validate(_fields(standing))


class StandingView(VersionView):
    """A version and everything next to it, each newest first."""

    evaluations: list[dict[str, Any]]
    gate: dict[str, Any] | None
    approval: dict[str, Any] | None
    waivers: list[dict[str, Any]]
    deployments: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    classification: dict[str, Any] | None

    @classmethod
    def of(cls, standing: Standing) -> StandingView:
        def said(kind: str) -> list[dict[str, Any]]:
            return [finding.document for finding in standing.findings if finding.kind == kind]

        return cls.model_validate(
            {
                **_fields(standing),
                "evaluations": said("evaluation"),
                "gate": next(iter(said("gate")), None),
                "approval": next(iter(said("approval")), None),
                "waivers": said("waiver"),
                "deployments": said("deployment"),
                "groups": [group for group in said("group") if group["serves"]],
                "classification": next(iter(said("classification")), None),
            }
        )


def _fields(standing: Standing) -> dict[str, Any]:
    version = standing.version
    return {
        "urn": version.ref.urn,
        "kind": version.content["kind"],
        "name": version.ref.name,
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
