"""Rows of providers as values, and back. Sealed keys go in, and come out only to be wrapped anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.router.gateway.conversation import JsonObject
from services.router.gateway.providers import Upstream
from services.router.gateway.providers.configuration import upstream_of
from services.router.gateway.sealing import Sealed
from shared.db.database import Transaction

NO_MODEL = "-"
"""Stands for the model where a provider is read that names none of its own."""


@dataclass(frozen=True, slots=True)
class Provider:
    """How a provider is asked, and since when it has a key, if it has one."""

    name: str
    configuration: JsonObject
    revision: int
    created_at: datetime
    changed_at: datetime
    changed_by: str
    key_set_at: datetime | None = None
    key_set_by: str | None = None

    def upstream(self, model: str = "") -> Upstream:
        """For one of its models, by default its own. Raises FieldRefused when neither is named."""
        found = dict(self.configuration)
        if model:
            found["model"] = model
        return upstream_of(found)


def read(configuration: JsonObject) -> Upstream:
    """A configuration that may leave the model to whoever asks. Raises FieldRefused."""
    return upstream_of({"model": NO_MODEL, **configuration})


class ProviderStore:
    """Reads and writes in a transaction that it is given; `queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    async def add(self, tx: Transaction, name: str, configuration: JsonObject, at: datetime, who: str) -> None:
        """A taken name is a UniqueViolationError."""
        await self._sql.insert_provider(
            tx.connection, workspace=tx.workspace, name=name, configuration=configuration, at=at, who=who
        )

    async def replace(
        self,
        tx: Transaction,
        name: str,
        configuration: JsonObject,
        expected: int,
        at: datetime,
        who: str,
        *,
        keeps_key: bool,
    ) -> bool:
        """False when it is not at the expected revision any more."""
        done = await self._sql.replace_provider(
            tx.connection, name=name, configuration=configuration, expected=expected, keeps_key=keeps_key,
            at=at, who=who,
        )  # fmt: skip
        return done is not None

    async def set_key(self, tx: Transaction, name: str, expected: int, sealed: Sealed, at: datetime, who: str) -> bool:
        """False when it is not at the expected revision any more."""
        done = await self._sql.set_key(
            tx.connection, name=name, expected=expected, sealed=sealed.to_json(), at=at, who=who
        )
        return done is not None

    async def one(self, tx: Transaction, name: str) -> Provider | None:
        row = await self._sql.provider(tx.connection, name=name)
        return None if row is None else _provider(row)

    async def all(self, tx: Transaction, after: str, most: int) -> list[Provider]:
        return [_provider(row) async for row in self._sql.providers(tx.connection, after=after, most=most)]

    async def users(self, tx: Transaction, name: str) -> list[str]:
        """The groups in whose traffic or routing the provider is named, at whatever revision is in force."""
        return [row["name"] async for row in self._sql.provider_users(tx.connection, name=name)]

    async def remove(self, tx: Transaction, name: str) -> None:
        await self._sql.remove_provider(tx.connection, name=name)

    async def sealed(self, tx: Transaction) -> dict[str, Sealed]:
        """By provider; nobody else changes them until the transaction is over. Raises SealBroken."""
        return {row["name"]: Sealed.from_json(row["sealed"]) async for row in self._sql.sealed_keys(tx.connection)}

    async def rewrapped(self, tx: Transaction, name: str, sealed: Sealed) -> None:
        await self._sql.rewrap_key(tx.connection, name=name, sealed=sealed.to_json())


def _provider(row: Mapping[str, Any]) -> Provider:
    return Provider(**dict(row))
