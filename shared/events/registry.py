"""What the registry says: assets and datasets that exist, what was refused, and what moved."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from shared.events.base import (
    Actor,
    Artefact,
    AssetRef,
    Event,
    Json,
    Kind,
    Moment,
    Name,
    Sentence,
    Signature,
    Title,
    TopicSpec,
    Urn,
)
from shared.events.upstream import DatasetVersion, Details, Manifest, Training


class AssetRegistered(Event):
    """The version exists: it has a URN, a number and a digest that covers all of its content."""

    topic = TopicSpec("asset.registered", retention_s=None)
    producers = ("registry",)
    consumers = ("prompts", "evaluator", "deployer", "policy", "upstream")

    asset: AssetRef
    submission_id: UUID
    kind: Kind
    title: Title | None = None
    task: str | None = None
    details: Details | None = None
    artefact: Artefact | None = None
    signature: Signature = Signature()
    golden_set: DatasetVersion | None = None
    training: Training = Training()
    prompts: tuple[AssetRef, ...] = ()
    guardrails: tuple[Json, ...] = Field(default=(), description="as they were submitted, and checked then")
    licence: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    author: Actor
    registered_at: Moment

    @property
    def key(self) -> str:
        return self.asset.urn


class AssetRefused(Event):
    """A submission was not registered; `code` is stable, `reason` is a sentence for a person."""

    topic = TopicSpec("asset.refused")
    producers = ("registry",)
    consumers = ("prompts", "upstream")

    submission_id: UUID | None = None
    event_id: str
    urn: Urn | None = None
    code: str
    reason: Sentence

    @property
    def key(self) -> str:
        return self.urn or f"mm:submission/{self.event_id}"


class AssetChanged(Event):
    """A pointer or a description moved: alias, stage, metadata, yank, retirement."""

    topic = TopicSpec("asset.changed", retention_s=None)
    producers = ("registry",)
    consumers = ()

    urn: Urn
    change: Literal["alias", "stage", "metadata", "yanked", "retired"]
    version: int | None = None
    name: str | None = Field(default=None, description="the alias, where an alias moved")
    before: Any = None
    after: Any = None
    reason: str = ""
    actor: Actor
    at: Moment

    @property
    def key(self) -> str:
        return self.urn


class DatasetRegistered(Event):
    """A dataset version exists, with its manifest."""

    topic = TopicSpec("dataset.registered", retention_s=None)
    producers = ("registry",)
    consumers = ("evaluator", "policy")

    asset: AssetRef
    manifest: Manifest
    author: Actor
    registered_at: Moment

    @property
    def key(self) -> str:
        return self.asset.urn


class BindingCreated(Event):
    """A consumer reuses a version instead of building its own."""

    topic = TopicSpec("binding.created")
    producers = ("registry",)
    consumers = ()

    binding_id: UUID
    asset: AssetRef
    consumer: Name
    purpose: Sentence
    actor: Actor

    @property
    def key(self) -> str:
        return self.asset.urn


EVENTS: tuple[type[Event], ...] = (AssetRegistered, AssetRefused, AssetChanged, DatasetRegistered, BindingCreated)
