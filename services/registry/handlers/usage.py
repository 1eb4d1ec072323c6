"""What uses a version: asked before it is hidden or retired, and shown beside it."""

from __future__ import annotations

from datetime import datetime

from services.registry.domain.assets import Version
from services.registry.store import Store
from shared.db.database import Transaction


async def users(store: Store, tx: Transaction, version: Version, now: datetime) -> list[str]:
    """Aliases that point at it, and everything that `serves` names."""
    ref = version.ref
    aliases = [move for move in await store.pointers.aliases(tx, ref.urn, now) if move.after == ref.version]
    return [f"alias {move.name}" for move in aliases] + await serves(store, tx, version)


async def serves(store: Store, tx: Transaction, version: Version) -> list[str]:
    """What outside of the registry uses a version, and which other versions, not retired, rest on it."""
    ref = version.ref
    found = []
    for finding in await store.graph.findings(tx, ref.urn, ref.version):
        document = finding.document
        if finding.kind == "group" and document.get("serves"):
            found.append(f"group {document.get('group')}")
        if finding.kind == "deployment" and "completed_at" in document:  # failed and withdrawn ones have another
            found.append(f"deployment {finding.id}")
    found += [f"consumer {consumer}" for consumer in await store.versions.consumers(tx, ref.urn, ref.version)]
    resting = [name.rpartition("@") for name in await store.graph.resting_on(tx, str(ref)) if "@" in name]
    versions = [(urn, int(number)) for urn, _, number in resting]
    retired = await store.pointers.retired_among(tx, versions)
    return found + [f"version {urn}@{number}" for urn, number in versions if (urn, number) not in retired]
