"""Approvals: what a second person decides about a version or a dataset, signed so that others can verify it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.policy import domain
from services.policy.domain import Approver, Decision, Unverified
from services.policy.errors import (
    AlreadyDecided,
    DigestDiffers,
    GateMovedOn,
    NotEvaluated,
    UnknownVersion,
    WaiverLapsed,
)
from services.policy.store import Approval, Asset, Row, Store, Verdict
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound
from shared.events.base import Actor, AssetRef
from shared.events.policy import ApprovalDecided, DatasetApproved, Envelope
from shared.identity import dsse
from shared.ids import canonical, new_id

PAYLOAD_TYPE = "application/vnd.mintmark.approval+json"
KEYID = "policy"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person decides. `digest` and `gate_id` say what they looked at; when given, they must still be so."""

    urn: str
    version: int
    decision: Decision
    reason: str
    digest: str | None = None
    gate_id: UUID | None = None
    expires_in_days: int | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A version that waits for a decision, with the gate that it is about."""

    asset: AssetRef
    kind: str
    author: Actor
    gate: Verdict


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known about why a version was let through, or not; newest first. `asset` is as it was registered."""

    asset: Asset
    gates: list[Verdict]
    approvals: list[Approval]
    standing: str


class Approvals:
    """`key` signs what was approved; deployer and gateway hold its public half."""

    def __init__(
        self, database: Database, store: Store, clock: Clock, key: Ed25519PrivateKey, unverified: Unverified, days: int
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._key = key
        self._unverified = unverified
        self._days = days

    async def decide(self, workspace: str, approver: Approver, wish: Wish) -> Approval:
        """Let a version through, or not. Raises the rule that forbids it (four-eyes, gate-rejected, no-data, …)."""
        async with self._database.begin(workspace) as tx:
            asset = await self._store.asset(tx, wish.urn, wish.version, lock=True)
            if asset is None:
                raise UnknownVersion(f"{wish.urn}@{wish.version} is not registered in your workspace")
            if wish.digest not in (None, asset.ref.digest):
                raise DigestDiffers(f"{asset.ref} has digest {asset.ref.digest}, not {wish.digest}")
            gate = await self._store.newest_gate(tx, wish.urn, wish.version)
            if gate is None:
                raise NotEvaluated()
            if wish.gate_id not in (None, gate.gate_id):
                raise GateMovedOn(f"gate {gate.gate_id} has decided since; read its evidence and decide anew")
            now = self._clock()
            stands = _standing(await self._store.newest_approval(tx, wish.urn, wish.version), gate, now)
            if stands == wish.decision or stands == "rejected":
                raise AlreadyDecided(f"{asset.ref} is {stands} already; another evaluation makes it a new question")
            approval_id, expires_at, signed = new_id(), None, None
            if wish.decision == "approved":
                results = [rule["outcome"] for rule in gate.rules]
                domain.require_may_approve(asset.author, approver, gate.verdict, results, self._unverified)  # type: ignore[arg-type]
                expires_at = now + timedelta(days=min(wish.expires_in_days or self._days, self._days))
                if gate.expires_at is not None:
                    if gate.expires_at <= now:
                        raise WaiverLapsed()
                    expires_at = min(expires_at, gate.expires_at)
                signed = self._sign(approval_id, workspace, asset, gate, approver.actor, wish.reason, now, expires_at)
            await self._store.add_approval(
                tx, approval_id, gate, asset, wish.decision, approver.actor, wish.reason, signed, expires_at, now
            )
            tx.emit(
                ApprovalDecided(
                    approval_id=approval_id,
                    asset=asset.ref,
                    decision=wish.decision,
                    approver=approver.actor,
                    author=asset.author,
                    reason=wish.reason,
                    binding=gate.binding,
                    statement=signed,
                    expires_at=expires_at,
                    decided_at=now,
                )
            )
            kept = await self._store.approval(tx, approval_id)
            assert kept is not None
            return kept

    def _sign(
        self,
        approval_id: UUID,
        workspace: str,
        asset: Asset,
        gate: Verdict,
        approver: Actor,
        reason: str,
        now: datetime,
        expires_at: datetime,
    ) -> Envelope:
        payload = domain.statement(
            approval_id=str(approval_id),
            workspace=workspace,
            asset=asset.ref,
            artefact=asset.artefact,
            bound=gate.binding,
            gate_id=str(gate.gate_id),
            policy=gate.policy,
            policy_version=gate.policy_version,
            approver=approver,
            author=asset.author,
            reason=reason,
            decided_at=now,
            expires_at=expires_at,
        )
        envelope = dsse.sign(canonical(payload), PAYLOAD_TYPE, self._key, KEYID)
        return Envelope.model_validate(envelope.model_dump())

    async def pending(self, workspace: str, after: int | None, most: int) -> list[Pending]:
        """The inbox, newest first."""
        async with self._database.begin(workspace) as tx:
            rows = await self._store.pending(tx, self._clock(), after, most)
        return [Pending(ref, row["kind"], author, gate) for ref, author, row, gate in rows]

    async def decisions(
        self, workspace: str, decision: Decision | None, after: int | None, most: int
    ) -> list[Approval]:
        """What was decided, newest first."""
        async with self._database.begin(workspace) as tx:
            return await self._store.decisions(tx, decision, after, most)

    async def decision(self, workspace: str, approval_id: UUID) -> Approval:
        """One decision. Raises NotFound."""
        async with self._database.begin(workspace) as tx:
            found = await self._store.approval(tx, approval_id)
        if found is None:
            raise NotFound(f"there is no approval {approval_id} in your workspace")
        return found

    async def evidence(self, workspace: str, urn: str, version: int) -> Evidence:
        """Why a version may go on, or may not. Raises UnknownVersion."""
        async with self._database.begin(workspace) as tx:
            asset = await self._store.asset(tx, urn, version)
            if asset is None:
                raise UnknownVersion(f"{urn}@{version} is not registered in your workspace")
            gates = await self._store.gates_of(tx, urn, version)
            approvals = await self._store.approvals_of(tx, urn, version)
        stands = _standing(approvals[0] if approvals else None, gates[0], self._clock()) if gates else "not-evaluated"
        return Evidence(asset, gates, approvals, stands)

    async def decide_dataset(
        self, workspace: str, approver: Approver, urn: str, version: int, decision: Decision, reason: str
    ) -> dict[str, Any]:
        """Let a dataset version be used, or not; four eyes here too. Raises UnknownVersion, AlreadyDecided."""
        async with self._database.begin(workspace) as tx:
            dataset = await self._store.dataset(tx, urn, version, lock=True)
            if dataset is None:
                raise UnknownVersion(f"{urn}@{version} is not registered in your workspace")
            last = await self._store.newest_dataset_approval(tx, urn, version)
            if last is not None and last["decision"] == decision:
                raise AlreadyDecided(f"{urn}@{version} is {decision} already")
            if decision == "approved":
                domain.require_second_person(dataset.author, approver, self._unverified)
            now = self._clock()
            await self._store.add_dataset_approval(tx, dataset.ref, decision, approver.actor, reason, now)
            event = DatasetApproved(
                asset=dataset.ref, decision=decision, approver=approver.actor, reason=reason, decided_at=now
            )
            tx.emit(event)
        return event.model_dump(mode="json")

    async def datasets(self, workspace: str, status: str | None, after: Sequence[Any] | None, most: int) -> list[Row]:
        """Dataset versions with the last decision about each, newest first."""
        async with self._database.begin(workspace) as tx:
            return await self._store.datasets(tx, status, after, most)


def _standing(last: Approval | None, gate: Verdict, now: datetime) -> str:
    return domain.standing(
        last.decision if last else None,
        same_gate=last is not None and last.gate_id == gate.gate_id,
        same_binding=last is not None and last.binding == gate.binding,
        in_force=last is not None and last.expires_at is not None and last.expires_at > now,
    )
