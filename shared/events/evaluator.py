"""What the evaluator says: how a version was measured, why it could not be, and what drifts."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import Field

from shared.events.base import AssetRef, Digest, Event, GroupName, Interval, Moment, Sentence, TopicSpec
from shared.events.upstream import DatasetVersion


class EvalCompleted(Event):
    """Every measure with its interval. `report` is the digest of the whole report among the artefacts."""

    topic = TopicSpec("eval.completed", retention_s=None)
    producers = ("evaluator",)
    consumers = ("registry", "policy", "prompts")

    evaluation_id: UUID
    asset: AssetRef
    golden_set: DatasetVersion
    template: str
    model: str | None = Field(default=None, max_length=200, description="what answered, where a prompt was measured")
    measures: dict[str, Interval] = Field(
        description="accuracy_score, roc_auc, f1_score, log_loss, coverage, fairness.…, latency_ms.…"
    )
    report: Digest
    rows: int = Field(ge=0)
    errors: int = Field(default=0, ge=0, description="rows that could not be scored; never counted as a score")
    started_at: Moment
    ended_at: Moment

    @property
    def key(self) -> str:
        return self.asset.urn


class EvalFailed(Event):
    """The evaluation itself failed. This is no score, and no gate may read it as one."""

    topic = TopicSpec("eval.failed")
    producers = ("evaluator",)
    consumers = ("registry", "policy", "prompts")

    evaluation_id: UUID
    asset: AssetRef
    code: str
    reason: Sentence

    @property
    def key(self) -> str:
        return self.asset.urn


class DriftDetected(Event):
    """Live rows no longer look like the reference."""

    topic = TopicSpec("drift.detected")
    producers = ("evaluator",)
    consumers = ()

    group: GroupName
    asset: AssetRef
    kind: Literal["input", "output", "concept"]
    feature: str | None = None
    measure: Interval
    threshold: float
    window_start: Moment
    window_end: Moment

    @property
    def key(self) -> str:
        return self.asset.urn


EVENTS: tuple[type[Event], ...] = (EvalCompleted, EvalFailed, DriftDetected)
