"""What the router says: groups whose traffic moved, live rows in batches, limits that were reached."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from shared.events.base import Actor, AssetRef, Event, GroupName, Json, Moment, Sentence, TopicSpec, Value


class Arm(Value):
    """One version's share of a group's traffic, in basis points of 10,000."""

    asset: AssetRef
    role: Literal["champion", "challenger", "shadow"]
    weight_bp: int = Field(ge=0, le=10_000)


class GroupChanged(Event):
    """A group was made, or its arms or weights changed. `revision` counts up by one."""

    topic = TopicSpec("group.changed", retention_s=None)
    producers = ("router",)
    consumers = ("registry", "deployer")

    group: GroupName
    revision: int = Field(ge=1)
    arms: tuple[Arm, ...]
    reason: str = ""
    actor: Actor
    at: Moment

    @property
    def key(self) -> str:
        return f"mm:group/{self.group}"


class GroupPromoted(Event):
    """A challenger is champion now."""

    topic = TopicSpec("group.promoted", retention_s=None)
    producers = ("router",)
    consumers = ("registry",)

    group: GroupName
    revision: int
    before: AssetRef | None = None
    after: AssetRef
    evidence: Json = Field(default_factory=dict)
    reason: str = ""
    actor: Actor
    at: Moment

    @property
    def key(self) -> str:
        return f"mm:group/{self.group}"


class GroupRolledBack(Event):
    """The group went back to what it was before."""

    topic = TopicSpec("group.rolled_back", retention_s=None)
    producers = ("router",)
    consumers = ("registry",)

    group: GroupName
    revision: int
    before: AssetRef
    after: AssetRef
    reason: str = ""
    actor: Actor
    at: Moment

    @property
    def key(self) -> str:
        return f"mm:group/{self.group}"


class InferenceRow(Value):
    """One answered (or failed) request; the whole row stays in the group's own table."""

    request_id: UUID
    at: Moment
    asset: AssetRef | None = None
    unit: str
    status: int
    latency_ms: float
    score: float | None = None
    label: Any = None


class InferenceLogged(Event):
    """A batch of live rows of one group."""

    topic = TopicSpec("inference.logged", retention_s=3 * 86_400)
    producers = ("router",)
    consumers = ()

    group: GroupName
    rows: tuple[InferenceRow, ...]

    @property
    def key(self) -> str:
        return f"mm:group/{self.group}"


class SloBreached(Event):
    """A declared objective was missed."""

    topic = TopicSpec("slo.breached")
    producers = ("router", "evaluator")
    consumers = ()

    group: GroupName
    asset: AssetRef | None = None
    objective: str
    observed: float
    threshold: float
    window_s: int

    @property
    def key(self) -> str:
        return f"mm:group/{self.group}"


class GuardrailTripped(Event):
    """A guardrail stopped or changed a request."""

    topic = TopicSpec("guardrail.tripped")
    producers = ("router",)
    consumers = ()

    group: GroupName
    request_id: UUID
    guardrail: str
    action: Literal["blocked", "masked", "flagged"]
    reason: Sentence

    @property
    def key(self) -> str:
        return f"mm:group/{self.group}"


class BudgetExceeded(Event):
    """A cap was reached."""

    topic = TopicSpec("budget.exceeded")
    producers = ("router",)
    consumers = ()

    scope: str
    spent: Decimal
    cap: Decimal
    currency: str = "USD"
    group: GroupName | None = None

    @property
    def key(self) -> str:
        return f"mm:budget/{self.scope}"


EVENTS: tuple[type[Event], ...] = (
    GroupChanged,
    GroupPromoted,
    GroupRolledBack,
    InferenceLogged,
    SloBreached,
    GuardrailTripped,
    BudgetExceeded,
)
