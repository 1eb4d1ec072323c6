"""Why the deployer does not deploy, or take away; `code` is what `deploy.failed` carries."""

from __future__ import annotations

from shared.errors import Conflict, Forbidden, NotFound, Refused


class Unproven(Forbidden):
    """Nobody has proven who asks for this deployment; sign the event with an API key."""

    code = "unproven"


class RequesterMismatch(Forbidden):
    """The claimed requester is not the one that the proof names."""

    code = "requester-mismatch"


class RequestReused(Conflict):
    """This request_id was used for something else; take a new one."""

    code = "request-reused"


class UnknownAsset(Refused):
    """No such version is registered; register it first."""

    code = "unknown-asset"
    status = 404


class UnknownTarget(Refused):
    """There is no such target here."""

    code = "unknown-target"


class WrongDigest(Refused):
    """The version has another digest than the one that was named or approved."""

    code = "wrong-digest"


class NotApproved(Refused):
    """No approval lets this version through."""

    code = "not-approved"
    status = 403


class NoDecision(NotApproved):
    """Nobody has decided about this version; let a second person approve it."""


class ApprovalExpired(NotApproved):
    """The approval of this version has expired; let it be approved again."""

    code = "approval-expired"


class NotDeployable(Refused):
    """This version cannot be made into a bundle that a target serves."""

    code = "not-deployable"


class ArtefactMissing(Refused):
    """The bytes are not in the artefact store; submit the version again with its artefact."""

    code = "artefact-missing"


class ArtefactDamaged(Refused):
    """The bytes in the artefact store are not those that were registered; restore them from a copy."""

    code = "artefact-damaged"


class TargetFailed(Refused):
    """The target took the bundle and does not serve it as it should."""

    code = "target-failed"


class UnknownDeployment(NotFound):
    """There is no such deployment in your workspace."""

    code = "unknown-deployment"


class NotDeployed(Conflict):
    """Only what is deployed can be taken away."""

    code = "not-deployed"


class CarriesTraffic(Conflict):
    """A group routes to this version; take it out of the group first."""

    code = "carries-traffic"


class LeaseLost(Exception):
    """Another worker has taken this deployment over; what is done here counts no more."""
