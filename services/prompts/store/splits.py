"""Splits of labels: a log, of which the last row counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.prompts.domain.splits import Ranges
from shared.db.database import Transaction


@dataclass(frozen=True, slots=True)
class Split:
    """One state of a label's split; without arms there is none."""

    id: int
    label: str
    arms: dict[str, Ranges]
    reason: str
    actor: str
    at: datetime


class Splits:
    """Table label_split."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def of(self, tx: Transaction, name: str) -> list[Split]:
        """The last state of every label that is split."""
        rows = self._queries.splits(tx.connection, workspace=tx.workspace, name=name)
        return [split async for row in rows if (split := _split(row)).arms]

    async def history(self, tx: Transaction, name: str, label: str) -> list[Split]:
        rows = self._queries.split_history(tx.connection, workspace=tx.workspace, name=name, label=label)
        return [_split(row) async for row in rows]

    async def add(
        self, tx: Transaction, name: str, label: str, arms: dict[str, Ranges], who: tuple[str, str], at: datetime
    ) -> Split:
        row = await self._queries.split_label(
            tx.connection,
            workspace=tx.workspace,
            name=name,
            label=label,
            arms=arms,
            actor=who[0],
            reason=who[1],
            at=at,
        )
        return _split(row)


def _split(row: Any) -> Split:
    return Split(**{name: row[name] for name in Split.__slots__})
