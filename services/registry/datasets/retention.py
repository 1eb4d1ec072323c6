"""What goes when a dataset's time is over, and the receipt of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.registry.datasets.store import Bytes, Keeping
from shared.events.base import Actor, AssetRef
from shared.events.upstream import Manifest
from shared.identity import dsse
from shared.ids import canonical

RECEIPT_TYPE = "application/vnd.mintmark.retention+json"
KEYID = "registry"
SHARED = "something else of this workspace rests on it"
CLAIMED = "it is held elsewhere"


def plan(found: Iterable[Bytes]) -> dict[str, Any]:
    """Which bytes are let go, and which stay, since something else rests on them."""
    goes: list[dict[str, Any]] = []
    stays: list[dict[str, Any]] = []
    for one in found:
        (stays if one.shared else goes).append({"digest": one.digest, "size": one.size})
    return {"goes": goes, "stays": stays}


def receipt(
    workspace: str,
    ref: AssetRef,
    manifest: Manifest,
    keeping: Keeping,
    claimed: set[str],
    now: datetime,
    actor: Actor,
    key: Ed25519PrivateKey | None,
) -> dict[str, Any]:
    """Who removed what of which version, when and why; `envelope` is the same, signed, null without a key."""
    assert keeping.plan is not None and keeping.released_at is not None
    paths: dict[str, list[str]] = {}
    for file in manifest.files:
        paths.setdefault(file.digest, []).append(file.path)
    removed = [
        {**one, "paths": paths.get(one["digest"], [])} for one in keeping.plan["goes"] if one["digest"] not in claimed
    ]
    kept = [{"digest": one["digest"], "why": SHARED} for one in keeping.plan["stays"]]
    kept += [{"digest": one["digest"], "why": CLAIMED} for one in keeping.plan["goes"] if one["digest"] in claimed]
    payload = {
        "kind": "retention",
        "workspace": workspace,
        "dataset": str(ref),
        "digest": ref.digest,
        "retention_days": manifest.retention_days,
        "expired_at": keeping.expires_at.isoformat() if keeping.expires_at else None,
        "released_at": keeping.released_at.isoformat(),
        "erased_at": now.isoformat(),
        "by": actor.id,
        "removed": removed,
        "kept": kept,
        "row_hashes": "removed",
        "manifest": "kept",
    }
    signed = None if key is None else dsse.sign(canonical(payload), RECEIPT_TYPE, key, KEYID)
    return {"payload": payload, "envelope": None if signed is None else signed.model_dump()}
