"""What a group answered, and what was said about it, over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.router.api.groups import Body
from services.router.domain import BUCKETS
from services.router.handlers.explaining import ranges_of
from services.router.handlers.feedback import Feedback, Remark
from services.router.handlers.groups import arms, ref
from services.router.handlers.inferences import Inference, Inferences, Why
from services.router.store import Row, Wanted
from shared.errors import Invalid
from shared.events.base import AssetRef, Moment, Urn
from shared.events.router import Arm
from shared.http import Page, PageToken
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Reader = Annotated[Principal, require("read", "inference")]
Labeller = Annotated[Principal, require("feedback", "group")]
FIRST = datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 1, 1, tzinfo=UTC)
LAST_ID = UUID(int=2**128 - 1)
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
    """One request. `asset` is null where the request was refused before a version was chosen; times are in ms."""

    request_id: UUID
    received_at: datetime
    unit: str
    asset: AssetRef | None
    version: int | None
    status: int
    error_code: str | None
    score: float | None
    label: str | None
    latency_ms: float
    upstream_ms: float | None
    trace_id: str
    revision: int

    @classmethod
    def of(cls, row: Row, **more: Any) -> Any:
        asset = AssetRef(urn=row["asset"], version=row["version"], digest=row["digest"]) if row["asset"] else None
        same = ("request_id", "received_at", "unit", "version", "status", "error_code", "score", "latency_ms")
        also = ("upstream_ms", "trace_id", "revision")
        return cls(asset=asset, label=row["prediction"], **{name: row[name] for name in (*same, *also)}, **more)


class SaidView(BaseModel):
    """One word about the request."""

    metric: str
    value: float | None
    label: str | None
    who: str
    received_at: datetime


OF_CONVERSATIONS = (
    "protocol", "requester", "client_request_id", "attempts", "ttft_ms", "input_tokens", "output_tokens",
)  # fmt: skip


class InferenceView(RowView):
    """With input and output as the client's protocol has them; base and the SHAP values add up to raw_score.

    The output of a stream is what was heard of it: the parts of the answer, or a model server's events.
    """

    protocol: str | None
    requester: str | None
    client_request_id: str | None
    attempts: int | None
    ttft_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    input: Any
    output: Any
    shap: Any
    feedback: list[SaidView]

    @classmethod
    def whole(cls, found: Inference) -> InferenceView:
        view: InferenceView = cls.of(
            found.row,
            input=found.row["input"],
            output=found.row["output"],
            shap=found.row["shap"],
            **{name: found.row[name] for name in OF_CONVERSATIONS},
            feedback=[SaidView(**{name: row[name] for name in SaidView.model_fields}) for row in found.feedback],
        )
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
        asset: Urn | None = None,
        version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
        status: Annotated[int | None, Query(ge=100, le=599)] = None,
        unit: Annotated[str | None, Query(max_length=256)] = None,
        max_results: Annotated[int, Query(ge=1, le=500)] = 50,
        page_token: Annotated[str | None, Query(max_length=500)] = None,
    ) -> Page[RowView]:
        """Rows, newest first."""
        if unit is not None and "\x00" in unit:
            raise Invalid("A unit holds no NUL character.")
        token = PageToken("inferences", caller.workspace, group, since, until, asset, version, status, unit)
        before = token.read(page_token)
        bound = (datetime.fromisoformat(str(before[0])), UUID(str(before[1]))) if before else (LAST, LAST_ID)
        wanted = Wanted(since, until, bound, asset, version, status, unit)
        found = await inferences.page(caller.workspace, group, wanted, max_results + 1)
        items = [RowView.of(row) for row in found[:max_results]]
        last = items[-1] if len(found) > max_results else None
        return Page(
            items=items, next_page_token=token.make([last.received_at.isoformat(), last.request_id]) if last else None
        )

    @routes.get("/inferences/{request_id}")
    async def one(group: str, request_id: UUID, caller: Reader) -> InferenceView:
        """One request's whole row, with SHAP values and feedback."""
        return InferenceView.whole(await inferences.one(caller.workspace, group, request_id))

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
