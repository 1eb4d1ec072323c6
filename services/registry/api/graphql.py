"""GraphQL at /registry/graphql: the catalog in one query."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.registry.api.parts import NO_NUL, Reader
from services.registry.graphql.limits import MOST_CHARACTERS
from services.registry.handlers import Handlers
from shared import strict_json
from shared.db.database import on_first_transaction
from shared.errors import Invalid
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

LONGEST = 10 * MOST_CHARACTERS  # what is longer than a query may be is told in GraphQL's shape, up to here
Operation = Annotated[str | None, Query(alias="operationName", max_length=200, pattern=NO_NUL)]


class Asked(BaseModel):
    """One operation; a list of them is not taken."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    query: str = Field(min_length=1, max_length=LONGEST)
    variables: dict[str, Any] | None = None
    operation: str | None = Field(default=None, alias="operationName", max_length=200)


def router(handlers: Handlers) -> APIRouter:
    routes = APIRouter(prefix="/registry", route_class=StrictRoute, tags=["graphql"])

    async def answer(
        caller: Principal, query: str, variables: dict[str, Any] | None, operation: str | None
    ) -> Response:
        found = await handlers.graphql.answer(caller, query, variables or {}, operation)
        return Response(orjson.dumps(found, default=str), media_type="application/json")

    @routes.post("/graphql")
    async def post(asked: Asked, caller: Reader) -> Response:
        """Query assets, versions, lineage, and search; errors come in GraphQL's shape with our codes, as 200."""
        on_first_transaction.set(None)  # a read is answered anew, whatever its key
        return await answer(caller, asked.query, asked.variables, asked.operation)

    @routes.get("/graphql")
    async def get(
        caller: Reader,
        query: Annotated[str, Query(min_length=1, max_length=LONGEST)],
        variables: Annotated[str | None, Query(max_length=LONGEST)] = None,
        operation: Operation = None,
    ) -> Response:
        """The same in an address; `variables` is a JSON object."""
        read = strict_json.loads(variables.encode()) if variables else {}
        if not isinstance(read, dict):
            raise Invalid("variables is a JSON object")
        return await answer(caller, query, read, operation)

    return routes
