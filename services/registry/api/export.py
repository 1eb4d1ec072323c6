"""The catalog as a file."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from services.registry.api.parts import NO_NUL, PREFIX, Reader
from services.registry.api.search import Term, narrowed
from services.registry.domain.assets import Stage
from services.registry.handlers import Handlers
from services.registry.handlers.exporting import Format
from services.registry.search.grammar import LONGEST
from shared.events.base import Kind
from shared.http.edge import StrictRoute

MEDIA = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, route_class=StrictRoute, tags=["export"])

    @routes.get("/export", response_class=StreamingResponse)
    async def export(
        request: Request,
        caller: Reader,
        format: Format = "parquet",
        q: Annotated[str, Query(max_length=1000, pattern=NO_NUL)] = "",
        filter: Annotated[str, Query(max_length=LONGEST + 1)] = "",
        kind: Kind | None = None,
        stage: Stage | None = None,
        name: Term = None,
        task: Term = None,
        licence: Term = None,
        author: Term = None,
    ) -> StreamingResponse:
        """Every version that the filters of search find, newest first, as JSON lines or Parquet."""
        fields = {"kind": kind, "stage": stage, "name": name, "task": task, "licence": licence, "author": author}
        asked = narrowed(request, q, filter, fields, frozenset({"format"}))
        chunks = handlers.exporting.stream(caller, asked, format)
        headers = {"content-disposition": f'attachment; filename="registry.{format}"'}
        return StreamingResponse(chunks, media_type=MEDIA[format], headers=headers)

    return routes
