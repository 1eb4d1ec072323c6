"""What the routes share: who may do what, parameters, and views of versions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, StringConstraints, TypeAdapter

from services.prompts.api.paths import decoded
from services.prompts.domain.content import LATEST
from services.prompts.handlers.reading import Found, Pointer
from shared.events.base import Moment, Title
from shared.http import require
from shared.identity import Principal

PREFIX = "/prompts/v1"
PROMPT = "/prompts/{name}"
LAST = 2**31 - 1
MADE_UP = "page_token is not one that was given out here; start without it"

Reader = Annotated[Principal, require("read", "prompt")]
Publisher = Annotated[Principal, require("submit", "prompt")]
Mover = Annotated[Principal, require("move", "prompt")]
_TITLE: TypeAdapter[str] = TypeAdapter(Title)


def _title(text: str) -> str:
    return _TITLE.validate_python(decoded(text))


# A title of 500 characters may be six times as long where its slashes and percent signs are still encoded.
Given = Annotated[str, Path(max_length=3000, description="title or name of the prompt"), AfterValidator(_title)]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
Number = Annotated[int, Query(ge=1, le=LAST)]
Size = Annotated[int, Query(ge=1, le=500)]


def pointer(version: Number | None = None, label: Label = LATEST, at: Moment | None = None) -> Pointer:
    """One version: by number, else by label (`latest` without one), as of a time."""
    return Pointer(version, label, at)


class VersionView(BaseModel):
    """A version; `state` says what the registry made of it, `labels` which point at it now."""

    name: str
    title: str
    version: int
    digest: str
    content: dict[str, Any]
    commit_message: str
    author: str
    submission_id: UUID
    state: str
    asset_version: int | None
    asset_digest: str | None
    code: str | None
    reason: str | None
    published_at: datetime
    proposal: UUID | None = None
    labels: list[str] = []
    tags: list[str] = []

    @classmethod
    def of(cls, found: Found) -> VersionView:
        fields = {name: getattr(found.version, name) for name in found.version.__slots__}
        return cls(**fields, title=found.prompt.title, labels=found.labels, tags=list(found.prompt.tags))
