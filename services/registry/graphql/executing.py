"""Runs a query: limits first, then everything that it asks for in one transaction."""

from __future__ import annotations

import logging
from typing import Any

import strawberry
from graphql import DocumentNode, GraphQLError, parse
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from services.registry.graphql.costs import cost_of
from services.registry.graphql.limits import MOST_CHARACTERS, MOST_COST, MOST_TOKENS, QueryTooDear
from services.registry.graphql.loading import Loaders
from services.registry.graphql.sources import Sources
from services.registry.graphql.types import Query
from shared.db.database import Database
from shared.errors import MintmarkError
from shared.identity.principal import Principal

log = logging.getLogger(__name__)
MOST_ERRORS = 20


class _Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """What a client asked wrongly is told to it; what failed here is logged, too."""
        for error in errors:
            if error.original_error is not None and not isinstance(error.original_error, MintmarkError):
                log.error("a field of a query failed", exc_info=error.original_error)


SCHEMA = _Schema(Query, config=StrawberryConfig(auto_camel_case=True, disable_field_suggestions=True))


async def execute(
    database: Database,
    sources: Sources,
    caller: Principal,
    query: str,
    variables: dict[str, Any],
    operation: str | None,
) -> dict[str, Any]:
    """The answer in GraphQL's shape, its cost in `extensions`; an error has its `code` in its own."""
    try:
        cost = cost_of(_parsed(query), variables)
    except MintmarkError as error:
        extensions = {"code": error.code, **error.extra}
        return {"data": None, "errors": [{"message": error.message, "extensions": extensions}]}
    except GraphQLError as error:
        return {"data": None, "errors": [_told(error, "syntax")]}
    async with database.begin_reading(caller.workspace) as tx:
        result = await SCHEMA.execute(
            query, variable_values=variables, context_value=Loaders(tx, sources), operation_name=operation
        )
    answer: dict[str, Any] = {"data": result.data}
    if result.errors:
        answer["errors"] = [_told(error, "invalid") for error in result.errors[:MOST_ERRORS]]
    answer["extensions"] = {"cost": {"asked": cost, "most": MOST_COST}}
    return answer


def _parsed(query: str) -> DocumentNode:
    """Raises GraphQLError, or QueryTooDear for what is too long or nested to be read at all."""
    if len(query) > MOST_CHARACTERS:
        raise QueryTooDear(f"the query has {len(query)} characters, and {MOST_CHARACTERS} is the most")
    try:
        return parse(query, max_tokens=MOST_TOKENS, no_location=False)
    except RecursionError:
        raise QueryTooDear("the query is nested deeper than can be read") from None


def _told(error: GraphQLError, otherwise: str) -> dict[str, Any]:
    """An error in GraphQL's shape with our code; what failed here is not shown to who asked."""
    cause = error.original_error
    told: dict[str, Any] = {"message": error.message[:1000]}
    if isinstance(cause, MintmarkError):
        told["extensions"] = {"code": cause.code, "status": cause.status}
    elif cause is not None and not isinstance(cause, GraphQLError):
        told |= {"message": "something failed here", "extensions": {"code": "internal"}}
    else:
        told["extensions"] = {"code": otherwise}
    if error.locations:
        told["locations"] = [{"line": one.line, "column": one.column} for one in error.locations]
    if error.path:
        told["path"] = error.path
    return told
