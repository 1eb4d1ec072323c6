"""Bringing in another registry's prompts: told first by a dry run, idempotent by number and text."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.prompts.api.parts import LAST
from services.prompts.handlers import Handlers
from services.prompts.handlers.importing import ForeignPrompt, ForeignVersion, Item, Outcome
from services.prompts.langfuse.shapes import NewPrompt
from shared.errors import Invalid
from shared.events.base import Title
from shared.http import require
from shared.identity import Principal

Importer = Annotated[Principal, require("configure", "prompt")]
Id = Annotated[str, Field(min_length=1, max_length=1000)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SourceBody(Part):
    """What is imported from; `name` is what it is known by for good."""

    kind: Literal["langfuse"]
    name: Annotated[str, Field(min_length=1, max_length=500)]


class VersionBody(Part):
    """A version as Langfuse has it: text or chat, in its own syntax."""

    id: Id
    number: int = Field(ge=1, le=LAST)
    type: Literal["text", "chat"] = "text"
    prompt: str | list[dict[str, object]]
    config: dict[str, object] = {}
    commit_message: str = Field(default="", max_length=2000)
    author: str = Field(default="unknown", min_length=1, max_length=150)
    published_at: AwareDatetime | None = None

    def foreign(self, title: str) -> ForeignVersion:
        """Raises Invalid."""
        try:
            said = {"name": title, "type": self.type, "prompt": self.prompt, "config": self.config}
            written = NewPrompt.model_validate(said).content()
        except ValidationError as error:
            raise Invalid(f"version {self.number} of {title[:100]!r}: {error.errors()[0]['msg']}") from None
        except ValueError as error:
            raise Invalid(f"version {self.number} of {title[:100]!r}: {error}") from None
        at: datetime | None = self.published_at
        author = f"imported:langfuse/{self.author}"
        return ForeignVersion(self.id, self.number, written, self.commit_message, author, at)


class PromptBody(Part):
    """A prompt with some of its versions; labels come with the last of them."""

    id: Id
    kind: Literal["prompt"] = "prompt"
    title: Title
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=50)] = []
    versions: Annotated[list[VersionBody], Field(max_length=500)] = []
    labels: dict[Annotated[str, Field(max_length=200)], int] | None = Field(default=None, max_length=500)

    def foreign(self) -> ForeignPrompt:
        versions = [version.foreign(self.title) for version in self.versions]
        return ForeignPrompt(self.id, self.title, self.tags, versions, self.labels)


class ImportBody(Part):
    source: SourceBody
    dry_run: bool = False
    assets: Annotated[list[PromptBody], Field(max_length=200)]


class DifferenceView(BaseModel):
    field: str
    before: str | None
    after: str | None
    why_not: str | None


class ItemView(BaseModel):
    """What became (of a dry run: would become) of a prompt, or of a version of it."""

    id: str
    urn: str
    version: int | None
    outcome: Outcome
    differences: list[DifferenceView]
    reason: str

    @classmethod
    def of(cls, item: Item) -> ItemView:
        return cls(
            id=item.id,
            urn=item.urn,
            version=item.version,
            outcome=item.outcome,
            reason=item.reason,
            differences=[
                DifferenceView(field=one.field, before=one.before, after=one.after, why_not=one.why_not)
                for one in item.differences
            ],
        )


class ImportedView(BaseModel):
    items: list[ItemView]


def add(routes: APIRouter, handlers: Handlers) -> None:
    @routes.post("/imports")
    async def bring(body: ImportBody, caller: Importer) -> ImportedView:
        """Versions keep their numbers and times. Sending the same again changes nothing, so no key is needed."""
        source = f"{body.source.kind}:{body.source.name}"
        wanted = [prompt.foreign() for prompt in body.assets]
        items = [
            item for one in wanted for item in await handlers.importing.bring(caller, source, one, dry=body.dry_run)
        ]
        return ImportedView(items=[ItemView.of(item) for item in items])
