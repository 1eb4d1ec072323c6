"""What was measured of prompts, which to take, and what they are bound to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from services.prompts.api.parts import PROMPT, Given, Label, Mover, Reader, pointer
from services.prompts.domain.ranking import Ranked
from services.prompts.handlers import Handlers
from services.prompts.handlers.reading import Pointer
from shared.errors import Invalid

Text = Annotated[str | None, Query(max_length=500, pattern=r"^[^\x00]+$")]
Named = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
At = Annotated[Pointer, Depends(pointer)]


class EvidenceView(BaseModel):
    """One evaluation; `code` and `reason` where it failed, which is no score."""

    evaluation_id: UUID
    task: str | None
    model: str | None
    golden_set: str | None
    measures: dict[str, Any]
    rows: int
    errors: int
    report: str | None
    code: str | None
    reason: str | None
    at: datetime


class LiveEvidenceView(BaseModel):
    """What `asset`, a version that closes over the prompt, did in `group` from `since` until `until`, as `role`.

    `measures` have intervals, of 100 rows and more; `latency_ms` are quantiles without one.
    """

    group: str
    asset: str
    role: str
    since: datetime
    until: datetime
    requests: int
    errors: int
    latency_ms: dict[str, float]
    measures: dict[str, Any]


class RankedView(BaseModel):
    """`rank` is shared by those whose intervals overlap; null and `no evidence` where nothing was measured.

    By evaluations there is a row a task and model, with `golden_set` and `evaluation_id`. Live, there is one a group
    and version that closes over the prompt (`asset`, in `role`), of traffic from `since` until `at`.
    """

    rank: int | None
    name: str
    title: str
    version: int
    labels: list[str]
    evidence: str
    measure: dict[str, Any] | None
    task: str | None = None
    model: str | None = None
    golden_set: str | None = None
    evaluation_id: UUID | None = None
    group: str | None = None
    asset: str | None = None
    role: str | None = None
    since: datetime | None = None
    rows: int | None
    at: datetime | None

    @classmethod
    def of(cls, row: Ranked[Any]) -> RankedView:
        known = {name: getattr(row.one, name) for name in cls.model_fields if hasattr(row.one, name)}
        said = "no evidence" if row.measure is None else "measured"
        return cls(**known, rank=row.rank, measure=row.measure, evidence=said)


class RankingView(BaseModel):
    """By one measure of one source: what was measured on golden sets and what traffic brought are never mixed."""

    source: Literal["evaluation", "live"]
    measure: str | None
    items: list[RankedView]


class BindingBody(BaseModel):
    """What the prompt's label is meant for."""

    model_config = ConfigDict(extra="forbid")

    model: Named
    use_case: Named
    label: Label = "production"


class BindingView(BaseModel):
    name: str
    title: str
    model: str
    use_case: str
    label: str
    actor: str
    at: datetime


def add(routes: APIRouter, handlers: Handlers) -> None:
    evidence = handlers.evidence

    @routes.get(PROMPT + "/evidence")
    async def of(name: Given, caller: Reader, at: At) -> list[EvidenceView]:
        """What was measured of a version, newest first."""
        found = await evidence.of(caller, name, at)
        return [EvidenceView(**{field: getattr(one, field) for field in EvidenceView.model_fields}) for one in found]

    @routes.get(PROMPT + "/evidence/live")
    async def live(name: Given, caller: Reader, at: At) -> list[LiveEvidenceView]:
        """What the versions that close over a version did in traffic, newest first."""
        found = await evidence.live(caller, name, at)
        return [
            LiveEvidenceView(**{field: getattr(one, field) for field in LiveEvidenceView.model_fields}) for one in found
        ]

    @routes.get("/ranking")
    async def ranked(
        caller: Reader,
        task: Text = None,
        model: Text = None,
        measure: Text = None,
        prompt: Text = None,
        source: Literal["evaluation", "live"] = "evaluation",
        group: Text = None,
    ) -> RankingView:
        """Versions that carry a label or are the newest, best first, by their intervals: on a task and a model, or
        with `source=live` in traffic, of one group or of all."""
        found: tuple[str | None, Sequence[Ranked[Any]]]
        if source == "live":
            if task is not None or model is not None:
                raise Invalid("task and model are of evaluations; live figures are told apart by group")
            found = await evidence.ranked_live(caller, group, measure, prompt)
        else:
            if group is not None:
                raise Invalid("group is of live figures: ask with source=live")
            found = await evidence.ranked(caller, task, model, measure, prompt)
        return RankingView(source=source, measure=found[0], items=[RankedView.of(row) for row in found[1]])

    @routes.put(PROMPT + "/bindings")
    async def bind(name: Given, body: BindingBody, caller: Mover) -> BindingView:
        """Bind a label of the prompt to a model and a use case; the same again with another label takes its place."""
        made = await evidence.bind(caller, name, body.model, body.use_case, body.label)
        return BindingView(**{field: getattr(made, field) for field in BindingView.model_fields})

    @routes.delete(PROMPT + "/bindings", status_code=204)
    async def unbind(
        name: Given,
        caller: Mover,
        model: Annotated[str, Query(max_length=200)],
        use_case: Annotated[str, Query(max_length=200)],
    ) -> None:
        """Take a binding away."""
        await evidence.unbind(caller, name, model, use_case)

    @routes.get("/bindings")
    async def bindings(
        caller: Reader, prompt: Text = None, model: Text = None, use_case: Text = None
    ) -> list[BindingView]:
        """Bindings of a prompt, a model or a use case."""
        found = await evidence.bindings(caller, prompt, model, use_case)
        return [BindingView(**{field: getattr(one, field) for field in BindingView.model_fields}) for one in found]
