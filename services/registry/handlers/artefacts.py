"""Bytes: taken in as they stream, and looked at before a version rests on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from services.registry import formats
from services.registry.domain import Material
from services.registry.errors import ArtefactMissing, SizeMismatch
from services.registry.store import Store
from shared.artefacts import ArtefactStore
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound
from shared.identity.principal import Principal

AT_ONCE_BYTES = 64 * 1024 * 1024
AT_ONCE_MATERIALS = 50


class Artefacts:
    """The artefact store, as far as the registry is concerned with it."""

    def __init__(self, database: Database, store: Store, artefacts: ArtefactStore, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._artefacts = artefacts
        self._clock = clock

    async def upload(self, caller: Principal, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Keep bytes under their digest; returns their size. Raises IntegrityFailed, and keeps nothing then."""
        _, size = await self._artefacts.put(chunks, expected=digest)
        async with self._database.begin(caller.workspace) as tx:
            await self._store.hold_artefacts(tx, [(digest, size)], self._clock())
        return size

    async def download(self, caller: Principal, digest: str) -> tuple[int, AsyncIterator[bytes]]:
        """Size and bytes of what the caller's workspace holds. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            size = await self._store.artefact_size(tx, digest)
        if size is None or await self._artefacts.size(digest) is None:
            raise NotFound(f"artefact {digest[:80]} is not held here")
        return size, self._artefacts.read(digest)

    async def ready_at_once(self, materials: Sequence[Material]) -> bool:
        """True when all bytes are here, and few enough for a Kafka handler to look at. Raises ArtefactMissing."""
        total, here = 0, True
        for size, material in zip(await self._sizes(materials), materials, strict=True):
            if size is None:
                if material.uri is None:
                    raise ArtefactMissing(
                        f"{material.digest} is not here; upload it to /registry/v1/artefacts/{{digest}}, "
                        "or say with `uri` where to fetch it"
                    )
                here = False
            total += size or 0
        return here and total <= AT_ONCE_BYTES and len(materials) <= AT_ONCE_MATERIALS

    async def check(self, materials: Sequence[Material]) -> dict[str, int]:
        """Sizes by digest, when all bytes are here and what they are said to be. Raises Refused, saying what is not."""
        found: dict[str, int] = {}
        for size, material in zip(await self._sizes(materials), materials, strict=True):
            if size is None:
                raise ArtefactMissing(f"{material.digest} is not here")
            if material.size is not None and material.size != size:
                raise SizeMismatch(f"{material.digest} has {size} bytes, not {material.size}")
            await formats.check(self._artefacts, material.digest, size, material.format)
            found[material.digest] = size
        return found

    async def _sizes(self, materials: Sequence[Material]) -> list[int | None]:
        return await asyncio.gather(*(self._artefacts.size(material.digest) for material in materials))
