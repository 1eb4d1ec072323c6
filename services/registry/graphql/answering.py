"""Answers GraphQL. What runs a query is imported with the first one: the library and the types are a second."""

from __future__ import annotations

from typing import Any

from services.registry.graphql.sources import Sources
from shared.db.database import Database
from shared.identity.principal import Principal
from shared.late import loaded


class Answering:
    """Reads alone: there are no mutations, and no subscriptions."""

    def __init__(self, database: Database, sources: Sources) -> None:
        self._database = database
        self._sources = sources

    async def answer(
        self, caller: Principal, query: str, variables: dict[str, Any], operation: str | None
    ) -> dict[str, Any]:
        """The answer in GraphQL's shape, its cost in `extensions`; an error has its `code` in its own."""
        await loaded("services.registry.graphql.executing")
        from services.registry.graphql import executing

        return await executing.execute(self._database, self._sources, caller, query, variables, operation)
