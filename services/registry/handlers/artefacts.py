"""Bytes: taken in as they stream, and looked at before a version rests on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from datetime import datetime

from services.registry import formats
from services.registry.domain.assets import Material, materials
from services.registry.errors import ArtefactDangerous, ArtefactMissing, PickleRefused, ScanFailed, SizeMismatch
from services.registry.scanning import process
from services.registry.scanning.statement import PICKLE_FORMATS
from services.registry.scanning.store import Scans
from services.registry.sources import Sources
from services.registry.store import Store
from shared.artefacts import ArtefactStore
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound
from shared.events.upstream import AssetSubmitted
from shared.identity.principal import Principal

AT_ONCE_BYTES = 64 * 1024 * 1024
AT_ONCE_MATERIALS = 50


async def claim(store: Store, artefacts: ArtefactStore, tx: Transaction, digests: Collection[str]) -> None:
    """Bytes that are here stay here until commit, and for as long as they are held. Raises ArtefactMissing."""
    unsure = sorted(set(digests) - await store.versions.claim(tx, digests))
    for digest, size in zip(unsure, await asyncio.gather(*map(artefacts.size, unsure)), strict=True):
        if size is None:
            raise ArtefactMissing(
                f"{digest} was removed here just now, since what rested on it may be kept no longer; upload it again"
            )


async def hold(store: Store, artefacts: ArtefactStore, tx: Transaction, digest: str, size: int, at: datetime) -> None:
    """From now on this workspace holds these bytes, that were just put. Raises ArtefactMissing as `claim`."""
    await claim(store, artefacts, tx, [digest])
    await store.versions.hold_artefacts(tx, [(digest, size)], at)


class Artefacts:
    """The artefact store, as far as the registry is concerned with it."""

    def __init__(
        self,
        database: Database,
        store: Store,
        artefacts: ArtefactStore,
        sources: Sources,
        scans: Scans,
        clock: Clock,
        most_bytes: int,
    ) -> None:
        self._database = database
        self._store = store
        self._artefacts = artefacts
        self._sources = sources
        self._scans = scans
        self._clock = clock
        self._most_bytes = most_bytes

    async def upload(self, caller: Principal, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Keep bytes under their digest; returns their size. Raises IntegrityFailed, and keeps nothing then.

        Raises ArtefactMissing where retention removed them before they were held.
        """
        _, size = await self._artefacts.put(chunks, expected=digest)
        async with self._database.begin(caller.workspace) as tx:
            await hold(self._store, self._artefacts, tx, digest, size, self._clock())
        return size

    async def claim(self, tx: Transaction, digests: Collection[str]) -> None:
        """Bytes that are here stay here until commit, and for as long as they are held. Raises ArtefactMissing."""
        await claim(self._store, self._artefacts, tx, digests)

    async def download(self, caller: Principal, digest: str) -> tuple[int, AsyncIterator[bytes]]:
        """Size and bytes of what the caller's workspace holds. Raises NotFound."""
        async with self._database.begin(caller.workspace) as tx:
            size = await self._store.versions.artefact_size(tx, digest)
        if size is None or await self._artefacts.size(digest) is None:
            raise NotFound(f"artefact {digest[:80]} is not held here")
        return size, self._artefacts.read(digest)

    async def ready_at_once(self, asked: Sequence[Material]) -> bool:
        """True when all bytes are here, and few enough for a Kafka handler to look at. Raises Refused."""
        total, here = 0, True
        for size, material in zip(await self._sizes(asked), asked, strict=True):
            if size is None:
                if material.uri is None:
                    raise ArtefactMissing(
                        f"{material.digest} is not here; upload it to /registry/v1/artefacts/{{digest}}, "
                        "or say with `uri` where to fetch it"
                    )
                self._sources.check(material.uri)
                here = False
            total += size or 0
        scanned = any(material.format in PICKLE_FORMATS for material in asked)
        return here and not scanned and total <= AT_ONCE_BYTES and len(asked) <= AT_ONCE_MATERIALS

    async def gather(self, workspace: str, event: AssetSubmitted) -> dict[str, int]:
        """Fetch what is not here, then look at all of it; sizes by digest. Raises Refused, or Unavailable to retry."""
        found = materials(event)
        for size, material in zip(await self._sizes(found), found, strict=True):
            if size is None and material.uri is not None:
                most = self._most_bytes if material.size is None else min(material.size, self._most_bytes)
                async with aclosing(self._sources.read(material.uri, most)) as chunks:
                    await self._artefacts.put(chunks, expected=material.digest)
        sizes = await self.check(found, scanned_too=True)
        for material in found:
            if material.format in PICKLE_FORMATS:
                await self._scan(workspace, material)
        return sizes

    async def _scan(self, workspace: str, material: Material) -> None:
        """Keep what the scanners say, whatever it is. Raises ArtefactDangerous or ScanFailed."""
        chunks = self._artefacts.read(material.digest)
        scan = await process.scan(chunks, material.digest, material.format, self._clock)
        async with self._database.begin(workspace) as tx:
            await self._scans.keep(tx, scan)
        said = "; ".join(f"{one.scanner}: {', '.join(one.findings[:5])}" for one in scan.statements if one.findings)
        if scan.verdict == "dangerous":
            raise ArtefactDangerous(f"{material.digest} runs what models have no need of ({said})"[:4000])
        if scan.verdict == "unreadable":
            raise ScanFailed(
                f"{material.digest} cannot be read to its end, so anything may stand there ({said})"[:4000]
            )

    async def check(self, asked: Sequence[Material], *, scanned_too: bool = False) -> dict[str, int]:
        """Sizes by digest, when all bytes are here and what they are said to be. Raises Refused, saying what is not.

        With `scanned_too` whoever asks takes pickles to the scanners; else they are refused.
        """
        found: dict[str, int] = {}
        for size, material in zip(await self._sizes(asked), asked, strict=True):
            if size is None:
                raise ArtefactMissing(f"{material.digest} is not here")
            if material.size is not None and material.size != size:
                raise SizeMismatch(f"{material.digest} has {size} bytes, not {material.size}")
            if material.format in PICKLE_FORMATS and not scanned_too:
                raise PickleRefused()
            await formats.check(self._artefacts, material.digest, size, material.format)
            found[material.digest] = size
        return found

    async def _sizes(self, asked: Sequence[Material]) -> list[int | None]:
        return await asyncio.gather(*(self._artefacts.size(material.digest) for material in asked))
