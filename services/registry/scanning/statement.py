"""What was looked at, by what, and what it found: kept by the digest of the bytes, shown beside their versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["clean", "suspicious", "dangerous", "unreadable"]
"""`clean`: nothing was found that runs. `suspicious`: it runs something that is not known to be harmless.

`dangerous`: it runs what attackers run. `unreadable`: it cannot be read to its end, so anything may stand there.
"""

VERDICTS: tuple[Verdict, ...] = ("clean", "suspicious", "dangerous", "unreadable")
PICKLE_FORMATS = ("pickle", "joblib", "torch", "numpy")
"""Formats that are, or hold, pickles. Nothing here serves them; a version in one is held back without a waiver."""

MEASURE = "format:pickle"
"""What a waiver names that lets such a version go on."""


class Statement(BaseModel):
    """One scanner's word."""

    model_config = ConfigDict(frozen=True)

    scanner: str
    version: str
    result: Verdict
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scan:
    """All that was said of some bytes."""

    digest: str
    format: str
    statements: tuple[Statement, ...]
    at: datetime

    @property
    def verdict(self) -> Verdict:
        """The worst that any scanner said."""
        return max((statement.result for statement in self.statements), key=VERDICTS.index, default="suspicious")
