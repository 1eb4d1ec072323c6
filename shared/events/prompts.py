"""What the prompts service says: new prompt versions, and labels that moved."""

from __future__ import annotations

from uuid import UUID

from shared.events.base import Actor, AssetRef, Digest, Event, Name, Title, TopicSpec


class PromptPublished(Event):
    """A prompt version is final; it is submitted to the registry under `submission_id`."""

    topic = TopicSpec("prompt.published", retention_s=None)
    producers = ("prompts",)
    consumers = ("registry",)

    name: Name
    title: Title | None = None
    version: int
    digest: Digest
    submission_id: UUID
    variables: tuple[str, ...] = ()
    includes: tuple[AssetRef, ...] = ()
    commit_message: str = ""
    actor: Actor

    @property
    def key(self) -> str:
        return f"mm:prompt/{self.name}"


class PromptLabelMoved(Event):
    """A label points elsewhere."""

    topic = TopicSpec("prompt.label_moved", retention_s=None)
    producers = ("prompts",)
    consumers = ()

    name: Name
    label: str
    before: int | None = None
    after: int | None = None
    reason: str = ""
    actor: Actor

    @property
    def key(self) -> str:
        return f"mm:prompt/{self.name}"


EVENTS: tuple[type[Event], ...] = (PromptPublished, PromptLabelMoved)
