"""What lets a version be served: the signed statement that it was approved, verified by the gateway itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.router.domain import Version
from services.router.errors import ApprovalRefused
from shared.identity.dsse import Envelope, verify

APPROVAL_MEDIA_TYPE = "application/vnd.mintmark.approval+json"

TrustedKeys = Mapping[str, Ed25519PublicKey]


@dataclass(frozen=True, slots=True)
class Approval:
    """What a signed approval says it is about."""

    workspace: str
    version: Version


def verified_approval(statement: str, trusted: TrustedKeys) -> Approval:
    """What the approval's DSSE envelope binds to, once its signature held. Raises SignatureRefused, ApprovalRefused.

    An approval that expired since does not end traffic: expiry bounds deploying and promoting, and taking a champion
    away at midnight would be an outage that nobody decided.
    """
    payload = verify(Envelope.from_json(statement.encode()), trusted, APPROVAL_MEDIA_TYPE)
    try:
        said = orjson.loads(payload)
        asset = said["asset"]
        if (said["type"], said["decision"]) != ("approval", "approved"):
            raise ApprovalRefused("The signed statement does not approve anything.")
        return Approval(str(said["workspace"]), Version(asset["urn"], asset["version"], asset["digest"]))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ApprovalRefused("The approval is signed, but of another form than this gateway reads.") from error


def require_bound(workspace: str, version: Version, approval: Approval) -> None:
    """Raises ApprovalRefused unless the approval speaks of this very version and digest, in this workspace."""
    approved = approval.version
    if (approved.urn, approved.version) != (version.urn, version.version):
        raise ApprovalRefused(f"The approval is of {approved}, not of {version}.")
    if approved.digest != version.digest:
        raise ApprovalRefused(
            f"The approval of {approved} binds to {approved.digest}, but what is deployed is {version.digest}."
        )
    if approval.workspace != workspace:
        raise ApprovalRefused(f"The approval of {approved} is one of workspace {approval.workspace}, not {workspace}.")
