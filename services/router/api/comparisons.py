"""A group's versions side by side over HTTP, once or as a stream that moves with the traffic."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from services.router.comparison.differences import Difference
from services.router.comparison.estimates import METRICS, Metric, metric_of
from services.router.comparison.figures import Figures
from services.router.comparison.ratio import Ratio
from services.router.comparison.verdict import Guard, Held, Objective
from services.router.errors import QuestionRefused, TooManyStreams
from services.router.handlers.comparisons import DEFAULT_GUARDS, Comparison, Comparisons, Judged, Question, Side
from services.router.handlers.groups import ref
from shared.events.base import AssetRef, Moment
from shared.http.callers import require
from shared.http.edge import StrictRoute
from shared.identity.principal import Principal

Reader = Annotated[Principal, require("read", "inference")]
MOST_STREAMS = 200
"""In one process; each costs two small queries a second."""
LOOKS_A_STREAM = 1_800
"""Then it ends, and the client's EventSource connects again: a stream must not outlive a key for long."""
HEARTBEAT_EVERY = 30


class VersionView(Figures):
    """One version's figures. Of every request, shadows apart: n, errors. Of answered ones: latencies in ms, within 1 %,
    tokens, cost in USD, scores. Of labelled ones: accuracy and what follows; auc is within auc_error of the exact."""

    urn: str | None
    version: int | None
    digest: str | None
    role: str

    @classmethod
    def of(cls, side: Side) -> VersionView:
        version = side.version
        named: dict[str, Any] = {"urn": None, "version": None, "digest": None}
        if version is not None:
            named = {"urn": version.urn, "version": version.version, "digest": version.digest}
        return cls(role=side.role, **named, **dict(side.figures))


class DifferenceView(BaseModel):
    """Challenger minus champion with an interval that is valid at every look; of a relative metric the factor minus
    one. No interval before 100 rows of each. `left_out` rows were in revisions too small to compare within."""

    metric: str
    better: Literal["higher", "lower"]
    relative: bool
    value: float
    low: float | None
    high: float | None
    n_champion: int
    n_challenger: int
    left_out: int

    @classmethod
    def of(cls, found: Difference, alpha: float) -> DifferenceView:
        metric = found.metric
        low, high = found.interval(alpha) or (None, None)
        value, low, high = (_shown(metric, number) for number in (found.value, low, high))
        assert value is not None
        return cls(
            metric=metric.name, better=metric.better, relative=metric.relative, value=value, low=low, high=high,
            n_champion=found.n_champion, n_challenger=found.n_challenger, left_out=found.left_out,
        )  # fmt: skip


class GuardView(BaseModel):
    """A metric that may not get worse by `margin` (of a relative one: as a share)."""

    metric: str
    margin: float
    standing: str
    difference: DifferenceView | None

    @classmethod
    def of(cls, held: Held, alpha: float) -> GuardView:
        metric = held.guard.metric
        margin = _shown(metric, held.guard.margin)
        assert margin is not None
        difference = DifferenceView.of(held.difference, alpha) if held.difference else None
        return cls(metric=metric.name, margin=margin, standing=held.standing.value, difference=difference)


class VerdictView(BaseModel):
    """`kind`: better, worse, open or mismatch. `more_rows` would settle it if nothing changes; null when settled, or
    when no number in sight would."""

    asset: AssetRef
    role: str
    kind: str
    sentence: str
    more_rows: int | None
    primary: DifferenceView | None
    guards: list[GuardView]

    @classmethod
    def of(cls, judged: Judged, alpha: float) -> VerdictView:
        verdict = judged.verdict
        return cls(
            asset=ref(judged.version), role=judged.role, kind=verdict.kind.value, sentence=verdict.sentence,
            more_rows=verdict.more_rows,
            primary=DifferenceView.of(verdict.primary, alpha) if verdict.primary else None,
            guards=[GuardView.of(held, alpha) for held in verdict.guards],
        )  # fmt: skip


class RatioView(BaseModel):
    """Chi-square of rows against the weights in force when each was routed; below 0.001 promotion is blocked."""

    p: float | None
    mismatch: bool
    chi_square: float
    degrees: int
    design_effect: float

    @classmethod
    def of(cls, ratio: Ratio) -> RatioView:
        return cls(
            p=ratio.p, mismatch=ratio.is_mismatch, chi_square=ratio.chi_square, degrees=ratio.degrees,
            design_effect=ratio.alike,
        )  # fmt: skip


