"""Providers: set up, changed, and given their keys, which are sealed before they are stored and shown to nobody."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import Literal

import asyncpg

from services.router.domain import GROUP_NAME
from services.router.errors import (
    FieldRefused,
    ProviderInUse,
    ProviderNameTaken,
    ProviderRevisionConflict,
    SealBroken,
    UnknownProvider,
    UpstreamError,
)
from services.router.gateway.addresses import BaseUrl, Resolver
from services.router.gateway.conversation import JsonObject
from services.router.gateway.providers import Upstream, provider_of
from services.router.gateway.sealing import Belonging, MasterKey, Sealed, Sealer, Secret
from services.router.providers.store import Provider, ProviderStore, read
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.events.base import Actor
from shared.events.router import ProviderChanged

LOOK_UP_S = 3.0
Change = Literal["created", "changed", "key_set", "key_rotated", "key_rewrapped", "removed"]


@dataclass(frozen=True, slots=True)
class Changer:
    """Who changes a provider."""

    workspace: str
    actor: Actor

    @property
    def who(self) -> str:
        return self.actor.id


class Providers:
    """`master` is None where the installation has no master key: then no key can be set."""

    def __init__(
        self, database: Database, store: ProviderStore, master: MasterKey | None, resolver: Resolver, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._sealer = Sealer(master) if master is not None else None
        self._resolver = resolver
        self._clock = clock

    async def create(self, by: Changer, name: str, configuration: JsonObject) -> Provider:
        """A provider without a key. Raises FieldRefused, AddressRefused, ProviderNameTaken."""
        if GROUP_NAME.fullmatch(name) is None:
            raise FieldRefused("name", "must be 1 to 48 lower-case letters, digits and hyphens, a letter first")
        await self._require_reachable(read(configuration))
        try:
            async with self._database.begin(by.workspace) as tx:
                await self._store.add(tx, name, configuration, self._clock(), by.who)
                return self._said(tx, by, "created", await self.find(tx, name))
        except asyncpg.UniqueViolationError:
            raise ProviderNameTaken(f"There is a provider {name!r} already; change that one.") from None

    async def replace(self, by: Changer, name: str, configuration: JsonObject, expected: int) -> Provider:
        """The same provider asked in another way, by every gateway within the second.

        Where its address becomes another, its key is gone: nobody who may change addresses is thereby sent a key that
        somebody else has set.

        Raises UnknownProvider, FieldRefused, AddressRefused, ProviderRevisionConflict.
        """
        after = read(configuration)
        await self._require_reachable(after)
        async with self._database.begin(by.workspace) as tx:
            before = await self.find(tx, name)
            keeps = _goes_to(read(before.configuration)) == _goes_to(after)
            now = self._clock()
            if not await self._store.replace(tx, name, configuration, expected, now, by.who, keeps_key=keeps):
                raise ProviderRevisionConflict(name, expected, before.revision)
            return self._said(tx, by, "changed", await self.find(tx, name))

    async def set_key(self, by: Changer, name: str, key: Secret) -> Provider:
        """Set the key, or another in its place; requests in flight end with the one that they began with.

        Raises UnknownProvider, SealBroken, ProviderRevisionConflict.
        """
        sealer = self._required_sealer()
        async with self._database.begin(by.workspace) as tx:
            before = await self.find(tx, name)
        # Not within a transaction: a KMS may take its time. In a thread: it blocks.
        sealed = await asyncio.to_thread(sealer.seal, key, Belonging(by.workspace, name))
        async with self._database.begin(by.workspace) as tx:
            if not await self._store.set_key(tx, name, before.revision, sealed, self._clock(), by.who):
                raise ProviderRevisionConflict(name, before.revision, (await self.find(tx, name)).revision)
            return self._said(tx, by, "key_rotated" if before.key_set_at else "key_set", await self.find(tx, name))

    async def remove(self, by: Changer, name: str) -> None:
        """The provider and its sealed key. Raises UnknownProvider, ProviderInUse while a group names it."""
        async with self._database.begin(by.workspace) as tx:
            provider = await self.find(tx, name)
            if users := await self._store.users(tx, name):
                raise ProviderInUse(name, users)
            await self._store.remove(tx, name)
            self._said(tx, by, "removed", replace(provider, key_set_at=None))

    async def rewrap(self, by: Changer) -> int:
        """Wrap every key of the workspace by the present master key; how many were not. Raises SealBroken."""
        sealer = self._required_sealer()
        done = 0
        async with self._database.begin(by.workspace) as tx:
            for name, sealed in (await self._store.sealed(tx)).items():
                again: Sealed = await asyncio.to_thread(sealer.rewrap, sealed, Belonging(by.workspace, name))
                if again != sealed:
                    await self._store.rewrapped(tx, name, again)
                    self._said(tx, by, "key_rewrapped", await self.find(tx, name))
                    done += 1
        return done

    async def one(self, workspace: str, name: str) -> Provider:
        """Raises UnknownProvider."""
        async with self._database.begin(workspace) as tx:
            return await self.find(tx, name)

    async def listed(self, workspace: str, after: str, most: int) -> list[Provider]:
        """In the order of names."""
        async with self._database.begin(workspace) as tx:
            return await self._store.all(tx, after, most)

    async def find(self, tx: Transaction, name: str) -> Provider:
        """Raises UnknownProvider, for another workspace's provider too."""
        found = await self._store.one(tx, name)
        if found is None:
            raise UnknownProvider(name)
        return found

    def _said(self, tx: Transaction, by: Changer, change: Change, provider: Provider) -> Provider:
        """Say what became of the provider, and nothing of what it is asked with."""
        upstream = read(provider.configuration)
        tx.emit(
            ProviderChanged(
                provider=provider.name, change=change, revision=provider.revision, kind=upstream.kind,
                base_url=upstream.base_url, has_key=provider.key_set_at is not None, actor=by.actor, at=self._clock(),
            )
        )  # fmt: skip
        return provider

    def _required_sealer(self) -> Sealer:
        if self._sealer is None:
            raise SealBroken("There is no master key to seal a key with: set MINTMARK_ROUTER_MASTER_KEY_FILE.")
        return self._sealer

    async def _require_reachable(self, upstream: Upstream) -> None:
        """Say at once that an address will be refused. Gateways look for themselves, at each connection."""
        base = BaseUrl.parse(upstream.base_url or provider_of(upstream).default_base(upstream))
        # A host that cannot be looked up from here may be known where the gateways are.
        with contextlib.suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(LOOK_UP_S):
                await self._resolver.resolve(base.host, base.port)


def _goes_to(upstream: Upstream) -> tuple[str, str, str, str]:
    """Where and as what the key is sent."""
    return upstream.kind, upstream.base_url, upstream.region, upstream.key_header
