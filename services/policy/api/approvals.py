"""Approvals over HTTP: the inbox, decisions about versions and datasets, and the evidence behind them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from services.policy.api.values import VersionNumber, last_dataset, last_id
from services.policy.domain import Approver
from services.policy.handlers import Approvals, Ledger
from services.policy.handlers.approvals import Evidence, Pending, Wish
from services.policy.handlers.ledger import document
from services.policy.store import Approval, Verdict
from shared.errors import Forbidden
from shared.events.base import Actor, AssetRef, Digest, Kind, Name, Sentence, Urn
from shared.http import Page, PageToken, require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

MOST_ENTRIES_OF_EVIDENCE = 500
Decision = Literal["approved", "rejected"]


class VersionBody(BaseModel):
    """The version that is decided about; with its digest, it must be the one that was looked at."""

    model_config = ConfigDict(extra="forbid")

    urn: Urn
    version: int = Field(ge=1, le=2**31 - 1)
    digest: Digest | None = None


class ApprovalBody(BaseModel):
    """A decision; with `gate_id` it holds only while that gate is the newest."""

    model_config = ConfigDict(extra="forbid")

    asset: VersionBody
    decision: Decision
    reason: Sentence
    expires_in_days: int | None = Field(default=None, ge=1, le=3650)
    gate_id: UUID | None = None


class DatasetApprovalBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    decision: Decision
    reason: Sentence


class GateView(BaseModel):
    """A verdict with each rule and what it saw."""

    gate_id: UUID
    evaluation_id: UUID | None
    verdict: str
    reason: str
    rules: list[dict[str, Any]]
    policy: str
    policy_version: int
    binding: str
    report: str | None
    expires_at: datetime | None
    decided_at: datetime

    @classmethod
    def of(cls, gate: Verdict) -> GateView:
        return cls(
            gate_id=gate.gate_id,
            evaluation_id=gate.evaluation_id,
            verdict=gate.verdict,
            reason=gate.reason,
            rules=list(gate.rules),
            policy=gate.policy,
            policy_version=gate.policy_version,
            binding=gate.binding,
            report=gate.report,
            expires_at=gate.expires_at,
            decided_at=gate.decided_at,
        )


class ApprovalView(BaseModel):
    """A decision; `statement` is the DSSE envelope of an approval."""

    approval_id: UUID
    gate_id: UUID
    urn: str
    version: int
    decision: Decision
    approver: Actor
    author: Actor
    reason: str
    binding: str
    statement: dict[str, Any] | None
    expires_at: datetime | None
    decided_at: datetime

    @classmethod
    def of(cls, approval: Approval) -> ApprovalView:
        return cls(
            approval_id=approval.approval_id,
            gate_id=approval.gate_id,
            urn=approval.urn,
            version=approval.version,
            decision=approval.decision,
            approver=approval.approver,
            author=approval.author,
            reason=approval.reason,
            binding=approval.binding,
            statement=approval.statement,
            expires_at=approval.expires_at,
            decided_at=approval.decided_at,
        )


class Item(BaseModel):
    """A version that waits for a decision (`status` pending, with its gate), or a decision that was made."""

    status: Literal["pending", "approved", "rejected"]
    asset: AssetRef | None = None
    kind: str | None = None
    author: Actor
    gate: GateView | None = None
    approval: ApprovalView | None = None

    @classmethod
    def waiting(cls, pending: Pending) -> Item:
        return cls(
            status="pending",
            asset=pending.asset,
            kind=pending.kind,
            author=pending.author,
            gate=GateView.of(pending.gate),
        )

    @classmethod
    def made(cls, approval: Approval) -> Item:
        return cls(status=approval.decision, author=approval.author, approval=ApprovalView.of(approval))


class DatasetItem(BaseModel):
    """A dataset version with the last decision about it."""

    asset: AssetRef
    author: Actor
    registered_at: datetime
    status: Literal["pending", "approved", "rejected"]
    approver: Actor | None = None
    reason: str | None = None
    decided_at: datetime | None = None


class EvidenceView(BaseModel):
    """Why a version may go on, or may not; lists newest first, ledger entries oldest first."""

    asset: AssetRef
    kind: str
    task: str | None
    author: Actor
    artefact: str | None
    prompts: list[str]
    standing: str
    gates: list[GateView]
    approvals: list[ApprovalView]
    ledger: list[dict[str, Any]]

    @classmethod
    def of(cls, evidence: Evidence, entries: list[dict[str, Any]]) -> EvidenceView:
        asset = evidence.asset
        return cls(
            asset=asset.ref,
            kind=asset.kind,
            task=asset.task,
            author=asset.author,
            artefact=asset.artefact,
            prompts=list(asset.prompts),
            standing=evidence.standing,
            gates=[GateView.of(gate) for gate in evidence.gates],
            approvals=[ApprovalView.of(approval) for approval in evidence.approvals],
            ledger=entries,
        )


def approver_of(request: Request, caller: Principal) -> Approver:
    """The caller as approver. Who may move what is in production may also answer for a review: that is Cedar's word."""
    try:
        request.app.state.identity.authorizer.require(caller, "move", "approval")
    except Forbidden:
        return Approver(caller.actor, releases=False)
    return Approver(caller.actor, releases=True)


