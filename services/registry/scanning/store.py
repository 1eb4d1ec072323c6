"""Table scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.registry.scanning.statement import Scan, Statement
from shared.db.database import Transaction


class Scans:
    """`queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    async def keep(self, tx: Transaction, scan: Scan) -> None:
        await self._sql.keep_scan(
            tx.connection,
            workspace=tx.workspace,
            digest=scan.digest,
            format=scan.format,
            statements=[statement.model_dump(mode="json") for statement in scan.statements],
            at=scan.at,
        )

    async def of(self, tx: Transaction, digests: Sequence[str]) -> list[Scan]:
        """What was said of these bytes; those that nobody scanned are missing."""
        if not digests:
            return []
        rows = self._sql.scans(tx.connection, workspace=tx.workspace, digests=sorted(set(digests)))
        return [
            Scan(row["digest"], row["format"], tuple(Statement.model_validate(s) for s in row["statements"]), row["at"])
            async for row in rows
        ]
