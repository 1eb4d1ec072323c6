"""Splits of labels: set under If-Match, with their history."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from services.prompts.api.labels import Match
from services.prompts.api.parts import PROMPT, Given, Label, Mover, Reader
from services.prompts.domain.splits import size
from services.prompts.handlers import Handlers
from services.prompts.store import Split
from shared.http import etag, matches


class SplitBody(BaseModel):
    """Shares of the arms in basis points (1 is 0.01 %); the label keeps the rest. No arm ends the split."""

    model_config = ConfigDict(extra="forbid")

    arms: dict[Label, int] = Field(max_length=20)
    reason: str = Field(default="", max_length=2000)


class SplitView(BaseModel):
    label: str
    arms: dict[str, int]
    reason: str
    actor: str
    at: datetime

    @classmethod
    def of(cls, split: Split) -> SplitView:
        arms = {label: size(ranges) for label, ranges in split.arms.items()}
        return cls(label=split.label, arms=arms, reason=split.reason, actor=split.actor, at=split.at)


def add(routes: APIRouter, handlers: Handlers) -> None:
    splits = handlers.splits

    @routes.put(PROMPT + "/labels/{label}/split")
    async def split(
        name: Given, label: Label, body: SplitBody, caller: Mover, response: Response, if_match: Match = None
    ) -> SplitView:
        """Send some units that ask for this label to other labels. An arm that grows keeps the units that it had."""

        def match(state: int) -> None:
            matches(if_match, etag(["split", state]), required=state != 0)

        made = await splits.set(caller, name, label, body.arms, body.reason, match)
        response.headers["etag"] = etag(["split", made.id])
        return SplitView.of(made)

    @routes.get(PROMPT + "/labels/{label}/split")
    async def history(name: Given, label: Label, caller: Reader, response: Response) -> list[SplitView]:
        """Every state of a label's split, newest first; the first one counts."""
        found = await splits.history(caller, name, label)
        if found:
            response.headers["etag"] = etag(["split", found[0].id])
        return [SplitView.of(one) for one in found]
