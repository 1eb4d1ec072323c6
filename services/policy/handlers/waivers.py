"""Waivers: a rule set aside for one version by two people, signed, until it expires; and what is protected."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.policy import domain
from services.policy.domain import Approver
from services.policy.errors import DigestDiffers, NothingToWaive, UnknownVersion, WaiverDecided
from services.policy.handlers.gates import Gates
from services.policy.store import Asset, Row, Store, Verdict, Waiver, WaiverStore
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import NotFound
from shared.events.base import Actor
from shared.events.policy import Envelope, PolicyPublished, WaiverSigned
from shared.http import etag, matches
from shared.identity import dsse
from shared.ids import canonical, digest_of, new_id

PAYLOAD_TYPE = "application/vnd.mintmark.waiver+json"
KEYID = "policy"
UNPROTECTED: dict[str, Any] = {"aliases": [], "labels": [], "stages": [], "intents": False}
"""A fresh workspace protects nothing, as users of MLflow and Langfuse expect; traffic is guarded in any case."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a person wants set aside. `digest`, when given, must be the version's."""

    urn: str
    version: int
    measure: str
    reason: str
    expires_in_days: int
    digest: str | None = None


class Waivers:
    """`key` signs; a waiver's coming and going is a new gate at once."""

    def __init__(
        self, database: Database, store: Store, waivers: WaiverStore, gates: Gates, clock: Clock, key: Ed25519PrivateKey
    ) -> None:
        self._database = database
        self._store = store
        self._waivers = waivers
        self._gates = gates
        self._clock = clock
        self._key = key

    async def propose(self, workspace: str, proposer: Actor, wish: Proposal) -> Waiver:
        """The first of two signatures. Raises UnknownVersion, DigestDiffers, FourEyes or NothingToWaive."""
        async with self._database.begin(workspace) as tx:
            asset = await self._asset(tx, wish.urn, wish.version)
            if wish.digest not in (None, asset.ref.digest):
                raise DigestDiffers(f"{asset.ref} has digest {asset.ref.digest}, not {wish.digest}")
            domain.require_may_propose(asset.author, proposer)
            gate = await self._store.newest_gate(tx, wish.urn, wish.version)
            observed = _against(gate, wish.measure)
            waiver_id, now = new_id(), self._clock()
            waiver = Waiver(
                0, waiver_id, asset.ref, wish.measure, observed, wish.reason, proposer, now,
                now + timedelta(days=wish.expires_in_days), "proposed", None, None, None, None, None,
            )  # fmt: skip
            await self._waivers.propose(tx, waiver)
            return waiver

    async def decide(
        self, workspace: str, signer: Approver, waiver_id: UUID, decision: Literal["signed", "refused"], reason: str
    ) -> Waiver:
        """The second person signs or refuses. Raises NotFound, WaiverDecided, FourEyes or ReleaseManagerNeeded."""
        async with self._database.begin(workspace) as tx:
            waiver = await self._open(tx, waiver_id, "proposed")
            asset, now = await self._asset(tx, waiver.asset.urn, waiver.asset.version), self._clock()
            if waiver.expires_at <= now:
                raise WaiverDecided("the time for which this waiver was proposed is over; propose another one")
            statement = None
            if decision == "signed":
                domain.require_may_sign(asset.author, waiver.proposer, signer)
                statement = self._sign(workspace, waiver, signer.actor, now)
            await self._waivers.decide(tx, waiver_id, decision, signer.actor, reason, statement, now)
            if decision == "signed":
                tx.emit(_said(waiver, signer.actor, statement))
                await self._gates.decide_again(tx, asset)
            return await self._one(tx, waiver_id)

    async def withdraw(self, workspace: str, actor: Approver, waiver_id: UUID, reason: str) -> Waiver:
        """Take a signed waiver back; what was let through by it is so no longer. Raises NotFound or WaiverDecided."""
        async with self._database.begin(workspace) as tx:
            waiver = await self._open(tx, waiver_id, "signed")
            asset, now = await self._asset(tx, waiver.asset.urn, waiver.asset.version), self._clock()
            await self._waivers.decide(tx, waiver_id, "withdrawn", actor.actor, reason, None, now)
            assert waiver.signer is not None
            signed = Envelope.model_validate(waiver.statement)
            tx.emit(_said(waiver, waiver.signer, signed).model_copy(update={"withdrawn_at": now}))
            await self._gates.decide_again(tx, asset, withdrawn=True)
            return await self._one(tx, waiver_id)

    async def one(self, workspace: str, waiver_id: UUID) -> Waiver:
        """One waiver. Raises NotFound."""
        async with self._database.begin(workspace) as tx:
            return await self._one(tx, waiver_id)

    async def listed(
        self, workspace: str, urn: str | None, status: str | None, after: int | None, most: int
    ) -> list[Waiver]:
        """Newest first."""
        async with self._database.begin(workspace) as tx:
            return await self._waivers.listed(tx, urn, status, self._clock(), after, most)

    def now(self) -> datetime:
        return self._clock()

    # What is protected

    async def protection(self, workspace: str, at: datetime | None = None) -> Row:
        """What moves only to a version that was let through, now or at a time."""
        async with self._database.begin(workspace) as tx:
            row = await self._waivers.protection(tx, at)
        return row if row is not None else _unprotected()

    async def protections(self, workspace: str) -> list[Row]:
        """Every version of it, newest first."""
        async with self._database.begin(workspace) as tx:
            return await self._waivers.protections(tx)

    async def protect(
        self, workspace: str, document: dict[str, Any], actor: Actor, reason: str, if_match: str | None
    ) -> Row:
        """Publish what is protected from now on; the same again changes nothing."""
        async with self._database.begin(workspace) as tx:
            await self._waivers.lock_protection(tx)
            current = await self._waivers.protection(tx) or _unprotected()
            matches(if_match, etag(current["digest"]), required=False)
            digest, now = digest_of(document), self._clock()
            if current["number"] and current["digest"] == digest:
                return current
            number = current["number"] + 1
            await self._waivers.protect(tx, number, document, digest, actor, reason, now)
            tx.emit(
                PolicyPublished(
                    policy="protection",
                    number=number,
                    document=document,
                    digest=digest,
                    actor=actor,
                    published_at=now,
                )
            )
            found = await self._waivers.protection(tx)
            assert found is not None
            return found

    async def _asset(self, tx: Transaction, urn: str, version: int) -> Asset:
        """The version, held until the transaction ends. Raises UnknownVersion."""
        asset = await self._store.asset(tx, urn, version, lock=True)
        if asset is None:
            raise UnknownVersion(f"{urn}@{version} is not registered in your workspace")
        return asset

    async def _open(self, tx: Transaction, waiver_id: UUID, status: str) -> Waiver:
        waiver = await self._one(tx, waiver_id, lock=True)
        if waiver.status != status:
            raise WaiverDecided(f"waiver {waiver_id} is {waiver.status}, not {status}")
        return waiver

    async def _one(self, tx: Transaction, waiver_id: UUID, *, lock: bool = False) -> Waiver:
        waiver = await self._waivers.one(tx, waiver_id, lock=lock)
        if waiver is None:
            raise NotFound(f"there is no waiver {waiver_id} in your workspace")
        return waiver

    def _sign(self, workspace: str, waiver: Waiver, signer: Actor, now: datetime) -> Envelope:
        payload = domain.waiver_statement(
            waiver_id=str(waiver.waiver_id),
            workspace=workspace,
            asset=waiver.asset,
            measure=waiver.measure,
            observed=waiver.observed,
            signers=(waiver.proposer, signer),
            reason=waiver.reason,
            expires_at=waiver.expires_at,
            signed_at=now,
        )
        return Envelope.model_validate(dsse.sign(canonical(payload), PAYLOAD_TYPE, self._key, KEYID).model_dump())


