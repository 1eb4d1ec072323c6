"""How a request came to its answer, as its row's `tags` keep it: compact, and only where there is something to tell.

    {"route": {"by": "rule", "rule": "beta", "to": "mm:model/m@2"},
     "attempts": [{"to": "mm:model/m@2", "outcome": "upstream-503", "ms": 1.2}, …],
     "skipped": [{"to": "mm:model/m@1", "why": "breaker open"}], "cache": "hit"}
    {"attempts": […], "failed_over": true, "drawn": {"urn": "mm:model/m", "version": 1, "digest": "sha256:…",
                                                      "status": 503, "error": "upstream-503"}}

Without `route`, the weights chose; without `attempts`, one attempt was made, at the version that the row names, with
its breaker closed. `drawn` is whom the weights chose and who did not answer, and how it failed (nothing of that where
it was only slower than a hedge). handlers/explaining.py and the shipper read this back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from services.router.domain import Version
from services.router.errors import TargetsUnavailable, VersionNotServable
from services.router.gateway.rules import Matched

OK = "ok"
ABANDONED = "abandoned"


@dataclass(slots=True)
class Attempted:
    """One attempt; `ms` until its outcome."""

    to: str
    via: str = ""
    tier: str = ""
    outcome: str = ""
    ms: float = 0.0
    is_hedge: bool = False
    was_trial: bool = False
    """Whether it tried a target that its breaker had left alone."""
    cost_usd: Decimal | None = None
    """Of an attempt that is not the answer: what it had told of its tokens when it was given up. None of no price."""
    status: int = 0
    """What a caller would have been answered with this outcome; 0 while there is none."""

    def to_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {"to": self.to, "outcome": self.outcome, "ms": round(self.ms, 3)}
        if self.via:
            made["via"] = self.via
        if self.tier:
            made["tier"] = self.tier
        if self.is_hedge:
            made["hedge"] = True
        if self.was_trial:
            made["breaker"] = "half-open"
        if self.cost_usd:
            made["cost_usd"] = str(self.cost_usd)
        return made


@dataclass(slots=True)
class Story:
    matched: Matched | None = None
    gave_way: str = ""
    """Why the version that a rule or the weights chose was not the one to be asked first."""
    attempts: list[Attempted] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Who was not asked, and why."""
    cache: str = ""
    failed_over: bool = False
    """Whether another version answered than the one that was chosen."""
    chosen: Version | None = None
    """In whose place it answered."""
    no_more: str = ""
    """Why no further attempt was made, where one was wanted."""

    @property
    def cost_in_vain_usd(self) -> Decimal:
        """Of all attempts but the one that answered."""
        return sum((one.cost_usd for one in self.attempts if one.cost_usd is not None), Decimal())

    def tags(self) -> dict[str, Any]:
        """For the row's column; empty where nothing is out of the ordinary."""
        made: dict[str, Any] = {}
        if self.matched is not None:
            made["route"] = {"by": "rule", "rule": self.matched.rule, "to": self.matched.to}
            if self.matched.bucket is not None:
                made["route"]["bucket"] = self.matched.bucket
        if self.gave_way:
            made["gave_way"] = self.gave_way
        attempts = self.attempts
        if len(attempts) > 1 or (attempts and (attempts[0].was_trial or attempts[0].tier)):
            made["attempts"] = [one.to_json() for one in attempts]
        if self.skipped:
            made["skipped"] = [{"to": to, "why": why} for to, why in self.skipped.items()]
        if self.failed_over:
            made["failed_over"] = True
            if self.chosen is not None and (self.matched is None or self.gave_way):
                made["drawn"] = self._drawn(self.chosen)
        if self.no_more:
            made["no_more"] = self.no_more
        if self.cache:
            made["cache"] = self.cache
        return made

    def _drawn(self, chosen: Version) -> dict[str, Any]:
        """Whom the weights chose, and how it failed: by its last attempt that was not let go, if it made any."""
        drawn: dict[str, Any] = {"urn": chosen.urn, "version": chosen.version, "digest": chosen.digest}
        asked = [one for one in self.attempts if one.to == str(chosen)]
        failed = [one for one in asked if one.outcome != ABANDONED]
        if failed:
            return {**drawn, "status": failed[-1].status, "error": failed[-1].outcome}
        if asked:
            return drawn
        error = TargetsUnavailable if str(chosen) in self.skipped else VersionNotServable
        return {**drawn, "status": error.status, "error": error.code}
