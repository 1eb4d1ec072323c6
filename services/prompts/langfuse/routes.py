"""`/prompts/api/public`: get, create, label and list prompts; what else the SDK asks when it starts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from services.prompts.domain.content import LATEST
from services.prompts.errors import LabelReserved, PromptNotFound
from services.prompts.handlers import Handlers
from services.prompts.handlers.reading import Found, Pointer
from services.prompts.langfuse.errors import LangfuseRoute, MayNotDelete, NotSupported
from services.prompts.langfuse.shapes import NewLabels, NewPrompt, listed, shown
from services.prompts.store import Filter
from shared.errors import Invalid
from shared.events.base import LAST_VERSION, Moment, Title
from shared.http import require
from shared.identity import Principal

PREFIX = "/prompts/api/public"
DEFAULT_LABEL = "production"
NO_TRACES = b"traces are not kept here; prompts are"

Reader = Annotated[Principal, require("read", "prompt")]
Publisher = Annotated[Principal, require("submit", "prompt")]
Mover = Annotated[Principal, require("move", "prompt")]
Text = Annotated[str | None, Query(max_length=500)]


def router(handlers: Handlers) -> APIRouter:
    """`/prompts/api/public`, in no OpenAPI document of ours: Langfuse's own describes it."""
    routes = APIRouter(prefix=PREFIX, route_class=LangfuseRoute, include_in_schema=False)
    _prompts(routes, handlers)
    _around(routes)
    return routes


def _prompts(routes: APIRouter, handlers: Handlers) -> None:
    reading = handlers.reading

    async def answer(caller: Principal, found: Found, *, resolve: bool = True) -> JSONResponse:
        newest = found.newest or found.version.version
        return JSONResponse(shown(found, caller.workspace, newest=newest, resolve=resolve))

    @routes.get("/v2/prompts")
    async def prompts(
        caller: Reader,
        name: Text = None,
        label: Text = None,
        tag: Text = None,
        page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        fromUpdatedAt: Moment | None = None,  # noqa: N803 - their name
        toUpdatedAt: Moment | None = None,  # noqa: N803
    ) -> JSONResponse:
        wanted = Filter(name, label, tag, fromUpdatedAt, toUpdatedAt)
        total, found = await reading.listed(caller, wanted, (page - 1) * limit, limit)
        meta = {"page": page, "limit": limit, "totalItems": total, "totalPages": -(-total // limit)}
        return JSONResponse({"data": [listed(one) for one in found], "meta": meta, "pagination": meta})

    @routes.post("/v2/prompts", status_code=201)
    async def create(body: NewPrompt, caller: Publisher) -> JSONResponse:
        try:
            content = body.content()
        except ValidationError as error:
            raise Invalid(str(error.errors()[0]["msg"])) from None
        except ValueError as error:
            raise Invalid(str(error)) from None
        if set(body.labels or ()) - {LATEST}:
            handlers.labels.may_move(caller)
        made = await handlers.publishing.publish(
            caller, body.name, content, body.commit_message or "", labels=body.labels or (), tags=body.tags
        )
        made_answer = await answer(caller, await reading.one(caller, made.name, Pointer(made.version)))
        made_answer.status_code = 201
        return made_answer

    @routes.patch("/v2/prompts/{name:path}/versions/{version}")
    async def label(name: Title, version: int, body: NewLabels, caller: Mover) -> JSONResponse:
        if LATEST in body.new_labels:
            raise LabelReserved("the label latest is always at the newest version")
        if not 0 < version <= LAST_VERSION:
            raise PromptNotFound(f"prompt {name!r} has no version {version}")
        await handlers.labels.add(caller, name, body.new_labels, version, "through Langfuse's API")
        return await answer(caller, await reading.one(caller, name, Pointer(version)))

    @routes.delete("/v2/prompts/{name:path}")
    async def delete(name: Title, caller: Publisher) -> Response:
        await reading.one(caller, name, Pointer())
        raise MayNotDelete()

    @routes.get("/v2/prompts/{name:path}")
    async def read(
        name: Title,
        caller: Reader,
        version: Annotated[int | None, Query(ge=1, le=LAST_VERSION)] = None,
        label: Text = None,
        resolve: bool = True,
    ) -> JSONResponse:
        if version is not None and label is not None:
            raise Invalid("Cannot specify both version and label")
        pointer = Pointer(version, label or DEFAULT_LABEL)
        return await answer(caller, await reading.one(caller, name, pointer), resolve=resolve)


def _around(routes: APIRouter) -> None:
    """What is no prompt. The SDK sends traces in the background and must neither fail nor be told a lie."""

    @routes.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "OK", "version": "mintmark"}

    @routes.get("/projects")
    async def projects(caller: Reader) -> dict[str, Any]:
        own = {"id": caller.workspace, "name": caller.workspace, "metadata": {}}
        return {"data": [{**own, "organization": {"id": caller.workspace, "name": caller.workspace}}]}

    @routes.post("/otel/v1/traces")
    async def traces(caller: Reader) -> Response:
        # ExportTraceServiceResponse{partial_success{error_message}}: taken, not kept, and it says so.
        message = bytes([0x12, len(NO_TRACES)]) + NO_TRACES
        return Response(bytes([0x0A, len(message)]) + message, media_type="application/x-protobuf")

    @routes.post("/ingestion")
    async def ingestion(request: Request, caller: Reader) -> JSONResponse:
        document = await request.json()
        batch = document.get("batch") if isinstance(document, dict) else None
        if not isinstance(batch, list):
            raise Invalid("batch is a list of events")
        ids = [str(one.get("id", "")) if isinstance(one, dict) else "" for one in batch]
        refused = [{"id": one, "status": 404, "message": NO_TRACES.decode(), "error": "NotSupported"} for one in ids]
        return JSONResponse({"successes": [], "errors": refused}, 207)

    @routes.api_route("/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def others(rest: str, caller: Reader) -> Response:
        raise NotSupported(f"{rest[:100]} of Langfuse's API is not answered here; see docs/how-to/from-langfuse.md")
