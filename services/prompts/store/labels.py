"""Labels: logs of moves, of which the last one counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.db.database import Transaction


@dataclass(frozen=True, slots=True)
class LabelMove:
    """A label went from `before` to `after`; None is nowhere. `id` counts the moves of all labels."""

    id: int
    label: str
    before: int | None
    after: int | None
    reason: str
    actor: str
    at: datetime


class Labels:
    """Table label_move."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def one(self, tx: Transaction, name: str, label: str, at: datetime | None = None) -> LabelMove | None:
        """The last move, or the last one at a time."""
        row = await self._queries.label(tx.connection, workspace=tx.workspace, name=name, label=label, at=at)
        return None if row is None else _move(row)

    async def of(self, tx: Transaction, name: str, at: datetime | None = None) -> list[LabelMove]:
        """The last move of every label that points somewhere."""
        rows = self._queries.labels(tx.connection, workspace=tx.workspace, name=name, at=at)
        return [move async for row in rows if (move := _move(row)).after is not None]

    async def labelled(self, tx: Transaction, labels: list[str] | None) -> list[dict[str, Any]]:
        """Every version that one of the labels (or any) points at, with its prompt's title and those labels."""
        rows = self._queries.labelled_versions(tx.connection, workspace=tx.workspace, labels=labels)
        return [dict(row) async for row in rows]

    async def history(self, tx: Transaction, name: str, label: str) -> list[LabelMove]:
        rows = self._queries.label_history(tx.connection, workspace=tx.workspace, name=name, label=label)
        return [_move(row) async for row in rows]

    async def move(
        self,
        tx: Transaction,
        name: str,
        label: str,
        points: tuple[int | None, int | None],
        who: tuple[str, str],
        at: datetime,
    ) -> LabelMove:
        """`points` is (before, after), `who` is (actor, reason)."""
        row = await self._queries.move_label(
            tx.connection,
            workspace=tx.workspace,
            name=name,
            label=label,
            before=points[0],
            after=points[1],
            actor=who[0],
            reason=who[1],
            at=at,
        )
        return _move(row)


def _move(row: Any) -> LabelMove:
    return LabelMove(**{name: row[name] for name in LabelMove.__slots__})
