"""The approval that lets a version be served: what policy signed, read only through its signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.router.domain import Version
from services.router.errors import ApprovalRefused
from shared.identity.dsse import Envelope, verify

STATEMENT_MEDIA_TYPE = "application/vnd.mintmark.approval+json"
SIGNER = "policy"

TrustedKeys = Mapping[str, Ed25519PublicKey]
"""Only the keys that may sign approvals, by key id."""


def approvers(trusted: TrustedKeys) -> TrustedKeys:
    """Of all keys in a trust file, those that may sign approvals; empty means that nothing is approved."""
    return {name: key for name, key in trusted.items() if name == SIGNER}


@dataclass(frozen=True, slots=True)
class Approval:
    """What the signature covers: this version in this workspace, on this evidence, until then."""

    approval_id: str
    workspace: str
    version: Version
    binding: str
    expires_at: datetime

    @staticmethod
    def read(statement: bytes, trusted: TrustedKeys) -> Approval:
        """The approval in a DSSE envelope. Raises SignatureRefused, ApprovalRefused."""
        payload = verify(Envelope.from_json(statement), trusted, STATEMENT_MEDIA_TYPE)
        try:
            said = orjson.loads(payload)
            if (said["type"], said["decision"]) != ("approval", "approved"):
                raise ApprovalRefused("The signed statement is not an approval.")
            asset, expires_at = said["asset"], datetime.fromisoformat(said["expires_at"])
            if expires_at.tzinfo is None:
                raise ApprovalRefused("The approval's expiry has no time zone.")
            version = Version(str(asset["urn"]), int(asset["version"]), str(asset["digest"]))
            return Approval(str(said["approval_id"]), str(said["workspace"]), version, str(said["binding"]), expires_at)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ApprovalRefused("The statement is signed, but does not have an approval's fields.") from error

    def require_bound(self, version: Version, workspace: str) -> None:
        """Raises ApprovalRefused unless it speaks of this very version and digest, in this workspace."""
        if str(self.version) != str(version):
            raise ApprovalRefused(f"The approval is of {self.version}, not of {version}.")
        if self.version.digest != version.digest:
            raise ApprovalRefused(
                f"The approval of {version} binds to {self.version.digest}, but what is deployed is {version.digest}."
            )
        if self.workspace != workspace:
            raise ApprovalRefused(f"The approval of {version} was given in another workspace.")

    def require_in_force(self, now: datetime) -> None:
        """Raises ApprovalRefused once it has expired. An expiry forbids moves; it does not end running traffic."""
        if self.expires_at <= now:
            raise ApprovalRefused(
                f"The approval of {self.version} expired at {self.expires_at.isoformat()}; have it approved again."
            )
