"""Bindings: a consumer uses a version, which is then neither retired nor yanked under it, until it lets go."""

from __future__ import annotations

from uuid import UUID

from services.registry.errors import NotReusable
from services.registry.reuse.store import Binding, BindingsAsked, Place, Reuse
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound
from shared.events.base import Actor
from shared.events.registry import BindingCreated
from shared.identity.principal import Principal
from shared.ids import new_id


class Bindings:
    """Binding holds the asset, as retiring and yanking do, so that neither passes the other by."""

    def __init__(self, database: Database, store: Store, reuse: Reuse, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._reuse = reuse
        self._clock = clock

    async def create(self, caller: Principal, urn: str, version: int, consumer: str, purpose: str) -> Binding:
        """Without an intent, for who knows what to use. Raises NotFound or NotReusable."""
        async with self._database.begin(caller.workspace) as tx:
            return await self.bind(tx, caller.actor, urn, version, consumer, purpose, None)

    async def bind(
        self, tx: Transaction, who: Actor, urn: str, version: int, consumer: str, purpose: str, intent_id: UUID | None
    ) -> Binding:
        """Who is bound to the version already gets that binding. Raises NotFound or NotReusable."""
        if await self._store.versions.hold(tx, urn) is None:
            raise NotFound(f"there is no {urn}")
        found = await self._store.versions.one(tx, urn, version)
        if found is None:
            raise NotFound(f"there is no {urn}@{version}")
        if found.yanked_at is not None:
            raise NotReusable(f"{found.ref} was yanked at {found.yanked_at.isoformat()}")
        now = self._clock()
        stage = await self._store.pointers.stage(tx, urn, version, now)
        if stage is not None and stage.after == "retired":
            raise NotReusable(f"{found.ref} is retired: {stage.reason}"[:4000])
        before = await self._reuse.bound(tx, urn, version, consumer)
        if before is not None:
            return before
        binding = Binding(new_id(), urn, version, consumer, purpose, intent_id, who, now)
        await self._reuse.add_binding(tx, binding)
        tx.emit(BindingCreated(binding_id=binding.id, asset=found.ref, consumer=consumer, purpose=purpose, actor=who))
        return binding

    async def one(self, caller: Principal, binding_id: UUID) -> Binding:
        """Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._one(tx, binding_id)

    async def listed(self, caller: Principal, asked: BindingsAsked, below: Place, most: int) -> list[Binding]:
        """Newest first."""
        async with self._database.begin(caller.workspace) as tx:
            return await self._reuse.bindings(tx, asked, below, most)

    async def release(self, caller: Principal, binding_id: UUID, reason: str) -> Binding:
        """The consumer lets go; the binding stays in the log. The same again changes nothing. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            await self._one(tx, binding_id)
            await self._reuse.release(tx, binding_id, reason, caller.actor, self._clock())
            return await self._one(tx, binding_id)

    async def _one(self, tx: Transaction, binding_id: UUID) -> Binding:
        found = await self._reuse.binding(tx, binding_id)
        if found is None:
            raise NotFound(f"there is no binding {binding_id}")
        return found
