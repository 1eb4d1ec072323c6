"""Rows of the deployer's schema as values, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.deployer.domain import Asset, Decision
from services.deployer.errors import LeaseLost, RequestReused
from shared.bus.continuing import story
from shared.db.database import Transaction
from shared.events.base import Actor, Artefact, AssetRef, Signature
from shared.events.policy import ApprovalDecided, Envelope, GateDecided
from shared.events.registry import AssetRegistered
from shared.events.router import GroupChanged
from shared.events.upstream import DeployRequested, Training
from shared.ids import digest_of, new_id

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A kept deployment. `lease` is there while somebody works on it; `row` has all, its story included."""

    number: int
    workspace: str
    deployment_id: UUID
    request_id: UUID
    event_id: str
    asset: AssetRef
    target: str
    parameters: dict[str, Any]
    requested_by: Actor
    withdrawn_by: Actor | None
    state: str
    approval_id: UUID | None
    bundle: str | None
    model_name: str | None
    endpoint: str | None
    code: str | None
    reason: str | None
    complaint: str | None
    tries: int
    lease: UUID | None
    requested_at: datetime
    ended_at: datetime | None
    row: Row

    @classmethod
    def of(cls, row: Row) -> Deployment:
        same = {
            name: row[name] for name in cls.__slots__ if name not in ("asset", "requested_by", "withdrawn_by", "row")
        }
        asset = AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"])
        return cls(
            **same,
            asset=asset,
            requested_by=Actor.model_validate(row["requested_by"]),
            withdrawn_by=Actor.model_validate(row["withdrawn_by"]) if row["withdrawn_by"] else None,
            row=row,
        )


