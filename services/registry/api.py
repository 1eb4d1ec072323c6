"""The registry over HTTP: /registry/v1."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from services.registry.domain import Version
from services.registry.handlers import Handlers
from services.registry.store import Submission
from shared.events.base import Actor, Digest, Kind, Name
from shared.events.upstream import AssetSubmitted
from shared.http import Page, PageToken
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Reader = Annotated[Principal, require("read", "asset")]
Submitter = Annotated[Principal, require("submit", "asset")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Most = Annotated[int, Query(ge=1, le=500)]
LAST = 2**31 - 1


class SubmissionView(BaseModel):
    """A submission and what became of it; `asset` is there once it is registered."""

    submission_id: UUID
    state: str
    urn: str
    version: int | None
    code: str | None
    reason: str | None
    author: Actor
    received_at: datetime
    decided_at: datetime | None

    @classmethod
    def of(cls, found: Submission) -> SubmissionView:
        return cls(
            submission_id=found.id, state=found.state, urn=found.event.urn, version=found.version, code=found.code,
            reason=found.reason, author=found.author, received_at=found.received_at, decided_at=found.decided_at,
        )  # fmt: skip


class VersionView(BaseModel):
    """One immutable version; `content` is what its digest covers."""

    urn: str
    version: int
    digest: str
    content: dict[str, Any]
    artefact_size: int | None
    tags: dict[str, str]
    description: str
    metrics: dict[str, float]
    author: Actor
    submission_id: UUID
    registered_at: datetime

    @classmethod
    def of(cls, found: Version) -> VersionView:
        return cls(
            urn=found.ref.urn, version=found.ref.version, digest=found.ref.digest, content=found.content,
            artefact_size=found.artefact_size, tags=found.tags, description=found.description, metrics=found.metrics,
            author=found.author, submission_id=found.submission_id, registered_at=found.registered_at,
        )  # fmt: skip


class Held(BaseModel):
    """Bytes that are in the store."""

    digest: str
    size: int


def router(handlers: Handlers) -> APIRouter:
    """Every route."""
    routes = APIRouter(prefix="/registry/v1", route_class=StrictRoute)

    @routes.put("/artefacts/{digest}", status_code=201)
    async def upload(digest: Digest, request: Request, caller: Submitter) -> Held:
        """Send the bytes as the body; a digest that does not fit them is refused and nothing is kept."""
        size = await handlers.artefacts.upload(caller, digest, request.stream())
        return Held(digest=digest, size=size)

    @routes.get("/artefacts/{digest}")
    async def download(digest: Digest, caller: Reader) -> Response:
        size, chunks = await handlers.artefacts.download(caller, digest)
        headers = {"content-length": str(size), "etag": f'"{digest}"', "content-disposition": "attachment"}
        return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)

    @routes.post("/submissions", status_code=202)
    async def submit(event: AssetSubmitted, caller: Submitter) -> SubmissionView:
        return SubmissionView.of(await handlers.registration.submit(caller, event))

    @routes.get("/submissions/{submission_id}")
    async def submission(submission_id: UUID, caller: Reader) -> SubmissionView:
        return SubmissionView.of(await handlers.reading.submission(caller, submission_id))

    @routes.get("/assets/{kind}/{name}/versions")
    async def versions(
        kind: Kind, name: Name, caller: Reader, page_size: Most = 50, page_token: str | None = None
    ) -> Page[VersionView]:
        """Newest first."""
        token = PageToken("versions", kind, name)
        before = (token.read(page_token) or [LAST])[0]
        found = await handlers.reading.versions(caller, f"mm:{kind}/{name}", before, page_size + 1)
        more = token.make([found[page_size - 1].ref.version]) if len(found) > page_size else None
        return Page(items=[VersionView.of(version) for version in found[:page_size]], next_page_token=more)

    @routes.get("/assets/{kind}/{name}/versions/{number}")
    async def version(kind: Kind, name: Name, number: Number, caller: Reader) -> VersionView:
        return VersionView.of(await handlers.reading.version(caller, f"mm:{kind}/{name}", number))

    @routes.get("/assets/{kind}/{name}")
    async def asset(kind: Kind, name: Name, caller: Reader) -> VersionView:
        """The asset by its newest version."""
        (newest,) = await handlers.reading.versions(caller, f"mm:{kind}/{name}", LAST, 1)
        return VersionView.of(newest)

    return routes
