"""Table imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.db.database import Transaction


@dataclass(frozen=True, slots=True)
class Known:
    """Something of a source that was imported before; `version` is 0 for an asset."""

    source_id: str
    urn: str
    version: int
    fingerprint: str
    said: Mapping[str, str]


class Imported:
    """`queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def known(self, tx: Transaction, source: str, ids: Sequence[str]) -> dict[str, Known]:
        """What came from a source before, by the names it has there."""
        rows = self._queries.imported(tx.connection, workspace=tx.workspace, source=source, source_ids=list(ids))
        return {
            row["source_id"]: Known(row["source_id"], row["urn"], row["version"], row["fingerprint"], row["said"])
            async for row in rows
        }

    async def one_at_a_time(self, tx: Transaction, name: str) -> None:
        """Whoever else brings in what has this name waits until this transaction is over."""
        await self._queries.hold_foreign(tx.connection, workspace=tx.workspace, name=name)

    async def versions(self, tx: Transaction, source: str, urn: str) -> set[int]:
        """The versions of an asset that came from a source."""
        rows = self._queries.imported_versions(tx.connection, workspace=tx.workspace, source=source, urn=urn)
        return {row["version"] async for row in rows}

    async def keep(self, tx: Transaction, source: str, known: Known, at: datetime) -> None:
        await self._queries.keep_imported(
            tx.connection,
            workspace=tx.workspace,
            source=source,
            source_id=known.source_id,
            urn=known.urn,
            version=known.version,
            fingerprint=known.fingerprint,
            said=dict(known.said),
            at=at,
        )
