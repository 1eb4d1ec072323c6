"""What the policy service says: gates, human decisions, classes, rules in force, incidents."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal
from uuid import UUID

from pydantic import Field

from shared.events.base import Actor, AssetRef, Digest, Event, Interval, Json, Moment, Sentence, TopicSpec, Urn, Value


class Envelope(Value):
    """A DSSE envelope: `payload` is base64, `signatures` are over its pre-authentication encoding."""

    payload_type: str = Field(alias="payloadType", serialization_alias="payloadType")
    payload: str
    signatures: tuple[dict[str, str], ...] = Field(min_length=1)


class RuleOutcome(Value):
    """One gate rule with what it saw."""

    measure: str
    operator: Literal[">=", "<="]
    threshold: float
    observed: Interval | None = None
    outcome: Literal["pass", "review", "reject", "no-data"]
    reason: Sentence
    waiver_id: UUID | None = Field(default=None, description="the waiver by which the outcome is a pass")
    was: Literal["review", "reject", "no-data"] | None = Field(default=None, description="the outcome without it")


class DatasetApproved(Event):
    """A dataset version may (not) be used."""

    topic = TopicSpec("dataset.approved", retention_s=None)
    producers = ("policy",)
    consumers = ("registry", "evaluator")

    asset: AssetRef
    decision: Literal["approved", "rejected"]
    approver: Actor
    reason: Sentence
    decided_at: Moment

    @property
    def key(self) -> str:
        return self.asset.urn


class GateDecided(Event):
    """The rules' verdict on one evaluation, each rule with its observed interval."""

    topic = TopicSpec("gate.decided", retention_s=None)
    producers = ("policy",)
    consumers = ("registry", "deployer", "prompts")

    gate_id: UUID
    asset: AssetRef
    evaluation_id: UUID | None = None
    verdict: Literal["pass", "review", "reject"]
    rules: tuple[RuleOutcome, ...] = ()
    reason: Sentence
    policy_version: int
    binding: Digest = Field(description="digest of version, artefact, prompts, dataset and report together")
    decided_at: Moment

    @property
    def key(self) -> str:
        return self.asset.urn


class ApprovalDecided(Event):
    """A person let the version through, or did not. `statement` is what deployer and gateway verify themselves."""

    topic = TopicSpec("approval.decided", retention_s=None)
    producers = ("policy",)
    consumers = ("registry", "deployer", "router", "prompts")

    approval_id: UUID
    asset: AssetRef
    decision: Literal["approved", "rejected"]
    approver: Actor
    author: Actor
    reason: Sentence
    binding: Digest
    statement: Envelope | None = Field(default=None, description="DSSE, present when approved")
    expires_at: Moment | None = None
    decided_at: Moment

    @property
    def key(self) -> str:
        return self.asset.urn


class WaiverSigned(Event):
    """A named rule is set aside for one version, until it expires. Said again with `withdrawn_at` if it is taken back.

    `measure` is a rule's, or `evaluation`: every rule that has no data, because nothing evaluates such a version.
    """

    topic = TopicSpec("waiver.signed", retention_s=None)
    producers = ("policy",)
    consumers = ("registry", "prompts")

    waiver_id: UUID
    asset: AssetRef
    measure: str
    observed: float | None = None
    signers: tuple[Actor, ...] = Field(min_length=2)
    reason: Sentence
    expires_at: Moment
    statement: Envelope | None = Field(default=None, description="DSSE by the policy service")
    withdrawn_at: Moment | None = None

    @property
    def key(self) -> str:
        return self.asset.urn


class ClassificationChanged(Event):
    """Risk and cost class of an asset."""

    topic = TopicSpec("classification.changed", retention_s=None)
    producers = ("policy",)
    consumers = ("registry", "router")

    urn: Urn
    risk: Literal["minimal", "limited", "high", "prohibited"]
    cost: Literal["low", "medium", "high"]
    monthly_cap: Decimal | None = None
    currency: str = "USD"
    actor: Actor
    reason: Sentence

    @property
    def key(self) -> str:
        return self.urn


class PolicyPublished(Event):
    """The rules in force from now on. Compacted: the newest record of each key is the whole truth.

    `policy` is `gate/<name>`, or `protection`, whose document lists the `aliases`, `labels` and `stages` that move only
    to a version that was let through, and says with `intents` whether nothing new is built without an intent.
    """

    topic = TopicSpec("policy.published", partitions=1, retention_s=None, compacted=True)
    producers = ("policy",)
    consumers = ("registry", "prompts")

    policy: str = Field(min_length=1, max_length=100, description="gate/<name> or protection")
    number: int = Field(ge=1)
    document: Json
    digest: Digest
    actor: Actor
    published_at: Moment

    @property
    def key(self) -> str:
        return f"mm:policy/{self.policy}"


class IncidentOpened(Event):
    """Something needs a person, with the runbook that applies."""

    topic = TopicSpec("incident.opened")
    producers = ("policy",)
    consumers = ()

    incident_id: UUID
    urn: Urn | None = None
    severity: Literal["low", "medium", "high", "critical"]
    summary: Sentence
    runbook: str | None = None
    opened_at: Moment

    @property
    def key(self) -> str:
        return self.urn or f"mm:incident/{self.incident_id}"


class IncidentClosed(Event):
    """It is over."""

    topic = TopicSpec("incident.closed")
    producers = ("policy",)
    consumers = ()

    incident_id: UUID
    urn: Urn | None = None
    resolution: Sentence
    actor: Actor
    closed_at: Moment

    @property
    def key(self) -> str:
        return self.urn or f"mm:incident/{self.incident_id}"


EVENTS: tuple[type[Event], ...] = (
    DatasetApproved,
    GateDecided,
    ApprovalDecided,
    WaiverSigned,
    ClassificationChanged,
    PolicyPublished,
    IncidentOpened,
    IncidentClosed,
)