def _against(gate: Verdict | None, measure: str) -> float | None:
    """What was measured under the rule that is to be set aside. Raises NothingToWaive."""
    if measure == domain.EVALUATION and (gate is None or any(rule["outcome"] == "no-data" for rule in gate.rules)):
        return None
    for rule in gate.rules if gate else ():
        if rule["measure"] == measure and rule["outcome"] != "pass":
            return rule["observed"]["value"] if rule["observed"] else None
    if ":" in measure:
        return None  # not a gate's: `format:pickle` and its like are read by the registry
    names = sorted({rule["measure"] for rule in gate.rules if rule["outcome"] != "pass"}) if gate else []
    raise NothingToWaive(
        f"{measure!r} does not stand against this version; "
        + (f"these do: {', '.join(names)}" if names else f"without a gate, only {domain.EVALUATION!r} can be waived")
    )


def _said(waiver: Waiver, signer: Actor, statement: Envelope | None) -> WaiverSigned:
    return WaiverSigned(
        waiver_id=waiver.waiver_id,
        asset=waiver.asset,
        measure=waiver.measure,
        observed=waiver.observed,
        signers=(waiver.proposer, signer),
        reason=waiver.reason,
        expires_at=waiver.expires_at,
        statement=statement,
    )


def _unprotected() -> dict[str, Any]:
    return {
        "number": 0,
        "document": UNPROTECTED,
        "digest": digest_of(UNPROTECTED),
        "actor": domain.SERVICE.model_dump(),
        "reason": "a fresh workspace protects nothing",
        "published_at": None,
    }
