"""A signed file of labelled prompts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from services.prompts.api.parts import Label, Reader
from services.prompts.handlers import Handlers


def add(routes: APIRouter, handlers: Handlers) -> None:
    @routes.get("/snapshot")
    async def snapshot(
        caller: Reader, label: Annotated[list[Label] | None, Query(max_length=50)] = None
    ) -> dict[str, Any]:
        """What the labels point at (all of them without one), as a DSSE envelope that clients verify and keep."""
        envelope = await handlers.snapshots.signed(caller, label or ())
        return envelope.model_dump(mode="json")
