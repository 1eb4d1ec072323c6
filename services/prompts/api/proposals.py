"""Proposals: open, revise, evaluate against what is in place, decide, merge."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from services.prompts.api.evidence import EvidenceView
from services.prompts.api.labels import MoveView, Why
from services.prompts.api.parts import PROMPT, Given, Label, Mover, Publisher, Reader
from services.prompts.domain.content import Content
from services.prompts.handlers import Handlers
from services.prompts.handlers.proposals import Compared, Shown
from services.prompts.store import Evidence
from shared.events.base import Digest
from shared.events.upstream import Answering, DatasetVersion
from shared.http import require
from shared.identity import Principal

Approver = Annotated[Principal, require("approve", "prompt")]
Evaluating = Annotated[Principal, require("evaluate", "prompt")]
PROPOSAL = "/proposals/{proposal_id}"


class NewProposal(Content):
    """The content of a candidate, the label that it is to take, and what it is about."""

    label: Label = "production"
    summary: str = Field(min_length=1, max_length=2000)


class NewRevision(Content):
    """Another candidate, and why."""

    reason: str = Field(default="", max_length=2000)


class EvaluateBody(BaseModel):
    """The rows to measure on, and the template of the evaluator that measures.

    `model` is the group of the gateway that answers; without one the evaluator's own.
    """

    model_config = ConfigDict(extra="forbid")

    golden_set: DatasetVersion
    task: str = Field(min_length=1, max_length=60)
    model: Answering | None = None


class DecisionBody(BaseModel):
    """What you think of the candidate; `digest`, when given, must be the one that you looked at."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["approved", "rejected"]
    reason: str = Field(min_length=1, max_length=2000)
    digest: Digest | None = None


class StepView(BaseModel):
    what: str
    version: int | None
    actor: str
    reason: str
    at: datetime


class ProposalView(BaseModel):
    """`is_stale`: the label moved since the candidate was made, so it must be revised before it can be merged."""

    proposal_id: UUID
    name: str
    title: str
    label: str
    summary: str
    base_version: int | None
    head_version: int
    authors: list[str]
    state: str
    decision: str | None
    decided_by: str | None
    opened_at: datetime
    merged_at: datetime | None
    is_stale: bool
    steps: list[StepView]

    @classmethod
    def of(cls, shown: Shown) -> ProposalView:
        steps = [StepView(**{name: getattr(step, name) for name in StepView.model_fields}) for step in shown.steps]
        fields = {name: getattr(shown.proposal, name) for name in shown.proposal.__slots__}
        return cls(**fields, title=shown.title, is_stale=shown.is_stale, steps=steps)


class ComparisonView(BaseModel):
    """Both evaluations, `null` while they have not come, and by measure what they say of each other."""

    head_version: int
    base_version: int | None
    golden_set: str
    task: str
    actor: str
    at: datetime
    status: str
    head: EvidenceView | None
    base: EvidenceView | None
    measures: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, one: Compared) -> ComparisonView:
        asked = one.comparison
        waiting = one.head is None or (asked.base_request is not None and one.base is None)
        failed = any(found is not None and found.code is not None for found in (one.head, one.base))
        return cls(
            **{name: getattr(asked, name) for name in ("head_version", "base_version", "golden_set", "task", "actor")},
            at=asked.at,
            status="failed" if failed else "waiting" if waiting else "measured",
            head=_evidence(one.head),
            base=_evidence(one.base),
            measures=one.measures,
        )


class MergedView(BaseModel):
    proposal: ProposalView
    moved: MoveView


def _evidence(found: Evidence | None) -> EvidenceView | None:
    if found is None:
        return None
    return EvidenceView(**{field: getattr(found, field) for field in EvidenceView.model_fields})


def _content(body: Content) -> Content:
    return Content(**{field: getattr(body, field) for field in Content.model_fields})


def add(routes: APIRouter, handlers: Handlers) -> None:
    proposals = handlers.proposals

    @routes.post(PROMPT + "/proposals", status_code=201)
    async def propose(name: Given, body: NewProposal, caller: Publisher) -> ProposalView:
        """Propose what a label should point at. The candidate is a version; `latest` passes it by until the merge."""
        return ProposalView.of(await proposals.open(caller, name, body.label, _content(body), body.summary))

    @routes.get(PROMPT + "/proposals")
    async def listed(
        name: Given, caller: Reader, state: Literal["open", "merged", "closed"] | None = None
    ) -> list[ProposalView]:
        """Proposals of a prompt, newest first."""
        return [ProposalView.of(one) for one in await proposals.of(caller, name, state)]

    @routes.get(PROPOSAL)
    async def one(proposal_id: UUID, caller: Reader) -> ProposalView:
        """A proposal with everything that happened to it."""
        return ProposalView.of(await proposals.one(caller, proposal_id))

    @routes.post(PROPOSAL + "/revisions", status_code=201)
    async def revise(proposal_id: UUID, body: NewRevision, caller: Publisher) -> ProposalView:
        """Another candidate, based on what the label points at now; it starts without a decision."""
        return ProposalView.of(await proposals.revise(caller, proposal_id, _content(body), body.reason))

    @routes.post(PROPOSAL + "/evaluate", status_code=202)
    async def evaluate(proposal_id: UUID, body: EvaluateBody, caller: Evaluating) -> ProposalView:
        """Ask the evaluator to measure the candidate and what it would replace on the same rows."""
        shown, _ = await proposals.evaluate(caller, proposal_id, body.golden_set, body.task, body.model)
        return ProposalView.of(shown)

    @routes.get(PROPOSAL + "/comparisons")
    async def comparisons(proposal_id: UUID, caller: Reader) -> list[ComparisonView]:
        """What came of it, newest first."""
        return [ComparisonView.of(one) for one in await proposals.comparisons(caller, proposal_id)]

    @routes.post(PROPOSAL + "/decisions", status_code=201)
    async def decide(proposal_id: UUID, body: DecisionBody, caller: Approver) -> ProposalView:
        """Approve or reject; whoever wrote a candidate of it does neither."""
        shown = await proposals.decide(caller, proposal_id, body.decision, body.digest, body.reason)
        return ProposalView.of(shown)

    @routes.post(PROPOSAL + "/merge")
    async def merge(proposal_id: UUID, why: Why, caller: Mover) -> MergedView:
        """Move the label to the approved candidate, if it still points where it did."""
        shown, moved = await proposals.merge(caller, proposal_id, why.reason)
        return MergedView(proposal=ProposalView.of(shown), moved=MoveView.of(moved))

    @routes.post(PROPOSAL + "/close")
    async def close(proposal_id: UUID, why: Why, caller: Publisher) -> ProposalView:
        """Give it up."""
        return ProposalView.of(await proposals.close(caller, proposal_id, why.reason))