def router(approvals: Approvals, ledger: Ledger) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["approvals"])

    @routes.get("/approvals")
    async def list_approvals(
        caller: Annotated[Principal, require("read", "approval")],
        status: Annotated[Literal["pending", "approved", "rejected", "decided"], Query()] = "pending",
        max_results: Annotated[int, Query(ge=1, le=200)] = 50,
        page_token: Annotated[str | None, Query(max_length=500)] = None,
    ) -> Page[Item]:
        """The inbox of versions that a gate passed or wants reviewed, or the decisions that were made; newest first."""
        token = PageToken("approvals", caller.workspace, status)
        last = last_id(token.read(page_token))
        if status == "pending":
            found = await approvals.pending(caller.workspace, last, max_results)
            items, ids = [Item.waiting(one) for one in found], [one.gate.id for one in found]
        else:
            made = await approvals.decisions(
                caller.workspace, None if status == "decided" else status, last, max_results
            )
            items, ids = [Item.made(one) for one in made], [one.id for one in made]
        return Page(items=items, next_page_token=token.make([ids[-1]]) if len(ids) == max_results else None)

    @routes.get("/approvals/{approval_id}")
    async def get_approval(
        approval_id: UUID, caller: Annotated[Principal, require("read", "approval")]
    ) -> ApprovalView:
        """One decision."""
        return ApprovalView.of(await approvals.decision(caller.workspace, approval_id))

    @routes.post("/approvals", status_code=201)
    async def decide(
        body: ApprovalBody, request: Request, caller: Annotated[Principal, require("approve", "approval")]
    ) -> ApprovalView:
        """Let a version through, or not. An approval binds to the digests of all that was judged, and expires."""
        wish = Wish(
            body.asset.urn,
            body.asset.version,
            body.decision,
            body.reason,
            body.asset.digest,
            body.gate_id,
            body.expires_in_days,
        )
        return ApprovalView.of(await approvals.decide(caller.workspace, approver_of(request, caller), wish))

    @routes.get("/datasets")
    async def list_datasets(
        caller: Annotated[Principal, require("read", "approval")],
        status: Annotated[Literal["pending", "approved", "rejected"] | None, Query()] = None,
        max_results: Annotated[int, Query(ge=1, le=200)] = 50,
        page_token: Annotated[str | None, Query(max_length=1000)] = None,
    ) -> Page[DatasetItem]:
        """Dataset versions and what was decided about them, newest first."""
        token = PageToken("datasets", caller.workspace, status)
        after = last_dataset(token.read(page_token))
        rows = await approvals.datasets(caller.workspace, status, after, max_results)
        items = [
            DatasetItem(
                asset=AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"]),
                author=Actor.model_validate(row["author"]),
                registered_at=row["registered_at"],
                status=row["decision"] or "pending",
                approver=Actor.model_validate(row["approver"]) if row["approver"] else None,
                reason=row["reason"],
                decided_at=row["decided_at"],
            )
            for row in rows
        ]
        last = rows[-1] if len(rows) == max_results else None
        return Page(
            items=items,
            next_page_token=token.make([last["registered_at"], last["urn"], last["version"]]) if last else None,
        )

    @routes.post("/datasets/{name}/versions/{number}/approval", status_code=201)
    async def decide_dataset(
        name: Name,
        number: VersionNumber,
        body: DatasetApprovalBody,
        request: Request,
        caller: Annotated[Principal, require("approve", "dataset")],
    ) -> dict[str, Any]:
        """Let a dataset version be used, or not."""
        approver = approver_of(request, caller)
        return await approvals.decide_dataset(
            caller.workspace, approver, f"mm:dataset/{name}", number, body.decision, body.reason
        )

    @routes.get("/assets/{kind}/{name}/versions/{number}/evidence")
    async def evidence(
        kind: Kind, name: Name, number: VersionNumber, caller: Annotated[Principal, require("read", "evidence")]
    ) -> EvidenceView:
        """Gates, approvals and ledger entries of a version: the whole why."""
        urn = f"mm:{kind}/{name}"
        found = await approvals.evidence(caller.workspace, urn, number)
        entries = await ledger.entries(caller.workspace, 0, MOST_ENTRIES_OF_EVIDENCE, key=urn)
        return EvidenceView.of(found, [document(entry) for entry in entries])

    return routes
