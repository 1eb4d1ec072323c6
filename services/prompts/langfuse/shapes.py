"""Our versions in Langfuse's shape, and what its SDK sends in ours. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.prompts.domain.content import LATEST, MAX_TEXT, Content, Message, Placeholder, Turn
from services.prompts.domain.differences import resolved_of
from services.prompts.handlers.reading import Found
from services.prompts.store import Listed
from shared.events.base import Title

Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]


class TheirMessage(BaseModel):
    """`type` is `chatmessage`, `message` or missing."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["chatmessage", "message"] | None = None
    role: str = Field(max_length=100)
    content: str = Field(max_length=MAX_TEXT)


class TheirPlaceholder(BaseModel):
    model_config = ConfigDict(extra="ignore")

    type: Literal["placeholder"]
    name: str = Field(max_length=200)


class NewPrompt(BaseModel):
    """What `create_prompt` sends."""

    model_config = ConfigDict(extra="ignore")

    name: Title
    prompt: str | list[TheirPlaceholder | TheirMessage]
    type: Literal["text", "chat"] = "text"
    labels: list[Label] | None = Field(default=None, max_length=20)
    tags: list[Annotated[str, Field(min_length=1, max_length=100)]] | None = Field(default=None, max_length=50)
    config: dict[str, Any] | None = None
    commit_message: str | None = Field(default=None, alias="commitMessage", max_length=2000)

    @field_validator("type", mode="before")
    @classmethod
    def _text_without_one(cls, value: Any) -> Any:
        return "text" if value is None else value

    def content(self) -> Content:
        """As a plain prompt: double braces have a meaning, nothing else has."""
        config = self.config or {}
        if isinstance(self.prompt, str):
            if self.type != "text":
                raise ValueError("a chat prompt is a list of messages")
            return Content(text=self.prompt, syntax="plain", config=config)
        if self.type != "chat":
            raise ValueError("a text prompt is a string")
        turns: tuple[Turn, ...] = tuple(
            Placeholder(type="placeholder", name=turn.name)
            if isinstance(turn, TheirPlaceholder)
            else Message.model_validate({"role": turn.role, "content": turn.content})
            for turn in self.prompt
        )
        return Content(messages=turns, syntax="plain", config=config)


class NewLabels(BaseModel):
    """What `update_prompt` sends. Labels are added; none is removed."""

    model_config = ConfigDict(extra="ignore")

    new_labels: list[Label] = Field(alias="newLabels", max_length=20)


def shown(found: Found, workspace: str, *, newest: int, resolve: bool = True) -> dict[str, Any]:
    """A version as `get_prompt` expects it."""
    version = found.version
    content = resolved_of(version.content) if resolve else version.content
    closure = version.content.get("closure")
    return {
        "id": str(version.submission_id),
        "projectId": workspace,
        "createdAt": version.published_at.isoformat(),
        "updatedAt": version.published_at.isoformat(),
        "createdBy": version.author,
        "name": found.prompt.title,
        "version": version.version,
        "type": "text" if content.get("text") is not None else "chat",
        "prompt": content["text"] if content.get("text") is not None else [_turn(one) for one in content["messages"]],
        "config": content.get("config", {}),
        "labels": [*found.labels, *([LATEST] if version.version == newest else [])],
        "tags": list(found.prompt.tags),
        "commitMessage": version.commit_message or None,
        "resolutionGraph": _graph(found, closure) if closure and resolve else None,
    }


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    if turn.get("type") == "placeholder":
        return {"type": "placeholder", "name": turn["name"]}
    return {"type": "chatmessage", "role": turn["role"], "content": turn["content"]}


def _graph(found: Found, closure: list[dict[str, Any]]) -> dict[str, Any]:
    root = {"name": found.prompt.title, "version": found.version.version, "id": found.version.digest}
    below: dict[str, list[dict[str, Any]]] = {}

    def walk(key: str, entries: list[dict[str, Any]]) -> None:
        below[key] = [{"name": one["title"], "version": one["version"], "id": one["digest"]} for one in entries]
        for one in entries:
            if one.get("closure"):
                walk(one["digest"], one["closure"])

    walk(found.version.digest, closure)
    return {"root": root, "dependencies": below}


def listed(one: Listed) -> dict[str, Any]:
    """A prompt in their list."""
    return {
        "name": one.title,
        "type": "text" if one.is_text else "chat",
        "versions": one.versions,
        "labels": one.labels,
        "tags": one.tags,
        "lastUpdatedAt": one.updated_at.isoformat(),
        "lastConfig": one.config,
    }
