"""Who fetches which version, by day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.db.database import Transaction


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Counted under this; `group` is empty where none was named."""

    name: str
    version: int
    application: str
    group: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Fetches of one version by one application (for one group) over some days."""

    version: int
    application: str
    group_name: str
    fetches: int
    days: int
    last_at: datetime


class Usages:
    """Table usage."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def add(self, tx: Transaction, counted: Mapping[Fetcher, int], at: datetime) -> None:
        """Many at once, in one order, so that two processes never wait for each other in a circle."""
        rows = sorted(counted.items(), key=lambda row: (row[0].name, row[0].version, row[0].application, row[0].group))
        await self._queries.count_usage(
            tx.connection,
            workspace=tx.workspace,
            names=[one.name for one, _ in rows],
            versions=[one.version for one, _ in rows],
            applications=[one.application for one, _ in rows],
            group_names=[one.group for one, _ in rows],
            fetches=[fetches for _, fetches in rows],
            at=at,
        )

    async def of(self, tx: Transaction, name: str, since: datetime) -> list[Usage]:
        """By version, application and group, the most fetched first."""
        rows = self._queries.usage_of(tx.connection, workspace=tx.workspace, name=name, since=since.date())
        return [Usage(**{field: row[field] for field in Usage.__slots__}) async for row in rows]
