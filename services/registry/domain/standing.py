"""Whether a version was let through, read from what others said of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.registry.domain.lineage import Finding
from services.registry.scanning.statement import MEASURE, PICKLE_FORMATS


@dataclass(frozen=True, slots=True)
class Protection:
    """The aliases and stages that move only to a version that was let through; whether building needs an intent."""

    aliases: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    intents: bool = False

    @classmethod
    def read(cls, document: dict[str, Any] | None) -> Protection:
        """Of policy's document; a workspace about which policy said nothing protects nothing."""
        said = document or {}
        return cls(frozenset(said.get("aliases", ())), frozenset(said.get("stages", ())), said.get("intents") is True)


def why_not_let_through(kind: str, findings: Sequence[Finding], now: datetime) -> str | None:
    """Why a version was not let through, or None when it was. `findings` are newest first.

    A pass of its gate (or a review that a release manager let through) and an approval in force that binds to the very
    evidence of that gate. A dataset has no gate; its approval is enough.
    """
    gate = next((finding.document for finding in findings if finding.kind == "gate"), None)
    approval = next((finding.document for finding in findings if finding.kind == "approval"), None)
    if kind != "dataset":
        if gate is None:
            return "no gate has decided about it"
        if gate["verdict"] == "reject":
            return f"its gate rejects it: {gate['reason']}"
    if approval is None or approval["decision"] != "approved":
        return "it is not approved" if approval is None else f"its approval was refused: {approval['reason']}"
    expires_at = approval.get("expires_at")
    if expires_at is not None and datetime.fromisoformat(expires_at) <= now:
        return f"its approval expired at {expires_at}"
    if gate is not None and approval.get("binding") not in (None, gate["binding"]):
        return "it was judged anew on other evidence since it was approved"
    return None


def why_held_back(artefact: dict[str, Any] | None, findings: Sequence[Finding], now: datetime) -> str | None:
    """Why a version may not go on by its format: it holds a pickle, and no waiver for that is in force."""
    if artefact is None or artefact["format"] not in PICKLE_FORMATS:
        return None
    for finding in findings:
        said = finding.document
        if finding.kind != "waiver" or said["measure"] != MEASURE or said.get("withdrawn_at"):
            continue
        if datetime.fromisoformat(said["expires_at"]) > now:
            return None
    return f"it holds a pickle ({artefact['format']}), and no waiver for {MEASURE} is in force"
