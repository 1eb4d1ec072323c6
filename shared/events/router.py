"""What the router says: groups whose traffic moved, live rows in batches, limits that were reached."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from shared.events.base import Actor, AssetRef, Event, GroupName, Interval, Json, Moment, Sentence, TopicSpec, Value


class Arm(Value):
    """One version's share of a group's traffic, in basis points of 10,000."""

    asset: AssetRef
    role: Literal["champion", "challenger", "shadow"]
    weight_bp: int = Field(ge=0, le=10_000)


class GroupChanged(Event):
    """A group was made, or its arms or weights changed. `revision` counts up by one.

    A group that is to be deleted is `retired`: it serves nobody and has no arms, until somebody keeps it after all.
    Once its rows are gone it is `deleted`, at the revision at which it was retired; its name is never another group's.
    """

    topic = TopicSpec("group.changed", retention_s=None)
    producers = ("router",)
    consumers = ("registry", "deployer")

    group: GroupName
    revision: int = Field(ge=1)
    state: Literal["serving", "retired", "deleted"] = "serving"
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


class ProviderChanged(Event):
    """A provider was set up, asked in another way, given a key or taken away. What it is asked with is never said.

    `revision` counts the provider's configurations. `changed` with `has_key` false: its address became another one, and
    so its key is gone. `key_rewrapped`: the same key under another master key.
    """

    topic = TopicSpec("provider.changed", retention_s=None)
    producers = ("router",)
    consumers = ()

    provider: GroupName
    change: Literal["created", "changed", "key_set", "key_rotated", "key_rewrapped", "removed"]
    revision: int = Field(ge=1)
    kind: str
    base_url: str = Field(default="", description="where it is asked; empty for the vendor's own address")
    has_key: bool
    actor: Actor
    at: Moment

    @property
    def key(self) -> str:
        return f"mm:provider/{self.provider}"


class LiveFigures(Value):
    """What one version did in a group's traffic; a shadow's copies are figures of their own.

    `former`: it answered in the window and serves no longer. `measures` are named as in the comparative view
    (`error_rate`, `latency`, `accuracy`, …, `metric:<name>` of feedback); what has too few rows for an interval is left
    out. `latency_ms` are quantiles of answered requests (`p50`, `p95`, `p99`), within 1 % and without an interval.
    """

    asset: AssetRef
    role: Literal["champion", "challenger", "shadow", "former"]
    requests: int = Field(ge=0)
    errors: int = Field(ge=0)
    latency_ms: dict[str, float] = Field(default_factory=dict)
    measures: dict[str, Interval] = Field(default_factory=dict)


class GroupMeasured(Event):
    """A group's figures moved: rows were answered, or feedback on them came, since they were last said.

    Each is of the whole window, so the newest `until` replaces everything said before. Those of versions side by side
    are of each version alone: whether one is better than another is told by the group's comparison.
    """

    topic = TopicSpec("group.measured")
    producers = ("router",)
    consumers = ("registry", "prompts")

    group: GroupName
    since: Moment
    until: Moment
    figures: tuple[LiveFigures, ...]

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
    ProviderChanged,
    GroupMeasured,
    InferenceLogged,
    SloBreached,
    GuardrailTripped,
    BudgetExceeded,
)
