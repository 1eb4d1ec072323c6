"""Snapshots: every labelled prompt in one signed file, for applications that must start with everything down."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.prompts.errors import NoSigningKey, SnapshotTooLarge
from services.prompts.store import Store, reading
from shared.clock import Clock
from shared.db.database import Database
from shared.identity import dsse
from shared.identity.principal import Principal

PAYLOAD_TYPE = "application/vnd.mintmark.prompts-snapshot+json"
KEYID = "prompts"
MOST = 20_000
MOST_BYTES = 100 * 1024 * 1024


class Snapshots:
    """`key` signs; clients hold its public half in their trust file."""

    def __init__(self, database: Database, store: Store, key: Ed25519PrivateKey | None, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._key = key
        self._clock = clock

    async def signed(self, caller: Principal, labels: Sequence[str]) -> dsse.Envelope:
        """The labels' versions (of all labels without names). Raises NoSigningKey, SnapshotTooLarge."""
        if self._key is None:
            raise NoSigningKey()
        async with reading(self._database, caller.workspace) as tx:
            versions = await self._store.labels.labelled(tx, list(labels) or None)
        payload = orjson.dumps(
            {
                "type": "prompts-snapshot",
                "workspace": caller.workspace,
                "at": self._clock().isoformat(),
                "labels": sorted(labels) or None,
                "prompts": versions,
            }
        )
        if len(versions) > MOST or len(payload) > MOST_BYTES:
            raise SnapshotTooLarge(f"more than {MOST} versions or {MOST_BYTES} bytes; name the labels that you need")
        return dsse.sign(payload, PAYLOAD_TYPE, self._key, KEYID)
