"""HTTP of the evaluator: evaluations, how far they are, their reports."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.evaluator.handlers import Handlers
from services.evaluator.store import Evaluation
from shared.artefacts import ArtefactStore
from shared.errors import NotFound
from shared.events.base import Kind, Name, Urn
from shared.events.upstream import Answering, DatasetVersion
from shared.http import Page, PageToken, require
from shared.http.edge import StrictRoute
from shared.identity import Principal


class Asked(BaseModel):
    """Measure a version, on its own golden set unless another is named.

    By the `template` of its task unless another is named; a prompt by `question-answering`, answered by `model` or by
    the group that the installation has for it.
    """

    urn: Urn
    version: int = Field(ge=1)
    golden_set: DatasetVersion | None = None
    template: str | None = Field(default=None, min_length=1, max_length=60, pattern=r"^[^\x00]+$")
    model: Answering | None = None


class Shown(BaseModel):
    """One evaluation. `measures` are there when it is done; `code` and `reason` when it failed."""

    id: UUID
    urn: str
    version: int
    golden_set: str
    template: str
    model: str | None
    state: str
    rows: int | None
    shards: int
    shards_done: int
    measures: dict[str, Any] | None
    report: str | None
    code: str | None
    reason: str | None
    requested_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


def _shown(found: Evaluation) -> Shown:
    return Shown(
        golden_set=f"{found.golden_urn}@{found.golden_version}",
        **{name: getattr(found, name) for name in Shown.model_fields if name != "golden_set"},
    )


def router(handlers: Handlers, artefacts: ArtefactStore) -> APIRouter:
    """`/evaluator/v1`."""
    made = APIRouter(prefix="/evaluator/v1", route_class=StrictRoute, tags=["evaluations"])

    @made.post("/evaluations", status_code=202)
    async def ask(asked: Asked, caller: Annotated[Principal, require("evaluate", "evaluation")]) -> dict[str, UUID]:
        """Ask for an evaluation; the answer comes as eval.completed or eval.failed."""
        made = await handlers.request(caller, asked.urn, asked.version, asked.golden_set, asked.template, asked.model)
        return {"id": made}

    @made.get("/evaluations")
    async def listed(
        caller: Annotated[Principal, require("read", "evaluation")],
        kind: Kind | None = None,
        name: Name | None = None,
        version: int | None = None,
        page_token: str | None = None,
        page_size: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> Page[Shown]:
        """Evaluations, newest first."""
        urn = f"mm:{kind}/{name}" if kind and name else None
        token = PageToken("evaluations", urn, version)
        read = token.read(page_token)
        after = (datetime.fromisoformat(read[0]), UUID(read[1])) if read else None
        found = await handlers.listed(caller, urn, version, after, page_size + 1)
        page, more = found[:page_size], len(found) > page_size
        following = token.make([page[-1].requested_at.isoformat(), page[-1].id]) if more else None
        return Page(items=[_shown(entry) for entry in page], next_page_token=following)

    @made.get("/evaluations/{evaluation_id}")
    async def shown(evaluation_id: UUID, caller: Annotated[Principal, require("read", "evaluation")]) -> Shown:
        """One evaluation and how far it is."""
        return _shown(await handlers.shown(caller, evaluation_id))

    @made.get("/evaluations/{evaluation_id}/report")
    async def report(evaluation_id: UUID, caller: Annotated[Principal, require("read", "evaluation")]) -> Any:
        """The whole report of a finished evaluation, verified against its digest."""
        found = await handlers.shown(caller, evaluation_id)
        if found.report is None:
            raise NotFound(f"evaluation {evaluation_id} has no report: it is {found.state}")
        return orjson.loads(await artefacts.get(found.report))

    return made
