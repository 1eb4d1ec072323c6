"""What the deployer says: how far a deployment or training got, where it answers, why it did not."""

from __future__ import annotations

from uuid import UUID

from pydantic import Field

from shared.events.base import (
    Actor,
    Artefact,
    AssetRef,
    Digest,
    Event,
    Json,
    Moment,
    Name,
    Sentence,
    Signature,
    TopicSpec,
)
from shared.events.policy import Envelope


class DeployProgressed(Event):
    """One step further."""

    topic = TopicSpec("deploy.progressed")
    producers = ("deployer",)
    consumers = ()

    request_id: UUID
    asset: AssetRef
    target: str
    step: str
    detail: str = ""
    percent: int = Field(ge=0, le=100)

    @property
    def key(self) -> str:
        return self.asset.urn


class DeployCompleted(Event):
    """The version answers at `endpoint` (Open Inference Protocol base URL) from a bundle that was verified.

    POST `{endpoint}/v2/models/{model_name}/versions/{asset.version}/infer`. `endpoint` is http(s), may have a path, and
    ends without a slash; `model_name` is unique over all workspaces (`<workspace>.<name>`) and fits a URL as it is; a
    model's versions share it, so a request always names the version. `signature.inputs` are the tensors that the
    served version takes, in the order of its SHAP values. `statement` is policy's signed approval, for each reader to
    verify. Said again with the same `deployment_id` when the version moved to another endpoint: the newest word counts.
    """

    topic = TopicSpec("deploy.completed", retention_s=None)
    producers = ("deployer",)
    consumers = ("registry", "router")

    request_id: UUID
    deployment_id: UUID
    asset: AssetRef
    target: str
    endpoint: str
    model_name: str
    bundle: Digest
    approval_id: UUID
    statement: Envelope
    signature: Signature = Signature()
    guardrails: tuple[Json, ...] = Field(
        default=(), description="guards that come with the version (the router's); groups may tighten them only"
    )
    completed_at: Moment

    @property
    def key(self) -> str:
        return self.asset.urn


class DeployFailed(Event):
    """The version was not deployed; `code` is stable."""

    topic = TopicSpec("deploy.failed")
    producers = ("deployer",)
    consumers = ("registry",)

    request_id: UUID | None = None
    event_id: str
    asset: AssetRef | None = None
    target: str | None = None
    code: str
    reason: Sentence

    @property
    def key(self) -> str:
        return self.asset.urn if self.asset else f"mm:deploy/{self.event_id}"


class DeployWithdrawn(Event):
    """The version, which had completed, answers no longer on `target`: `actor` took it away, or it was lost for good.

    `code` is `undeployed`, or what barred it from being put back. Said once nothing of the version is left on the
    target: not while another deployment of it stands there. A deploy.completed whose `completed_at` is after
    `withdrawn_at` is news; an earlier one, whenever it is heard, is not.
    """

    topic = TopicSpec("deploy.withdrawn", retention_s=None)
    producers = ("deployer",)
    consumers = ("registry", "router")

    request_id: UUID
    deployment_id: UUID
    asset: AssetRef
    target: str
    endpoint: str
    code: str
    reason: Sentence
    actor: Actor
    withdrawn_at: Moment

    @property
    def key(self) -> str:
        return self.asset.urn


class TrainingProgressed(Event):
    """A fine-tuning job is one step further."""

    topic = TopicSpec("training.progressed")
    producers = ("deployer",)
    consumers = ()

    request_id: UUID
    base: AssetRef
    step: str
    percent: int = Field(ge=0, le=100)

    @property
    def key(self) -> str:
        return self.base.urn


class TrainingCompleted(Event):
    """A fine-tuning job made a new artefact."""

    topic = TopicSpec("training.completed", retention_s=None)
    producers = ("deployer",)
    consumers = ()

    request_id: UUID
    base: AssetRef
    name: Name
    artefact: Artefact
    run_id: str
    config: Digest

    @property
    def key(self) -> str:
        return self.base.urn


EVENTS: tuple[type[Event], ...] = (
    DeployProgressed,
    DeployCompleted,
    DeployFailed,
    DeployWithdrawn,
    TrainingProgressed,
    TrainingCompleted,
)
