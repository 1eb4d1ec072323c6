"""The approval that lets a version be moved to: signed, of this very version, in this workspace, and still in force."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from services.router.domain import Version
from services.router.errors import NotApproved
from services.router.gateway.approvals import TrustedKeys, require_bound, verified_approval
from shared.errors import Refused

SIGNER = "policy"


def approvers(trusted: TrustedKeys) -> TrustedKeys:
    """Of all keys in a trust file, those that may sign approvals; empty means that nothing is approved."""
    return {name: key for name, key in trusted.items() if name == SIGNER}


@dataclass(frozen=True, slots=True)
class Deployed:
    """A version that answers somewhere, and what was decided about it. Statements are DSSE envelopes.

    `decided` is the last word that approval.decided brought, None while none came.
    """

    version: Version
    target: str
    endpoint: str
    model_name: str
    statement: dict[str, Any]
    completed_at: datetime
    decision: str | None = None
    decision_reason: str | None = None
    decided: dict[str, Any] | None = None


def evidence(deployed: Deployed, workspace: str, trusted: TrustedKeys, now: datetime) -> dict[str, str]:
    """What allows a move to the version: `{"approval_id", "binding", "approver", "expires_at"}`. Raises NotApproved.

    The statement that it was deployed with must hold, because the gateways go by it; a newer one may renew it.
    """
    if deployed.decision == "rejected":
        raise NotApproved(f"{deployed.version} was rejected: {deployed.decision_reason}")
    try:
        said = _said(deployed.statement, deployed.version, workspace, trusted)
        if deployed.decided is not None:
            said = _said(deployed.decided, deployed.version, workspace, trusted)
        expires_at = datetime.fromisoformat(said["expires_at"])
        found = {
            "approval_id": str(said["approval_id"]),
            "binding": str(said["binding"]),
            "approver": str(said["approver"]["id"]),
            "expires_at": expires_at.isoformat(),
        }
        expired = expires_at <= now
    except Refused as refused:
        raise NotApproved(refused.message) from refused
    except (KeyError, TypeError, ValueError) as error:
        raise NotApproved(
            f"The approval of {deployed.version} is signed, but does not say who and until when."
        ) from error
    if expired:
        raise NotApproved(
            f"The approval of {deployed.version} expired at {expires_at.isoformat()}; have it approved again."
        )
    return found


def is_proven(statement: dict[str, Any], version: Version, workspace: str, trusted: TrustedKeys) -> bool:
    """True when the statement's signature holds and it speaks of this version; expiry does not count."""
    try:
        _said(statement, version, workspace, trusted)
    except Refused:
        return False
    return True


def _said(statement: dict[str, Any], version: Version, workspace: str, trusted: TrustedKeys) -> dict[str, Any]:
    """The payload, once its signature held and it is about this version. Raises SignatureRefused, ApprovalRefused."""
    require_bound(workspace, version, verified_approval(orjson.dumps(statement).decode(), trusted))
    payload: dict[str, Any] = orjson.loads(b64decode(statement["payload"]))
    return payload
