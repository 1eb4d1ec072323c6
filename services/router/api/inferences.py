"""What a group answered, and what was said about it, over HTTP."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.router.api.groups import Body
from services.router.domain import BUCKETS
from services.router.handlers.explaining import ranges_of
from services.router.handlers.feedback import Feedback, Remark
from services.router.handlers.groups import arms, ref
from services.router.handlers.inferences import FIRST, LAST, LAST_ID, Inference, Inferences, Why
from services.router.store import Row
from services.router.tables.filters import Filter, read_filters
from services.router.tables.store import Wanted
from shared.errors import Invalid
from shared.events.base import AssetRef, Moment, Urn
from shared.events.router import Arm
from shared.http import Page, PageToken
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

log = logging.getLogger(__name__)

Reader = Annotated[Principal, require("read", "inference")]
Auditor = Annotated[Principal, require("audit", "inference")]
Labeller = Annotated[Principal, require("feedback", "group")]
MOST_REMARKS = 10_000


class RemarkBody(Body):
    """A word about one request; `label` is the true label in the spelling of the model's own."""

    request_id: UUID
    metric: str = Field(default="label", min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")
    value: bool | int | float | str


class TakenView(BaseModel):
    """`unmatched` requests have no row in the group's table (yet)."""

    received: int
    unmatched: int


class RowView(BaseModel):
    """One request. `asset` is null where the request was refused before a version was chosen; times are in ms.

    `label` is what the model said, `truth` the true label as far as it was known; `shadow_of` is whose shadow it is.
    """

    request_id: UUID
    received_at: datetime
    unit: str
    asset: AssetRef | None
    version: int | None
    arm: str | None
    status: int
    error_code: str | None
    score: float | None
    label: str | None
    truth: str | None
    latency_ms: float
    upstream_ms: float | None
    protocol: str | None
    requester: str | None
    client_request_id: str | None
    shadow_of: UUID | None
    trace_id: str
    revision: int
    tags: Any

    @classmethod
    def of(cls, row: Row, **more: Any) -> Any:
        asset = AssetRef(urn=row["asset"], version=row["version"], digest=row["digest"]) if row["asset"] else None
        same = {name: row[name] for name in cls.model_fields if name in row and name not in more and name != "asset"}
        return cls(asset=asset, label=row["prediction"], **same, **more)


class RowsView(Page[RowView]):
    """With a `next_page_token` the page may hold fewer rows than were asked for, even none: the search went back to
    `searched_until` in its time, and the next page goes on from there."""

    searched_until: datetime | None = None


class SaidView(BaseModel):
    """One word about the request; `counts` is the latest of its metric, the others are history."""

    id: UUID
    metric: str
    value: float | None
    label: str | None
    who: str
    received_at: datetime
    counts: bool

    @classmethod
    def of(cls, row: Row) -> SaidView:
        return cls(**{name: row[name] for name in cls.model_fields})


class InferenceView(RowView):
    """With input and output as the client's protocol has them; base and the SHAP values add up to raw_score.

    The output of a stream is what was heard of it: the parts of the answer, or a model server's events.
    `feedback` is the latest 100 words; …/feedback has all.
    """

    attempts: int | None
    ttft_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    features: Any
    input: Any
    output: Any
    shap: Any
    feedback: list[SaidView]

    @classmethod
    def whole(cls, found: Inference) -> InferenceView:
        truth = next((word["label"] for word in found.feedback if word["metric"] == "label"), None)
        said = [SaidView.of(row) for row in found.feedback]
        view: InferenceView = cls.of(found.row, truth=truth, feedback=said)
        return view


class RangesView(BaseModel):
    """A version's buckets, as half-open ranges."""

    asset: AssetRef
    ranges: tuple[tuple[int, int], ...]


class AttemptView(BaseModel):
    """One attempt at a target; see handlers/explaining.py."""

    to: str
    via: str
    tier: str
    outcome: str
    ms: float | None
    hedge: bool
    breaker: str


class SkippedView(BaseModel):
    """A target that was not asked."""

    to: str
    why: str


class WhyView(BaseModel):
    """The unit's bucket (of `buckets`), the arms and their ranges at the revision which the gateway had, and whose the
    bucket was; the rule that decided in place of it, the attempts, who was passed over, and whether the cache answered.
    """

    request_id: UUID
    unit: str
    bucket: int
    buckets: int
    revision: int
    revision_at: datetime
    change: str
    arms: tuple[Arm, ...]
    chosen: AssetRef
    served: AssetRef | None
    ranges: tuple[RangesView, ...]
    rule: str | None
    gave_way: str
    attempts: tuple[AttemptView, ...]
    skipped: tuple[SkippedView, ...]
    no_more: str
    failed_over: bool
    cache: str | None
    shadow_of: UUID | None
    explanation: str

    @classmethod
    def of(cls, why: Why) -> WhyView:
        return cls(
            request_id=why.row["request_id"],
            unit=why.row["unit"],
            bucket=why.bucket,
            buckets=BUCKETS,
            revision=why.revision.group.revision,
            revision_at=why.revision.at,
            change=why.revision.change.value,
            arms=arms(why.revision.group),
            chosen=ref(why.chosen),
            served=ref(why.served) if why.served else None,
            ranges=tuple(
                RangesView(asset=ref(version), ranges=ranges) for version, ranges in ranges_of(why.revision.group)
            ),
            rule=why.told.rule,
            gave_way=why.told.gave_way,
            attempts=tuple(AttemptView(**asdict(one)) for one in why.told.attempts),
            skipped=tuple(SkippedView(to=to, why=reason) for to, reason in why.told.skipped),
            no_more=why.told.no_more,
            failed_over=why.told.failed_over,
            cache=why.told.cache,
            shadow_of=why.row["shadow_of"],
            explanation=why.explanation,
        )


def router(inferences: Inferences, feedback: Feedback) -> APIRouter:
    routes = APIRouter(prefix="/groups/{group}", route_class=StrictRoute, tags=["inferences"])

    @routes.get("/inferences")
    async def page(
        group: str,
        caller: Reader,
        since: Moment = FIRST,
        until: Moment = LAST,
        as_of: Moment = LAST,
        asset: Urn | None = None,
        version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
        status: Annotated[int | None, Query(ge=100, le=599)] = None,
        unit: Annotated[str | None, Query(max_length=256)] = None,
        where: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
        max_results: Annotated[int, Query(ge=1, le=500)] = 50,
        page_token: Annotated[str | None, Query(max_length=500)] = None,
    ) -> RowsView:
        """Rows, newest first; each `where` is a filter on any column: `status>=500`, `features.AGEP>40`, `input~word`.

        `as_of` shows the table as it was known then: rows received until that moment, and labels received until it.
        """
        if unit is not None and "\x00" in unit:
            raise Invalid("A unit holds no NUL character.")
        named = {"asset": asset, "version": version, "status": status, "unit": unit}
        filters = tuple(Filter(name, "=", str(value)) for name, value in named.items() if value is not None)
        filters += read_filters(where)
        said = [one.to_json() for one in filters]
        token = PageToken("inferences", caller.workspace, group, since, until, as_of, said)
        before = token.read(page_token)
        bound = (datetime.fromisoformat(str(before[0])), UUID(str(before[1]))) if before else (LAST, LAST_ID)
        wanted = Wanted(since, min(until, as_of), bound, filters)
        found = await inferences.page(caller.workspace, group, wanted, max_results + 1, as_of)
        items = [
            RowView.of(row, truth=found.truths.get(row["shadow_of"] or row["request_id"]))
            for row in found.rows[:max_results]
        ]
        if len(found.rows) > max_results:
            return RowsView(
                items=items, next_page_token=token.make([items[-1].received_at.isoformat(), items[-1].request_id])
            )
        if found.reached is None:
            return RowsView(items=items)
        at, request_id = found.reached
        return RowsView(items=items, next_page_token=token.make([at.isoformat(), request_id]), searched_until=at)

    @routes.get("/inferences/{request_id}")
    async def one(group: str, request_id: UUID, caller: Reader, as_of: Moment = LAST) -> InferenceView:
        """One request's whole row, with SHAP values and what had been said about it at `as_of`."""
        return InferenceView.whole(await inferences.one(caller.workspace, group, request_id, as_of))

    @routes.get("/inferences/{request_id}/revealed")
    async def revealed(group: str, request_id: UUID, caller: Auditor, as_of: Moment = LAST) -> InferenceView:
        """The same with what field rules have encrypted opened; who asked for it is logged."""
        found = await inferences.one(caller.workspace, group, request_id, as_of, reveal=True)
        log.warning(
            "an encrypted row was revealed",
            extra={"group": group, "request_id": str(request_id), "who": caller.actor.id},
        )
        return InferenceView.whole(found)

    @routes.get("/inferences/{request_id}/feedback")
    async def words(
        group: str,
        request_id: UUID,
        caller: Reader,
        as_of: Moment = LAST,
        max_results: Annotated[int, Query(ge=1, le=500)] = 100,
        page_token: Annotated[str | None, Query(max_length=500)] = None,
    ) -> Page[SaidView]:
        """Every word about a request, latest first, also before its row is there; corrections stand beside what they
        correct, and `counts` tells which word counts."""
        token = PageToken("feedback", caller.workspace, group, request_id, as_of)
        before = token.read(page_token)
        bound = (datetime.fromisoformat(str(before[0])), UUID(str(before[1]))) if before else (LAST, LAST_ID)
        found = await inferences.words(caller.workspace, group, request_id, as_of, bound, max_results + 1)
        items = [SaidView.of(row) for row in found[:max_results]]
        more = len(found) > max_results
        return Page(
            items=items,
            next_page_token=token.make([items[-1].received_at.isoformat(), items[-1].id]) if more else None,
        )

    @routes.get("/inferences/{request_id}/why")
    async def why(group: str, request_id: UUID, caller: Reader) -> WhyView:
        """Why the request went to the version that answered it."""
        return WhyView.of(await inferences.why(caller.workspace, group, request_id))

    @routes.post("/feedback", status_code=202)
    async def give(
        group: str,
        body: RemarkBody | Annotated[list[RemarkBody], Field(min_length=1, max_length=MOST_REMARKS)],
        caller: Labeller,
    ) -> TakenView:
        """One word or up to 10,000, all or none; the latest word on a metric counts."""
        remarks = body if isinstance(body, list) else [body]
        said = [Remark(one.request_id, one.metric, one.value) for one in remarks]
        taken = await feedback.give(caller.workspace, caller.actor, group, said)
        return TakenView(received=taken.received, unmatched=taken.unmatched)

    return routes
