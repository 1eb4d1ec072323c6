"""What upstream pipelines and people publish: requests that a service answers with an event of its own."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import Field, model_validator

from shared.events.base import (
    LAST_VERSION,
    Artefact,
    AssetRef,
    Digest,
    Event,
    GroupName,
    Json,
    Kind,
    Moment,
    Name,
    Signature,
    TopicSpec,
    Urn,
    Value,
)


class DatasetFile(Value):
    """One file of a dataset, in the split that it belongs to."""

    path: str = Field(min_length=1, max_length=500)
    digest: Digest
    size: int = Field(ge=0, description="bytes")
    rows: int = Field(ge=0)
    split: Literal["train", "validation", "test", "golden"]
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    uri: str | None = Field(default=None, max_length=2000)


class Manifest(Value):
    """What a dataset is: files with hashes and splits, where it comes from and how long it may be kept."""

    files: tuple[DatasetFile, ...] = Field(min_length=1)
    label: str | None = Field(default=None, description="column that holds the ground truth")
    sensitive: tuple[str, ...] = Field(default=(), description="columns fairness is measured by")
    source: str = Field(min_length=1, max_length=2000)
    licence: str = Field(min_length=1, max_length=200)
    sensitivity: Literal["public", "internal", "confidential", "restricted"] = "internal"
    retention_days: int | None = Field(default=None, ge=1)


class DatasetVersion(Value):
    """A registered dataset version by URN and number; the digest, when given, must be the registered one."""

    urn: Urn
    version: int = Field(ge=1, le=LAST_VERSION)
    digest: Digest | None = None


class Training(Value):
    """Where a version comes from: run, commit, data, configuration."""

    run_id: str | None = None
    commit: str | None = None
    dataset: DatasetVersion | None = None
    parameters: Json = Field(default_factory=dict)
    base: tuple[Urn, ...] = ()


class AssetSubmitted(Event):
    """Please register this version. `submission_id` comes back in the answer, registered or refused.

    A dataset carries its `manifest`, everything else its `artefact` (a vendor model may have neither).
    """

    topic = TopicSpec("asset.submitted")
    producers = ("upstream", "prompts")
    consumers = ("registry",)
    external = True

    submission_id: UUID
    kind: Kind
    name: Name
    artefact: Artefact | None = None
    manifest: Manifest | None = None
    task: str | None = Field(default=None, max_length=60, description="classification, regression, summarization, …")
    signature: Signature = Signature()
    golden_set: DatasetVersion | None = None
    training: Training = Training()
    prompts: tuple[AssetRef, ...] = Field(default=(), description="prompt versions that the asset closes over")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="as the pipeline claims them; never a gate's input"
    )
    tags: dict[str, str] = Field(default_factory=dict)
    licence: str | None = Field(default=None, max_length=200)
    description: str = Field(default="", max_length=10_000)
    author: str | None = Field(
        default=None, max_length=200, description="claimed author; must be the signer's principal"
    )

    @model_validator(mode="after")
    def _carries_its_content(self) -> AssetSubmitted:
        if self.kind == "dataset" and self.manifest is None:
            raise ValueError("a dataset needs its manifest")
        if self.kind in ("model", "prompt") and self.artefact is None:
            raise ValueError(f"a {self.kind} needs its artefact")
        return self

    @property
    def urn(self) -> str:
        return f"mm:{self.kind}/{self.name}"

    @property
    def key(self) -> str:
        return self.urn


class EvalRequested(Event):
    """Please evaluate this version (again), on the named golden set or on its own."""

    topic = TopicSpec("eval.requested")
    producers = ("upstream",)
    consumers = ("evaluator",)
    external = True
    permission = "evaluate"

    request_id: UUID
    asset: AssetRef
    golden_set: DatasetVersion | None = None
    template: str = "tabular-classification"

    @property
    def key(self) -> str:
        return self.asset.urn


class DeployRequested(Event):
    """Please put this version on a target. Only an approval that binds to its digest lets it through."""

    topic = TopicSpec("deploy.requested")
    producers = ("upstream", "deployer")
    consumers = ("deployer",)
    external = True
    permission = "deploy"

    request_id: UUID
    asset: AssetRef
    target: str = "local"
    parameters: Json = Field(default_factory=dict)
    requested_by: str | None = Field(
        default=None, max_length=200, description="claimed; must be the signer's principal"
    )

    @property
    def key(self) -> str:
        return self.asset.urn


class TrainingRequested(Event):
    """Please fine-tune `base` on a dataset; the outcome is submitted as a new version of `name`."""

    topic = TopicSpec("training.requested")
    producers = ("upstream",)
    consumers = ()
    external = True
    permission = "deploy"

    request_id: UUID
    base: AssetRef
    dataset: DatasetVersion
    name: Name
    target: str = "local"
    parameters: Json = Field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.base.urn


class RunCompleted(Event):
    """A training run ended: its inputs, commit, signer and metrics."""

    topic = TopicSpec("run.completed")
    producers = ("registry", "deployer", "upstream")
    consumers = ("registry",)
    external = True

    run_id: str = Field(min_length=1, max_length=200)
    name: Name
    status: Literal["finished", "failed", "killed"]
    commit: str | None = None
    datasets: tuple[DatasetVersion, ...] = ()
    parameters: Json = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    started_at: Moment
    ended_at: Moment

    @property
    def key(self) -> str:
        return f"mm:model/{self.name}"


class FeedbackReceived(Event):
    """Ground truth or another outcome of one answered request, however late it comes."""

    topic = TopicSpec("feedback.received")
    producers = ("router", "upstream")
    consumers = ("router",)
    external = True
    permission = "feedback"

    group: GroupName
    request_id: UUID
    metric: str = Field(default="label", min_length=1, max_length=100)
    value: Any
    observed_at: Moment

    @property
    def key(self) -> str:
        return f"mm:group/{self.group}"


EVENTS: tuple[type[Event], ...] = (
    AssetSubmitted,
    EvalRequested,
    DeployRequested,
    TrainingRequested,
    RunCompleted,
    FeedbackReceived,
)
