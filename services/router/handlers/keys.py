"""Groups' own keys for hashed and encrypted fields: made when a rule first needs one, opened for who may see them."""

from __future__ import annotations

import asyncio
from typing import Any

from services.router.gateway.minimisation.keys import ENCRYPTED, GroupKeyRing, GroupKeys, new_key
from services.router.gateway.sealing import MasterKey
from services.router.group_settings import Rows
from services.router.tables.store import TableStore
from shared.db.database import Transaction


class GroupKeyring:
    """`master` seals them; without one hashes can be had, ciphertexts cannot."""

    def __init__(self, tables: TableStore, master: MasterKey | None) -> None:
        self._tables = tables
        self._master = master
        self._ring = GroupKeyRing(master)

    async def prepare(self, tx: Transaction, group: str, rows: Rows) -> None:
        """Make the keys that these rules need. Raises SealBroken: no rule is in force that cannot be applied."""
        there = await self._tables.group_keys(tx, group)
        for kind in sorted(rows.needs_keys - set(there)):
            value, sealed = await asyncio.to_thread(new_key, tx.workspace, group, kind, self._master)
            await self._tables.add_group_key(tx, group, kind, value, sealed=sealed)

    async def of(self, tx: Transaction, group: str) -> GroupKeys:
        stored = await self._tables.group_keys(tx, group)
        return await asyncio.to_thread(self._ring.keys_of, tx.workspace, group, stored)

    async def revealed(self, tx: Transaction, group: str, row: dict[str, Any]) -> dict[str, Any]:
        """The row with what was encrypted in it opened. Raises SealBroken."""
        keys = await self.of(tx, group)
        return {name: _opened(value, keys) for name, value in row.items()}


def _opened(value: Any, keys: GroupKeys) -> Any:
    if isinstance(value, str):
        return keys.opened(value) if value.startswith(ENCRYPTED) else value
    if isinstance(value, dict):
        return {name: _opened(one, keys) for name, one in value.items()}
    return [_opened(one, keys) for one in value] if isinstance(value, list) else value
