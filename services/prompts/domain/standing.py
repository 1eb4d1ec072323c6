"""Whether a version may carry a protected label: a pass and an approval, both of its very digest. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Verdict:
    """The newest verdict of a gate, and the waivers without which it would be another."""

    digest: str
    verdict: str
    waivers: frozenset[UUID]
    binding: str


@dataclass(frozen=True, slots=True)
class Approval:
    """The newest decision of a person."""

    digest: str
    decision: str
    approver: str
    binding: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What policy said of one version of the registry, and which of its waivers are in force."""

    digest: str | None
    verdict: Verdict | None = None
    approval: Approval | None = None
    waivers: frozenset[UUID] = frozenset()

    def objections(self, now: datetime) -> list[str]:
        """Why the version may not carry a protected label; empty when it may."""
        if self.digest is None:
            return ["the registry has not registered it"]
        return [*self._of_gate(), *self._of_approval(now)]

    def _of_gate(self) -> list[str]:
        gate = self.verdict
        if gate is None or gate.digest != self.digest:
            return ["no gate has decided on it"]
        if gate.verdict != "pass":
            return [f"its gate says {gate.verdict}"]
        return [] if gate.waivers <= self.waivers else ["a waiver that its gate rests on is no longer in force"]

    def _of_approval(self, now: datetime) -> list[str]:
        one = self.approval
        if one is None or one.digest != self.digest:
            return ["nobody has approved it"]
        if one.decision != "approved":
            return [f"{one.approver} decided: {one.decision}"]
        if one.expires_at is not None and one.expires_at <= now:
            return [f"its approval expired at {one.expires_at.isoformat()}"]
        if self.verdict is not None and one.binding != self.verdict.binding:
            return ["its approval was of another evaluation"]
        return []
