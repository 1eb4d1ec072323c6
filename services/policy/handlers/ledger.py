"""The ledger: every event recorded, chained, read, verified and exported with a signed head."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.policy import verifier
from services.policy.errors import NoSuchEntry
from services.policy.store import LedgerStore
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database, Transaction
from shared.events.envelope import Envelope, Origin
from shared.identity import dsse
from shared.ids import canonical

KEYID = "policy"
BATCH = 1000


class Ledger:
    """`waiting` is set when events have arrived that are not in the chain yet."""

    def __init__(self, database: Database, store: LedgerStore, clock: Clock, key: Ed25519PrivateKey) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._key = key
        self.waiting = asyncio.Event()

    async def record(self, tx: Transaction, envelope: Envelope, origin: Origin) -> None:
        """Take one event in, whatever it is."""
        await self._store.arrive(tx, envelope, origin)
        self.waiting.set()

    async def seal(self) -> int:
        """Put what waits into its workspaces' chains; returns how many entries that made."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            workspaces = await self._store.waiting(tx)
        sealed = 0
        for workspace in workspaces:
            async with self._database.begin(workspace) as tx:
                sealed += await self._store.seal(tx, BATCH)
        return sealed

    async def entries(
        self,
        workspace: str,
        after: int,
        most: int,
        *,
        key: str | None = None,
        type: str | None = None,
        trace: str | None = None,
    ) -> list[dict[str, Any]]:
        """Entries in order; `data` is bytes."""
        async with self._database.begin(workspace) as tx:
            return await self._store.entries(tx, after, most, key=key, type=type, trace=trace)

    async def entry(self, workspace: str, index: int) -> dict[str, Any]:
        """One entry. Raises NoSuchEntry."""
        async with self._database.begin(workspace) as tx:
            found = await self._store.entry(tx, index)
        if found is None:
            raise NoSuchEntry(f"the ledger of your workspace has no entry {index}")
        return found

    async def head(self, workspace: str) -> dict[str, Any]:
        """A signed statement of how far the chain goes: keep it elsewhere, and a shorter or rewritten ledger shows."""
        async with self._database.begin(workspace) as tx:
            index, hash_ = await self._store.head(tx)
        return self._signed(workspace, index, hash_)

    def _signed(self, workspace: str, index: int, hash_: str) -> dict[str, Any]:
        payload = {
            "type": "ledger-head",
            "workspace": workspace,
            "index": index,
            "hash": hash_,
            "at": self._clock().isoformat(),
        }
        return dsse.sign(canonical(payload), verifier.HEAD_TYPE, self._key, KEYID).model_dump()

    async def verify(self, workspace: str) -> verifier.Finding:
        """Walk the chain up to its present head, in pages, hashing beside the event loop."""
        async with self._database.begin(workspace) as tx:
            index, hash_ = await self._store.head(tx)
        walk = verifier.Walk()
        async for page in self._pages(workspace, index):
            await asyncio.to_thread(_walk, walk, page)
        return walk.end(verifier.Head(workspace, index, hash_))

    async def export(self, workspace: str) -> AsyncIterator[bytes]:
        """JSON lines: every entry up to the present head, then the signed head."""
        async with self._database.begin(workspace) as tx:
            index, hash_ = await self._store.head(tx)
        async for page in self._pages(workspace, index):
            yield b"".join(orjson.dumps(document(entry)) + b"\n" for entry in page)
        yield orjson.dumps({"head": self._signed(workspace, index, hash_)}) + b"\n"

    async def _pages(self, workspace: str, last: int) -> AsyncIterator[list[dict[str, Any]]]:
        after = 0
        while after < last:
            page = [entry for entry in await self.entries(workspace, after, BATCH) if entry["index"] <= last]
            if not page:
                return
            yield page
            after = page[-1]["index"]


def document(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as JSON. Data that are not UTF-8 travel as base64 under `data_base64`."""
    shown = {name: value for name, value in entry.items() if name != "data"}
    return {**shown, **verifier.data_fields(entry["data"])}


def _walk(walk: verifier.Walk, page: list[dict[str, Any]]) -> None:
    for entry in page:
        walk.step(document(entry))
