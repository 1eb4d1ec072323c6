"""Errors of the policy service."""

from __future__ import annotations

from shared.errors import Conflict, Forbidden, NotFound


class UnknownGate(NotFound):
    """There is no such gate in your workspace."""

    code = "unknown-gate"


class UnknownVersion(NotFound):
    """No such version is registered in your workspace."""

    code = "unknown-version"


class NotEvaluated(Conflict):
    """No gate has decided about this version yet; wait for its evaluation, or request one."""

    code = "not-evaluated"


class FourEyes(Forbidden):
    """Nobody approves a version of their own; let a second person decide."""

    code = "four-eyes"


class AuthorUnverified(Forbidden):
    """Who wrote this version is not proven, so nobody can be told apart from its author; submit it again, signed."""

    code = "author-unverified"


class GateRejected(Conflict):
    """The gate rejected this version; it takes another version, or a waiver of the rules that it failed."""

    code = "gate-rejected"


class GateHolds(Conflict):
    """A rule of the gate has no data, and without data nothing is let through; evaluate the version again."""

    code = "no-data"


class ReleaseManagerNeeded(Forbidden):
    """This decision is a release manager's."""

    code = "release-manager-needed"


class AlreadyDecided(Conflict):
    """This was decided already; another evaluation makes it a new question."""

    code = "already-decided"


class GateMovedOn(Conflict):
    """A newer gate has decided about this version; read its evidence and decide anew."""

    code = "gate-moved-on"


class DigestDiffers(Conflict):
    """The digest is not the one that is registered for this version."""

    code = "digest-differs"


class NothingToWaive(Conflict):
    """No rule of that name stands against this version; a waiver sets aside what the newest gate says."""

    code = "nothing-to-waive"


class WaiverDecided(Conflict):
    """This waiver is not open any more."""

    code = "waiver-decided"


class WaiverLapsed(Conflict):
    """The gate passed by a waiver that has expired; propose another one, or evaluate the version again."""

    code = "waiver-lapsed"


class NoSuchEntry(NotFound):
    """The ledger of your workspace has no such entry."""

    code = "no-such-entry"
