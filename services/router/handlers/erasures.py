"""The right to erasure: a subject's rows, the words about them, and their copies in archives go; a receipt stays.

Rows are removed and not blanked: whatever a blanked row would keep (its id, its time) still leads from the subject's
own logs to what was answered. Aggregates stay: they are sums, and name nobody.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.router.errors import UnknownGroup
from services.router.gateway import rows as layout
from services.router.gateway.minimisation.keys import GroupKeys
from services.router.handlers.archives import Archives
from services.router.handlers.keys import GroupKeyring
from services.router.tables.errors import ErasureRefused, UnknownErasure
from services.router.tables.filters import Filter, holds
from services.router.tables.store import TableStore
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.events.base import Actor
from shared.identity import dsse
from shared.ids import canonical, new_id

RECEIPT_TYPE = "application/vnd.mintmark.erasure+json"
KEYID = "router"
SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Wish:
    """Whose rows go: one subject's (the unit as it was sent), those that filters let through, or both at once.

    `groups` are names, None for all of the workspace.
    """

    subject: str | None
    filters: tuple[Filter, ...]
    groups: tuple[str, ...] | None
    reason: str


@dataclass(slots=True)
class Gone:
    """What was removed of one group. `digest` is over the rows of its table; see erase_rows."""

    group: str
    rows: int = 0
    words: int = 0
    unplaced: int = 0
    archived: int = 0
    digest: str = ""
    archives: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Erasure:
    """`late_rows` were in a gateway's spool at that time and removed when they came."""

    id: UUID
    at: datetime
    who: str
    reason: str
    receipt: dict[str, Any]
    late_rows: int


class Erasures:
    """`key` signs receipts; without one they are kept unsigned, and say so."""

    def __init__(
        self,
        database: Database,
        tables: TableStore,
        archives: Archives,
        keyring: GroupKeyring,
        clock: Clock,
        key: Ed25519PrivateKey | None,
    ) -> None:
        self._database = database
        self._tables = tables
        self._archives = archives
        self._keyring = keyring
        self._clock = clock
        self._key = key

    async def erase(self, workspace: str, actor: Actor, wish: Wish) -> Erasure:
        """All of it or nothing. Raises ErasureRefused, UnknownGroup, SealBroken."""
        if not wish.subject and not wish.filters:
            raise ErasureRefused()
        async with self._database.begin(workspace) as tx:
            gone: list[Gone] = []
            seen: set[str] = set()
            for group in await self._groups(tx, wish):
                units = await self._units(tx, group, wish.subject)
                seen.update(units or ())
                gone.append(await self._from_group(tx, group, units, wish.filters))
            salt, now = os.urandom(SALT_BYTES), self._clock()
            subjects = sorted(hashlib.sha256(salt + one.encode()).digest() for one in seen)
            erasure_id = new_id()
            payload = {
                "type": "erasure",
                "id": str(erasure_id),
                "workspace": workspace,
                "who": {"id": actor.id, "proven": actor.proven},
                "at": now.isoformat(),
                "reason": wish.reason,
                "subject": {"salt": salt.hex(), "salted_sha256": [one.hex() for one in subjects]},
                "filters": hashlib.sha256(salt + canonical([one.to_json() for one in wish.filters])).hexdigest(),
                "groups": [{name: getattr(one, name) for name in one.__slots__} for one in gone],
            }
            receipt = self._receipt(payload)
            await self._tables.add_erasure(
                tx, erasure_id, wish.groups, salt, subjects, wish.filters, wish.reason, actor.id, now, receipt
            )
        await self._archives.remove_replaced()
        return Erasure(erasure_id, now, actor.id, wish.reason, receipt, 0)

    async def one(self, workspace: str, erasure_id: UUID) -> Erasure:
        """Raises UnknownErasure."""
        async with self._database.begin(workspace) as tx:
            row = await self._tables.erasure(tx, erasure_id)
        if row is None:
            raise UnknownErasure()
        return Erasure(row["id"], row["at"], row["who"], row["reason"], row["receipt"], row["late_rows"])

    async def _groups(self, tx: Transaction, wish: Wish) -> list[str]:
        """In the order of names, in which every erasure locks them."""
        there = await self._tables.groups_with_rows(tx)
        if wish.groups is None:
            return there
        for name in wish.groups:
            if name not in there:
                raise UnknownGroup(name)
        return sorted(set(wish.groups))

    async def _units(self, tx: Transaction, group: str, subject: str | None) -> list[str] | None:
        """How the subject may stand in the group's rows: as it is, hashed, encrypted."""
        if subject is None:
            return None
        return spellings(subject, await self._keyring.of(tx, group))

    async def _from_group(
        self, tx: Transaction, group: str, units: list[str] | None, filters: tuple[Filter, ...]
    ) -> Gone:
        removed = await self._tables.erase(tx, group, units, filters)
        gone = Gone(group, removed["row_count"], removed["word_count"], digest=removed["digest"])

        def goes(row: dict[str, Any]) -> bool:
            return (units is None or row["unit"] in units) and holds(filters, row)

        unplaced = await self._tables.unplaced(tx, group)
        chosen = [row_id for row_id, record in unplaced if (row := read_tuple(record)) is not None and goes(row)]
        await self._tables.erase_unplaced(tx, chosen)
        gone.unplaced = len(chosen)
        gone.archived, made = await self._archives.without(tx, group, goes)
        gone.archives = [{"day": one.day.isoformat(), "digest": one.digest} for one in made]
        return gone

    def _receipt(self, payload: dict[str, Any]) -> dict[str, Any]:
        signed = None if self._key is None else dsse.sign(canonical(payload), RECEIPT_TYPE, self._key, KEYID)
        return {"payload": payload, "envelope": None if signed is None else signed.model_dump()}


def spellings(subject: str, keys: GroupKeys) -> list[str]:
    """The texts that a unit may have become by a group's field rules, now or before."""
    found = [subject]
    if keys.salt is not None:
        found.append(keys.hashed(subject.encode()))
    if keys.data is not None:
        found.append(keys.encrypted(subject, stable=True))
    return found


def read_tuple(record: bytes) -> dict[str, Any] | None:
    """The text and JSON columns of a row that no table took, as far as it can be read; None if it cannot."""
    try:
        columns: Sequence[memoryview | None] = layout.fields(memoryview(record))
        found: dict[str, Any] = {}
        for (name, kind), column in zip(layout.COLUMNS, columns, strict=True):
            if column is None:
                found[name] = None
            elif kind == "text":
                found[name] = bytes(column).decode("utf-8", "replace")
            elif kind == "jsonb":
                found[name] = orjson.loads(column[1:])
        return found
    except (ValueError, IndexError, struct.error):
        return None