class Store:
    """Reads and writes in a transaction that it is given."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    # what others said

    async def add_asset(self, tx: Transaction, event: AssetRegistered) -> None:
        content = event.model_dump(mode="json", include={"artefact", "signature", "training", "licence", "guardrails"})
        await self._sql.add_asset(
            tx.connection,
            workspace=tx.workspace,
            urn=event.asset.urn,
            version=event.asset.version,
            digest=event.asset.digest,
            kind=event.kind,
            task=event.task,
            content=content,
        )

    async def asset(self, tx: Transaction, urn: str, version: int) -> Asset | None:
        row = await self._sql.asset(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        if row is None:
            return None
        content = row["content"]
        return Asset(
            ref=AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"]),
            kind=row["kind"],
            task=row["task"],
            artefact=Artefact.model_validate(content["artefact"]) if content["artefact"] else None,
            signature=Signature.model_validate(content["signature"]),
            training=Training.model_validate(content["training"]),
            licence=content["licence"],
            guardrails=tuple(content.get("guardrails", ())),  # not there in what was kept before versions had any
        )

    async def add_gate(self, tx: Transaction, event: GateDecided) -> None:
        await self._sql.add_gate(
            tx.connection,
            workspace=tx.workspace,
            gate_id=event.gate_id,
            urn=event.asset.urn,
            version=event.asset.version,
            verdict=event.verdict,
            reason=event.reason,
            binding=event.binding,
            decided_at=event.decided_at,
        )

    async def verdict(self, tx: Transaction, ref: AssetRef, binding: str) -> str | None:
        """The newest gate's verdict on what a binding names; None when no gate is known here."""
        row = await self._sql.newest_gate(
            tx.connection, workspace=tx.workspace, urn=ref.urn, version=ref.version, binding=binding
        )
        return None if row is None else str(row["verdict"])

    async def add_approval(self, tx: Transaction, event: ApprovalDecided) -> None:
        await self._sql.add_approval(
            tx.connection,
            workspace=tx.workspace,
            approval_id=event.approval_id,
            urn=event.asset.urn,
            version=event.asset.version,
            decision=event.decision,
            reason=event.reason,
            statement=event.statement.model_dump(by_alias=True) if event.statement else None,
            decided_at=event.decided_at,
        )

    async def decision(self, tx: Transaction, ref: AssetRef) -> Decision | None:
        """The newest decision about a version."""
        row = await self._sql.newest_approval(tx.connection, workspace=tx.workspace, urn=ref.urn, version=ref.version)
        if row is None:
            return None
        statement = Envelope.model_validate(row["statement"]) if row["statement"] else None
        return Decision(row["approval_id"], row["decision"], row["reason"], statement)

    async def keep_traffic(self, tx: Transaction, event: GroupChanged) -> None:
        arms = [
            {"urn": arm.asset.urn, "version": arm.asset.version, "role": arm.role, "weight_bp": arm.weight_bp}
            for arm in event.arms
        ]
        await self._sql.keep_traffic(
            tx.connection, workspace=tx.workspace, group_name=event.group, revision=event.revision, arms=arms
        )

    async def groups_of(self, tx: Transaction, ref: AssetRef) -> list[str]:
        """Names of the groups that route to a version."""
        rows = self._sql.groups_of(tx.connection, workspace=tx.workspace, urn=ref.urn, version=ref.version)
        return [row["group_name"] async for row in rows]

    # deployments

    async def add(
        self, tx: Transaction, request: DeployRequested, author: Actor, event_id: str, at: datetime
    ) -> tuple[Deployment, bool]:
        """Take a request in: its deployment, and whether that is new.

        Raises RequestReused when its request_id was used for something else.
        """
        asked = digest_of([request.asset.model_dump(), request.target, request.parameters, author.model_dump()])
        status = await self._sql.add_deployment(
            tx.connection,
            workspace=tx.workspace,
            deployment_id=new_id(),
            request_id=request.request_id,
            request=asked,
            event_id=event_id,
            urn=request.asset.urn,
            version=request.asset.version,
            digest=request.asset.digest,
            target=request.target,
            parameters=request.parameters,
            requested_by=author.model_dump(),
            requested_at=at,
            **story(),
        )
        row = await self._sql.deployment_of_request(
            tx.connection, workspace=tx.workspace, request_id=request.request_id
        )
        if row["request"] != asked:
            raise RequestReused(f"request_id {request.request_id} was used for something else; take a new one")
        return Deployment.of(row), bool(status == "INSERT 0 1")

    async def deployment(self, tx: Transaction, deployment_id: UUID, *, lock: bool = False) -> Deployment | None:
        read = self._sql.lock_deployment if lock else self._sql.deployment
        row = await read(tx.connection, workspace=tx.workspace, deployment_id=deployment_id)
        return None if row is None else Deployment.of(row)

    async def deployment_of_request(self, tx: Transaction, request_id: UUID) -> Deployment | None:
        row = await self._sql.deployment_of_request(tx.connection, workspace=tx.workspace, request_id=request_id)
        return None if row is None else Deployment.of(row)

    async def deployments(
        self, tx: Transaction, urn: str | None, state: str | None, before: int, most: int
    ) -> list[Deployment]:
        rows = self._sql.deployments(
            tx.connection, workspace=tx.workspace, urn=urn, state=state, before=before, most=most
        )
        return [Deployment.of(row) async for row in rows]

    async def live(self, tx: Transaction, job: Deployment) -> Deployment | None:
        """Another deployment of the same version on the same target that stands."""
        row = await self._sql.live(
            tx.connection,
            workspace=tx.workspace,
            urn=job.asset.urn,
            version=job.asset.version,
            target=job.target,
            deployment_id=job.deployment_id,
        )
        return None if row is None else Deployment.of(row)

    async def order_undeploying(self, tx: Transaction, deployment_id: UUID, actor: Actor) -> None:
        """A completed deployment is to be taken away."""
        await self._sql.order_undeploying(
            tx.connection, deployment_id=deployment_id, withdrawn_by=actor.model_dump(), **story()
        )

    async def standing(self, tx: Transaction, target: str) -> list[Deployment]:
        """What should be on a target now, of every workspace."""
        return [Deployment.of(row) async for row in self._sql.standing(tx.connection, target=target)]

    async def running(self, tx: Transaction) -> list[tuple[Deployment, Decision | None]]:
        """Every completed deployment with the newest decision about its version, of every workspace."""
        return [(Deployment.of(row), _decision(row)) async for row in self._sql.running(tx.connection)]

    async def complain(self, tx: Transaction, deployment: Deployment, complaint: str | None) -> bool:
        """False when it is said already, or the deployment is completed no more."""
        done = await self._sql.complain(tx.connection, deployment_id=deployment.deployment_id, complaint=complaint)
        return bool(done == "UPDATE 1")

    async def strays(self, tx: Transaction, target: str) -> list[tuple[str, str]]:
        """(model name, version) that no deployment wants on a target any more, of every workspace."""
        rows = self._sql.strays(tx.connection, target=target)
        return [(row["model_name"], str(row["version"])) async for row in rows]

    async def restore(self, tx: Transaction, deployment_id: UUID) -> None:
        await self._sql.restore(tx.connection, deployment_id=deployment_id)

    # work

    async def lock_claims(self, tx: Transaction) -> None:
        """No work is claimed until this transaction ends."""
        await self._sql.lock_claims(tx.connection)

    async def claim(self, tx: Transaction, lease_s: float, most: int) -> list[Deployment]:
        """Take work that is due, of every workspace; all of it under one new lease."""
        await self.lock_claims(tx)
        rows = self._sql.claim(tx.connection, lease=new_id(), lease_s=lease_s, most=most)
        return [Deployment.of(row) async for row in rows]

    async def renew(self, tx: Transaction, leases: Sequence[UUID], lease_s: float) -> None:
        await self._sql.renew(tx.connection, leases=leases, lease_s=lease_s)

    async def release(self, tx: Transaction, leases: Sequence[UUID]) -> None:
        await self._sql.release(tx.connection, leases=leases)

    async def advance(
        self,
        tx: Transaction,
        job: Deployment,
        state: str,
        *,
        approval_id: UUID | None = None,
        bundle: str | None = None,
        model_name: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        """One step further. Raises LeaseLost."""
        _held(
            await self._sql.advance(
                tx.connection,
                deployment_id=job.deployment_id,
                lease=job.lease,
                state=state,
                approval_id=approval_id,
                bundle=bundle,
                model_name=model_name,
                endpoint=endpoint,
            )
        )

    async def finish(
        self, tx: Transaction, job: Deployment, state: str, at: datetime, *, code: str | None = None, reason: str = ""
    ) -> None:
        """The work is over. Raises LeaseLost."""
        _held(
            await self._sql.finish(
                tx.connection,
                deployment_id=job.deployment_id,
                lease=job.lease,
                state=state,
                code=code,
                reason=reason or None,
                ended_at=at,
            )
        )

    async def postpone(
        self, tx: Transaction, job: Deployment, tries: int, wait_s: float, code: str, reason: str
    ) -> None:
        """Try again in `wait_s` seconds. Raises LeaseLost."""
        _held(
            await self._sql.postpone(
                tx.connection,
                deployment_id=job.deployment_id,
                lease=job.lease,
                tries=tries,
                wait_s=wait_s,
                code=code,
                reason=reason[:4000],
            )
        )

    async def add_step(self, tx: Transaction, deployment_id: UUID, step: str, detail: str, at: datetime) -> None:
        await self._sql.add_step(
            tx.connection, workspace=tx.workspace, deployment_id=deployment_id, step=step, detail=detail, at=at
        )

    async def steps(self, tx: Transaction, deployment_id: UUID) -> list[Row]:
        rows = self._sql.steps(tx.connection, workspace=tx.workspace, deployment_id=deployment_id)
        return [row async for row in rows]


def _decision(row: Row) -> Decision | None:
    if row["decided_id"] is None:
        return None
    statement = Envelope.model_validate(row["statement"]) if row["statement"] else None
    return Decision(row["decided_id"], row["decision"], row["decision_reason"], statement)


def _held(status: str) -> None:
    if status != "UPDATE 1":
        raise LeaseLost
