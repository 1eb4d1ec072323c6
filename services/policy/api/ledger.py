"""The ledger over HTTP: pages of entries, its signed head, verification here, and an export to verify elsewhere."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from services.policy.api.values import MOST_ID, Text, last_id
from services.policy.handlers import Ledger
from services.policy.handlers.ledger import document
from shared.http import Page, PageToken, require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal


class VerificationView(BaseModel):
    """`first_bad` is the index of the first entry that is not as it was recorded."""

    holds: bool
    entries: int
    first_bad: int | None
    reason: str
    head: str


def router(ledger: Ledger) -> APIRouter:
    routes = APIRouter(prefix="/ledger", route_class=StrictRoute, tags=["ledger"])

    @routes.get("")
    async def list_entries(
        caller: Annotated[Principal, require("audit", "ledger")],
        key: Annotated[Text | None, Query(max_length=500)] = None,
        type: Annotated[Text | None, Query(max_length=200)] = None,
        trace: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
        max_results: Annotated[int, Query(ge=1, le=1000)] = 100,
        page_token: Annotated[str | None, Query(max_length=500)] = None,
    ) -> Page[dict[str, Any]]:
        """Entries in order: of one asset (`key` is its URN), one event type, one trace, or all."""
        token = PageToken("ledger", caller.workspace, key, type, trace)
        after = last_id(token.read(page_token)) or 0
        rows = await ledger.entries(caller.workspace, after, max_results, key=key, type=type, trace=trace)
        return Page(
            items=[document(row) for row in rows],
            next_page_token=token.make([rows[-1]["index"]]) if len(rows) == max_results else None,
        )

    @routes.get("/entries/{index}")
    async def get_entry(
        index: Annotated[int, Path(ge=1, le=MOST_ID)], caller: Annotated[Principal, require("audit", "ledger")]
    ) -> dict[str, Any]:
        """One entry."""
        return document(await ledger.entry(caller.workspace, index))

    @routes.get("/head")
    async def head(caller: Annotated[Principal, require("audit", "ledger")]) -> dict[str, Any]:
        """How far the chain goes, signed. Keep it elsewhere: the verifier takes it as `--head`."""
        return await ledger.head(caller.workspace)

    @routes.get("/verify")
    async def verify(caller: Annotated[Principal, require("audit", "ledger")]) -> VerificationView:
        """Walk the whole chain here. Whoever does not want to trust this server exports it and verifies it apart."""
        found = await ledger.verify(caller.workspace)
        return VerificationView(
            holds=found.holds, entries=found.entries, first_bad=found.index, reason=found.reason, head=found.hash
        )

    @routes.get("/export", response_class=StreamingResponse)
    async def export(caller: Annotated[Principal, require("audit", "ledger")]) -> StreamingResponse:
        """Every entry and the signed head, as JSON lines for `python services/policy/verifier.py`."""
        return StreamingResponse(ledger.export(caller.workspace), media_type="application/jsonl")

    return routes
