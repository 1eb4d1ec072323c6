"""OpenLineage over HTTP: its own route, under two addresses, and ours for reading."""

from __future__ import annotations

import zlib
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from services.registry.api.parts import NO_NUL, PREFIX, Reader, Submitter
from services.registry.openlineage.handlers import OpenLineage
from services.registry.openlineage.store import BEGINNING, Place
from shared import strict_json
from shared.errors import Invalid, Malformed, TooLarge
from shared.http import PageToken
from shared.http.edge import StrictRoute

# The client joins addresses as a browser does: a base without a slash at its end loses its last part.
ADDRESSES = ("/registry/api/v1/lineage", "/api/v1/lineage")
EVENT = {"type": "object", "required": ["eventTime", "producer"], "additionalProperties": True}
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"oneOf": [EVENT, {"type": "array", "items": EVENT}]}}},
    }
}


class TakenView(BaseModel):
    """`new` is false for an event that had come before, which changed nothing."""

    new: bool


class Failure(BaseModel):
    """An event of a list that was not taken, and why."""

    index: int
    reason: str


class BatchView(BaseModel):
    """A list of events: how many were taken, and which were not."""

    received: int
    successful: int
    failed: list[Failure]


class FacetView(BaseModel):
    """A facet as it came; the one without a name says what the node is called."""

    scope: str
    name: str
    at: datetime
    facet: dict[str, Any]


class EventsView(BaseModel):
    """Events in order, and `since` for those after them; ask again with it, whether there were any or not."""

    events: list[dict[str, Any]]
    since: str


def router(lineage: OpenLineage, most_bytes: int) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["openlineage"])

    async def take(request: Request, caller: Submitter, response: Response) -> TakenView | BatchView:
        """An OpenLineage RunEvent, DatasetEvent or JobEvent, or a list of them; gzip is taken."""
        document = strict_json.loads(
            _unpacked(request.headers.get("content-encoding"), await request.body(), most_bytes)
        )
        if not isinstance(document, list):
            new = await lineage.take(caller, document)
            response.status_code = 201 if new else 200
            return TakenView(new=new)
        taken = await lineage.take_all(caller, document)
        failed = [Failure(index=one.index, reason=one.reason) for one in taken if one.reason is not None]
        if taken and len(failed) == len(taken):
            raise Invalid(f"none of {len(taken)} events was taken; the first: {failed[0].reason}")
        return BatchView(received=len(taken), successful=len(taken) - len(failed), failed=failed)

    for address in ADDRESSES:
        for path in (address, f"{address}/batch"):
            name = "take" + path.replace("/", "_")
            routes.add_api_route(path, take, methods=["POST"], name=name, operation_id=name, openapi_extra=BODY)

    @routes.get(f"{PREFIX}/lineage/facets")
    async def facets(
        caller: Reader, node: Annotated[str, Query(min_length=1, max_length=1000, pattern=NO_NUL)]
    ) -> list[FacetView]:
        """What OpenLineage events said of a node, each facet by its newest word."""
        found = await lineage.facets(caller, node)
        return [FacetView(scope=scope, name=name, at=at, facet=facet) for scope, name, at, facet in found]

    @routes.get(f"{PREFIX}/lineage/openlineage")
    async def told(caller: Reader, since: Annotated[str | None, Query(max_length=500)] = None) -> EventsView:
        """Our lineage as OpenLineage events, from the beginning or since what was given out before."""
        token = PageToken("openlineage", caller.workspace)
        place = _place(token.read(since))
        found = await lineage.told_after(caller, place)
        last = found[-1].place if found else place
        return EventsView(
            events=[event for told in found for event in told.events], since=token.make([last.xid, last.number])
        )

    return routes


def _place(values: list[Any] | None) -> Place:
    if values is None:
        return BEGINNING
    if len(values) != 2 or not all(type(value) is int and 0 <= value < 2**63 for value in values):
        raise Invalid("`since` is not one that was given out here; start without it")
    return Place(values[0], values[1])


def _unpacked(encoding: str | None, body: bytes, most: int) -> bytes:
    """The body as it was before it was compressed, at most so much of it. Raises TooLarge, Malformed or Invalid."""
    if encoding in (None, "", "identity"):
        return body
    if encoding != "gzip":
        raise Invalid(f"Content-Encoding {encoding[:40]!r} is not taken; gzip is")
    unpacking = zlib.decompressobj(wbits=31)
    try:
        found = unpacking.decompress(body, most + 1)
    except zlib.error:
        raise Malformed("the body is not gzip, which Content-Encoding says it is") from None
    if len(found) > most:
        raise TooLarge(f"the body is larger than {most} bytes once unpacked")
    if not unpacking.eof:
        raise Malformed("the gzip body was cut off")
    return found
