"""Batches over HTTP: begun with a file of the artefact store, followed, cancelled; the answers are a file there."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from services.router.api.groups import Body, Most
from services.router.batches.domain import MOST_CONCURRENCY, Format, Job, Shape, Spec, State
from services.router.handlers.batches import Batches
from shared.errors import Forbidden
from shared.events.base import Digest
from shared.http import Page, PageToken
from shared.http.callers import caller_of, require
from shared.http.edge import StrictRoute
from shared.identity.identity import Identity
from shared.identity.principal import Principal

Caller = Annotated[Principal, require("infer", "group")]
Name = Annotated[str, Field(min_length=1, max_length=200)]


async def _watcher(request: Request) -> Principal:
    """Whoever may ask the group or read it: a caller follows its own batches."""
    principal = await caller_of(request)
    identity: Identity = request.app.state.identity
    try:
        identity.authorizer.require(principal, "read", "group")
    except Forbidden:
        identity.authorizer.require(principal, "infer", "group")
    return principal


Watcher = Annotated[Principal, Depends(_watcher)]


class NewBatch(Body):
    """`input` is the digest of a file that was uploaded to /router/v1/batch-files, or its address.

    `requests`: each row is `{"custom_id", "url", "body"}` as in OpenAI's batches, its body as that path takes it.
    `features`: each row holds the model's inputs by name.
    """

    input: Annotated[str, Field(max_length=2048)]
    format: Format
    shape: Shape = Shape.REQUESTS
    output_format: Format | None = None
    id_field: Name | None = None
    unit_field: Name | None = None
    features: Annotated[list[Name], Field(min_length=1, max_length=10_000)] | None = None
    url: Name | None = None
    concurrency: int = Field(default=8, ge=1, le=MOST_CONCURRENCY)

    def spec(self) -> Spec:
        return Spec(
            input=self.input, format=self.format, shape=self.shape, output_format=self.output_format or self.format,
            id_field=self.id_field, unit_field=self.unit_field,
            features=tuple(self.features) if self.features is not None else None, url=self.url,
            concurrency=self.concurrency,
        )  # fmt: skip


class BatchError(BaseModel):
    code: str
    message: str


class BatchView(BaseModel):
    """`recorded` of `total` rows are answered, `failed` of those with an error; `output` is the answers' digest."""

    id: UUID
    group: str
    state: State
    cancelling: bool
    total: int | None
    recorded: int
    failed: int
    output: str | None
    error: BatchError | None
    waits_for: str | None
    spec: Spec
    who: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> BatchView:
        error = None
        if job.error_code is not None:
            error = BatchError(code=job.error_code, message=job.error_message or "")
        return cls(
            id=job.id, group=job.group, state=job.state, cancelling=job.cancel and not job.state.is_over,
            total=job.total, recorded=job.recorded, failed=job.failed, output=job.output, error=error,
            waits_for=job.waits_for, spec=job.spec, who=job.who, created_at=job.created_at,
            started_at=job.started_at, ended_at=job.ended_at,
        )  # fmt: skip


class Held(BaseModel):
    """A file that your workspace has."""

    digest: str
    size: int


def router(batches: Batches) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["batches"])

    @routes.put("/batch-files/{digest}", status_code=201)
    async def upload(digest: Digest, request: Request, caller: Caller) -> Held:
        """Send the file as the body; a digest that does not fit it is refused and nothing is kept."""
        return Held(digest=digest, size=await batches.upload(caller, digest, request.stream()))

    @routes.get("/batch-files/{digest}")
    async def download(digest: Digest, caller: Watcher) -> Response:
        """A file that your workspace gave, or that a batch of it made."""
        size, chunks = await batches.download(caller, digest)
        headers = {"content-length": str(size), "etag": f'"{digest}"', "content-disposition": "attachment"}
        return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)

    @routes.post("/groups/{group}/batches", status_code=202)
    async def begin(group: str, body: NewBatch, caller: Caller, response: Response) -> BatchView:
        """Ask the group for every row of a file; each is routed, stamped and a row of its table as any request is."""
        job = await batches.begin(caller, group, body.spec())
        response.headers["location"] = f"/router/v1/groups/{group}/batches/{job.id}"
        return BatchView.of(job)

    @routes.get("/groups/{group}/batches")
    async def list_batches(
        group: str,
        caller: Watcher,
        max_results: Most = 50,
        page_token: Annotated[str | None, Query(max_length=500)] = None,
    ) -> Page[BatchView]:
        """The group's batches, the latest first."""
        token = PageToken("batches", caller.workspace, group)
        found = token.read(page_token)
        before = (datetime.fromisoformat(found[0]), UUID(found[1])) if found else None
        jobs = await batches.page(caller.workspace, group, before, max_results + 1)
        items = [BatchView.of(one) for one in jobs[:max_results]]
        more = len(jobs) > max_results
        next_token = token.make([items[-1].created_at.isoformat(), str(items[-1].id)]) if more else None
        return Page(items=items, next_page_token=next_token)

    @routes.get("/groups/{group}/batches/{batch}")
    async def get_batch(group: str, batch: UUID, caller: Watcher) -> BatchView:
        """How far it is. Its output is at /router/v1/batch-files/{output}."""
        return BatchView.of(await batches.one(caller.workspace, group, batch))

    @routes.post("/groups/{group}/batches/{batch}:cancel", status_code=202)
    async def cancel(group: str, batch: UUID, caller: Caller) -> BatchView:
        """Ask no further row. Rows that were asked stay in the group's table; there is no output."""
        return BatchView.of(await batches.cancel(caller.workspace, group, batch))

    return routes
