"""Who fetches a prompt."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from services.prompts.api.parts import PROMPT, Given, Reader
from services.prompts.handlers import Handlers


class UsageView(BaseModel):
    """`application` is what the fetcher called itself, else the principal of its key; `group` a model group."""

    version: int
    application: str
    group: str
    fetches: int
    days: int
    last_at: datetime


def add(routes: APIRouter, handlers: Handlers) -> None:
    @routes.get(PROMPT + "/usage")
    async def usage(name: Given, caller: Reader, days: Annotated[int, Query(ge=1, le=3650)] = 30) -> list[UsageView]:
        """Which applications and groups fetched which version in the last days; up to five seconds late."""
        return [
            UsageView(
                version=one.version,
                application=one.application,
                group=one.group_name,
                fetches=one.fetches,
                days=one.days,
                last_at=one.last_at,
            )
            for one in await handlers.usages.of(caller, name, days)
        ]
