"""What upstream pipelines and people publish: requests that a service answers with an event of its own."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

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
    Title,
    TopicSpec,
    Urn,
    Value,
)
from shared.events.guardrails import Guardrails


class DatasetFile(Value):
    """One file of a dataset, in the split that it belongs to."""

    path: str = Field(min_length=1, max_length=500)
    digest: Digest
    size: int = Field(ge=0, description="bytes")
    rows: int = Field(ge=0)
    split: Literal["train", "validation", "test", "golden"]
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    uri: str | None = Field(default=None, max_length=2000)


class Column(Value):
    """One column of a dataset's rows."""

    name: str = Field(min_length=1, max_length=200)
    type: str = Field(min_length=1, max_length=60, description="text, integer, float, boolean, date, datetime, …")
    nullable: bool = True
    description: str = Field(default="", max_length=2000)


class Revision(Value):
    """The revision of a versioned store that the files were taken from."""

    system: Literal["dvc", "lakefs"]
    repository: str = Field(min_length=1, max_length=2000)
    commit: str = Field(min_length=1, max_length=200)
    path: str = Field(default="", max_length=2000)


class Manifest(Value):
    """What a dataset is: files with hashes and splits, where it comes from and how long it may be kept."""

    files: tuple[DatasetFile, ...] = Field(min_length=1)
    label: str | None = Field(default=None, description="column that holds the ground truth")
    sensitive: tuple[str, ...] = Field(default=(), description="columns fairness is measured by")
    source: str = Field(min_length=1, max_length=2000)
    licence: str = Field(min_length=1, max_length=200)
    sensitivity: Literal["public", "internal", "confidential", "restricted"] = "internal"
    retention_days: int | None = Field(default=None, ge=1)
    columns: tuple[Column, ...] = Field(default=(), max_length=5000, description="schema of the rows")
    consent: str | None = Field(
        default=None, min_length=1, max_length=2000, description="basis on which people's data may be used"
    )
    revision: Revision | None = Field(default=None, description="where the files are versioned, in DVC or lakeFS")


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
    # No part of what a version is: absent where nobody named one, so that no digest has it.
    intent_id: UUID | None = Field(
        default=None,
        exclude_if=lambda named: named is None,
        description="the intent that decided to build (docs/how-to/reuse-before-build.md)",
    )


TASKS = (
    "classification", "regression", "summarization", "question-answering", "extraction", "code-generation",
    "forecasting", "vision", "speech", "video", "sensor", "multimodal",
)  # fmt: skip
"""What an asset is for, by the words that search and policy know; others are taken, too."""

Domain = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class Price(Value):
    """What a million tokens cost, as decimals in the provider's currency."""

    input: Decimal = Field(ge=0, max_digits=20, decimal_places=10)
    output: Decimal = Field(default=Decimal(0), ge=0, max_digits=20, decimal_places=10)
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")


class GeneralDetails(Value):
    """What is said of an asset that has no more to its kind: the domains that it belongs to."""

    type: Literal["model", "prompt", "dataset", "bundle"]
    domains: tuple[Domain, ...] = Field(default=(), max_length=50)


class VendorModelDetails(Value):
    """A model that somebody else runs: whose, under which id, for how much, how long, where, until when."""

    type: Literal["vendor-model"]
    provider: str = Field(min_length=1, max_length=100, description="openai, anthropic, bedrock, …")
    model: str = Field(min_length=1, max_length=200, description="the provider's own id")
    price: Price | None = None
    context_tokens: int | None = Field(default=None, ge=1, le=LAST_VERSION)
    regions: tuple[Annotated[str, StringConstraints(min_length=1, max_length=60)], ...] = Field(
        default=(), max_length=100
    )
    end_of_life: date | None = None
    domains: tuple[Domain, ...] = Field(default=(), max_length=50)


class EmbedderDetails(Value):
    """What makes vectors: of how many dimensions, from which tokens, for which indexes."""

    type: Literal["embedder"]
    dimension: int = Field(ge=1, le=100_000)
    tokenizer: str | None = Field(default=None, min_length=1, max_length=200)
    most_tokens: int | None = Field(default=None, ge=1, le=LAST_VERSION)
    distance: Literal["cosine", "dot", "l2"] = "cosine"
    domains: tuple[Domain, ...] = Field(default=(), max_length=50)


class RetrievalDetails(Value):
    """What finds or ranks passages: the indexes that it reads, and the embedder whose vectors stand in them."""

    type: Literal["retriever", "reranker"]
    indexes: tuple[Annotated[str, StringConstraints(min_length=1, max_length=100)], ...] = Field(
        default=(), max_length=50, description="kinds of index that it is compatible with: hnsw, bm25, …"
    )
    embedder: Urn | None = None
    dimension: int | None = Field(default=None, ge=1, le=100_000)
    tokenizer: str | None = Field(default=None, min_length=1, max_length=200)
    domains: tuple[Domain, ...] = Field(default=(), max_length=50)


Details = Annotated[
    GeneralDetails | VendorModelDetails | EmbedderDetails | RetrievalDetails, Field(discriminator="type")
]


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
    title: Title | None = Field(default=None, description="what people call it, where that is no `name`")
    artefact: Artefact | None = None
    manifest: Manifest | None = None
    task: str | None = Field(default=None, max_length=60, description="classification, regression, summarization, …")
    details: Details | None = Field(default=None, description="what only assets of this kind have")
    signature: Signature = Signature()
    golden_set: DatasetVersion | None = None
    training: Training = Training()
    prompts: tuple[AssetRef, ...] = Field(default=(), description="prompt versions that the asset closes over")
    guardrails: Guardrails = Field(
        default=(), description="guards of the version, in every group that it serves (docs/how-to/guard-a-group.md)"
    )
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
        if self.details is not None and self.details.type != self.kind:
            raise ValueError(f"details of a {self.details.type} were given for a {self.kind}")
        return self

    @property
    def urn(self) -> str:
        return f"mm:{self.kind}/{self.name}"

    @property
    def key(self) -> str:
        return self.urn


Answering = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
"""A group of the gateway, or a provider's model as the gateway calls it."""


class EvalRequested(Event):
    """Please evaluate this version (again), on the named golden set or on its own."""

    topic = TopicSpec("eval.requested")
    producers = ("upstream", "prompts")
    consumers = ("evaluator",)
    external = True
    permission = "evaluate"

    request_id: UUID
    asset: AssetRef
    golden_set: DatasetVersion | None = None
    template: str = "tabular-classification"
    model: Answering | None = Field(default=None, description="group that answers, where a prompt is measured")

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
    """Please fine-tune `base` on a dataset; the outcome is submitted as a new version of `name`.

    Where the workspace wants an intent to build, one that names none is answered by asset.refused.
    """

    topic = TopicSpec("training.requested")
    producers = ("upstream",)
    consumers = ("registry",)
    external = True
    permission = "deploy"

    request_id: UUID
    base: AssetRef
    dataset: DatasetVersion
    name: Name
    target: str = "local"
    parameters: Json = Field(default_factory=dict)
    intent_id: UUID | None = Field(default=None, description="the intent that decided to build")

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
