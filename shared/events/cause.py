"""Why something is happening: carried from the request or event at hand to the events that it leads to."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """`correlation_id` names the whole story, `causation_id` the event or request right before."""

    correlation_id: str | None = None
    causation_id: str | None = None


NOTHING = Cause()
current: ContextVar[Cause] = ContextVar("mintmark_cause", default=NOTHING)
