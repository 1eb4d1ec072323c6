"""Artefacts up and down, and submissions."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from services.registry.api.parts import PREFIX, Reader, Submitter, Uploader
from services.registry.handlers import Handlers
from services.registry.store import Submission
from shared.events.base import Actor, Digest
from shared.events.upstream import AssetSubmitted
from shared.http.edge import StrictRoute


class SubmissionView(BaseModel):
    """A submission and what became of it: vouching, fetching, registered (with `version`) or refused (with `code`)."""

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
            submission_id=found.id,
            state=found.state,
            urn=found.event.urn,
            version=found.version,
            code=found.code,
            reason=found.reason,
            author=found.author,
            received_at=found.received_at,
            decided_at=found.decided_at,
        )


class Held(BaseModel):
    """Bytes that are in the store."""

    digest: str
    size: int


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["submissions"])

    @routes.put("/artefacts/{digest}", status_code=201)
    async def upload(digest: Digest, request: Request, caller: Uploader) -> Held:
        """Send the bytes as the body; a digest that does not fit them is refused and nothing is kept."""
        size = await handlers.artefacts.upload(caller, digest, request.stream())
        return Held(digest=digest, size=size)

    @routes.get("/artefacts/{digest}")
    async def download(digest: Digest, caller: Reader) -> Response:
        """The bytes, of an artefact that this workspace holds."""
        size, chunks = await handlers.artefacts.download(caller, digest)
        headers = {"content-length": str(size), "etag": f'"{digest}"', "content-disposition": "attachment"}
        return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)

    @routes.post("/submissions", status_code=202)
    async def submit(event: AssetSubmitted, caller: Submitter) -> SubmissionView:
        """The data of asset.submitted, by HTTP; the author is the caller. The answer comes as an event, too."""
        return SubmissionView.of(await handlers.registration.submit(caller, event))

    @routes.get("/submissions/{submission_id}")
    async def submission(submission_id: UUID, caller: Reader) -> SubmissionView:
        return SubmissionView.of(await handlers.reading.submission(caller, submission_id))

    return routes