class ComparisonView(BaseModel):
    """Figures of the span asked for; verdicts of its rows since `first_revision`, where the present champion began."""

    group: str
    revision: int
    first_revision: int
    n: int
    alpha: float
    versions: list[VersionView]
    verdicts: list[VerdictView]
    sample_ratio: RatioView

    @classmethod
    def of(cls, found: Comparison, question: Question) -> ComparisonView:
        alpha = question.objective.alpha if question.objective else 0.05
        return cls(
            group=found.group.name, revision=found.group.revision, first_revision=found.first_revision, n=found.n,
            alpha=alpha, versions=[VersionView.of(side) for side in found.sides],
            verdicts=[VerdictView.of(judged, alpha) for judged in found.judged],
            sample_ratio=RatioView.of(found.ratio),
        )  # fmt: skip


def asked(
    since: Moment | None = None,
    until: Moment | None = None,
    primary: Annotated[str | None, Query(max_length=120)] = None,
    better: Literal["higher", "lower"] | None = None,
    goal: Literal["better", "not-worse"] = "better",
    guard: Annotated[list[str] | None, Query(max_length=20)] = None,
    alpha: Annotated[float, Query(gt=0, le=0.5)] = 0.05,
) -> Question:
    """The question of a query string: `primary=accuracy&guard=error_rate:0.005&guard=latency:0.1&alpha=0.05`.

    Raises QuestionRefused.
    """
    return Question(since, until, _objective(primary, better, goal, guard, alpha))


def _objective(
    primary: str | None,
    better: Literal["higher", "lower"] | None,
    goal: Literal["better", "not-worse"],
    guards: list[str] | None,
    alpha: float,
) -> Objective | None:
    if primary is None and guards is None and alpha == 0.05:
        return None
    metric = metric_of(primary or "accuracy", better)
    if metric is None:
        raise QuestionRefused(f"{str(primary)[:60]!r} is no metric; there are {', '.join(METRICS)} and metric:<name>.")
    watched = DEFAULT_GUARDS if guards is None else tuple(guard_of(one) for one in guards)
    return Objective(metric, watched, alpha, goal)


def guard_of(text: str) -> Guard:
    """`error_rate:0.005`, `metric:complaints:lower:0.01`; a relative metric's margin is a share.

    Raises QuestionRefused.
    """
    name, _, margin = text.rpartition(":")
    better: Literal["higher", "lower"] | None = None
    for direction in ("higher", "lower"):
        if name.endswith(f":{direction}"):
            name, better = name.removesuffix(f":{direction}"), direction
    metric = metric_of(name, better)
    try:
        value = float(margin)
    except ValueError:
        value = math.nan
    if metric is None or not 0 <= value < math.inf:
        raise QuestionRefused(f"{text[:80]!r} is no guard; write metric:margin, for example error_rate:0.005.")
    return Guard(metric, math.log1p(value) if metric.relative else value)


def _shown(metric: Metric, value: float | None) -> float | None:
    if value is None or not metric.relative:
        return value
    return math.expm1(min(value, 700.0))


def router(comparisons: Comparisons) -> APIRouter:
    routes = APIRouter(prefix="/groups/{group}", route_class=StrictRoute, tags=["comparison"])
    open_streams = 0

    @routes.get("/comparison")
    async def comparison(group: str, caller: Reader, question: Annotated[Question, Depends(asked)]) -> ComparisonView:
        """The group's versions side by side, over all time or a span of it, with a verdict on each challenger."""
        return ComparisonView.of(await comparisons.view(caller.workspace, group, question), question)

    @routes.get("/comparison/stream", response_class=StreamingResponse)
    async def stream(group: str, caller: Reader, question: Annotated[Question, Depends(asked)]) -> StreamingResponse:
        """The same as server-sent events: one `comparison` at once, and one within 2 s of whatever changes it."""
        nonlocal open_streams
        if open_streams >= MOST_STREAMS:
            raise TooManyStreams()
        views = comparisons.stream(caller.workspace, group, question)
        first = await anext(views)  # an unknown group is a 404, not a broken stream

        async def events() -> AsyncIterator[str]:
            nonlocal open_streams
            open_streams += 1
            try:
                yield event(first, question)
                for look in range(LOOKS_A_STREAM):
                    found = await anext(views, False)
                    if found is False:
                        return
                    assert not isinstance(found, bool)
                    if found is not None:
                        yield event(found, question)
                    elif look % HEARTBEAT_EVERY == 0:
                        yield ": nothing new\n\n"
            finally:
                open_streams -= 1
                await views.aclose()

        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    return routes


def event(found: Comparison | None, question: Question) -> str:
    """One server-sent event; its id grows with every change of rows or labels."""
    assert found is not None, "a stream begins with a view"
    data = ComparisonView.of(found, question).model_dump_json()
    return f"event: comparison\nid: {found.stamp}\nretry: 1000\ndata: {data}\n\n"
