"""What lets a version through, as pure functions over what others have signed and said."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from services.deployer.errors import (
    ApprovalExpired,
    NoDecision,
    NotApproved,
    RequesterMismatch,
    UnknownAsset,
    Unproven,
    WrongDigest,
)
from shared.events.base import Actor, Artefact, AssetRef, Digest, Json, Moment, Signature, Value
from shared.events.policy import Envelope
from shared.events.upstream import Training
from shared.identity import dsse
from shared.ids import digest_of

APPROVAL_TYPE = "application/vnd.mintmark.approval+json"

SERVICE = Actor(id="service:deployer", proven=True)

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Asset:
    """What the deployer knows of a registered version."""

    ref: AssetRef
    kind: str
    task: str | None
    artefact: Artefact | None
    signature: Signature
    training: Training
    licence: str | None
    guardrails: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The newest decision about a version, as it was heard; only `statement` is proof of anything."""

    approval_id: UUID
    decision: str
    reason: str
    statement: Envelope | None


class Statement(Value):
    """What policy signs when a version is let through."""

    type: Literal["approval"]
    approval_id: UUID
    workspace: str
    asset: AssetRef
    artefact: Digest | None
    binding: Digest
    decision: Literal["approved"]
    approver: Actor
    gate_id: UUID
    expires_at: Moment


@dataclass(frozen=True, slots=True)
class Approval:
    """A statement whose signature held, with the envelope that proves it."""

    statement: Statement
    envelope: Envelope

    @property
    def evidence(self) -> dict[str, str]:
        """What a bundle carries of why it was made."""
        return {
            "approval": str(self.statement.approval_id),
            "gate": str(self.statement.gate_id),
            "binding": self.statement.binding,
            "approver": self.statement.approver.id,
            "statement": digest_of(self.envelope.model_dump(by_alias=True)),
        }


def requester_of(claimed: str | None, proven: Actor, *, unverified: Literal["refuse", "allow"]) -> Actor:
    """Who asks. Raises Unproven or RequesterMismatch."""
    if not proven.proven and (unverified == "refuse" or claimed is not None):
        raise Unproven()
    if claimed is not None and claimed != proven.id:
        raise RequesterMismatch(f"requested_by says {claimed!r}, but the event is signed by {proven.id!r}")
    return proven


def require_registered(wanted: AssetRef, asset: Asset | None) -> Asset:
    """The version as it was registered. Raises UnknownAsset or WrongDigest."""
    if asset is None:
        raise UnknownAsset(f"{wanted} is not registered here; register it first")
    if asset.ref.digest != wanted.digest:
        raise WrongDigest(f"{wanted} has digest {asset.ref.digest}, but {wanted.digest} was to be deployed")
    return asset


def require_approved(
    asset: Asset, workspace: str, decision: Decision | None, trusted: Mapping[str, Ed25519PublicKey], now: datetime
) -> Approval:
    """The approval that lets this very version through, proven by policy's signature and by nothing else.

    Raises NoDecision, NotApproved, SignatureRefused, WrongDigest or ApprovalExpired.
    """
    if decision is None:
        raise NoDecision(f"nobody has decided about {asset.ref}; let a second person approve it")
    if decision.decision != "approved" or decision.statement is None:
        raise NotApproved(f"{asset.ref} was not let through: {decision.reason}")
    envelope = dsse.Envelope.from_json(orjson.dumps(decision.statement.model_dump(by_alias=True)))
    payload = dsse.verify(envelope, trusted, APPROVAL_TYPE)
    try:
        statement = Statement.model_validate_json(payload)
    except ValidationError as error:
        raise NotApproved("what policy signed is not an approval of a version") from error
    if statement.workspace != workspace:
        raise NotApproved(f"the approval is of workspace {statement.workspace}, not of {workspace}")
    if (statement.asset.urn, statement.asset.version) != (asset.ref.urn, asset.ref.version):
        raise NotApproved(f"the approval is of {statement.asset}, not of {asset.ref}")
    if statement.asset.digest != asset.ref.digest:
        raise WrongDigest(f"{statement.asset.digest} was approved, but {asset.ref} has digest {asset.ref.digest}")
    artefact = asset.artefact.digest if asset.artefact else None
    if statement.artefact != artefact:
        raise WrongDigest(f"the artefact {statement.artefact} was approved, but {asset.ref} has {artefact}")
    if statement.expires_at <= now:
        raise ApprovalExpired(
            f"the approval of {asset.ref} expired at {statement.expires_at.isoformat()}; let it be approved again"
        )
    return Approval(statement, decision.statement)


def require_not_rejected(asset: Asset, verdict: str | None) -> None:
    """The newest gate on what the approval binds to must not reject it. Raises NotApproved."""
    if verdict == "reject":
        raise NotApproved(f"the gate now rejects what was approved of {asset.ref}")


def complaint(ref: AssetRef, decision: Decision | None, now: datetime) -> str | None:
    """Why a version that is running would not be deployed today; None when its newest decision still lets it through.

    What is read of the statement is not verified, so this may be a reason for a warning and for nothing else.
    """
    if decision is None or decision.decision != "approved" or decision.statement is None:
        return f"{ref} is approved no more: {decision.reason if decision else 'no decision is known'}"
    try:
        expires_at = Statement.model_validate_json(b64decode(decision.statement.payload)).expires_at
    except ValueError:
        return f"what lets {ref} through is not an approval that can be read"
    if expires_at <= now:
        return f"the approval of {ref} expired at {expires_at.isoformat()}; let it be approved again"
    return None


def model_name(workspace: str, ref: AssetRef) -> str:
    """The name a version is served under: no two workspaces meet, since a workspace's name holds no dot."""
    return f"{workspace}.{ref.name}"


def wait_s(tries: int) -> float:
    """How long after the n-th failed try to wait: 0.5 s doubling to 30 s."""
    return float(min(FIRST_WAIT_S * 2 ** max(tries - 1, 0), LONGEST_WAIT_S))
