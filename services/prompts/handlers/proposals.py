"""Proposals, for prompts what branches are for code: a candidate is made, measured, approved by another, merged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from services.prompts.domain.comparing import compared
from services.prompts.domain.content import LATEST, Content
from services.prompts.errors import (
    FourEyes,
    LabelReserved,
    NotApproved,
    NotRegistered,
    PromptNotFound,
    ProposalEnded,
    StaleBase,
)
from services.prompts.handlers.labels import Labels
from services.prompts.handlers.publishing import Publishing
from services.prompts.store import (
    Comparison,
    Evidence,
    LabelMove,
    Prompt,
    PromptVersion,
    Proposal,
    Step,
    Store,
    reading,
)
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.events.base import AssetRef
from shared.events.upstream import DatasetVersion, EvalRequested
from shared.identity.principal import Principal
from shared.ids import new_id

MOST = 500


@dataclass(frozen=True, slots=True)
class Shown:
    """A proposal with what happened to it. `is_stale`: the label moved since the candidate was made."""

    proposal: Proposal
    title: str
    steps: list[Step]
    is_stale: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison; an evaluation is None while it has not come."""

    comparison: Comparison
    head: Evidence | None
    base: Evidence | None
    measures: dict[str, dict[str, Any]]


class Proposals:
    """A candidate is a version like any other, so registry, evaluator and policy know it before it is merged."""

    def __init__(self, database: Database, store: Store, publishing: Publishing, labels: Labels, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._publishing = publishing
        self._labels = labels
        self._clock = clock

    async def open(self, caller: Principal, given: str, label: str, written: Content, summary: str) -> Shown:
        """A candidate for a label, based on what it points at. Raises as publishing does."""
        if label == LATEST:
            raise LabelReserved()
        prepared = await self._publishing.prepare(caller, given, written)
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.hold(tx, given)
            proposal_id, now = new_id(), self._clock()
            head = await self._publishing.add(tx, caller, prompt, prepared, summary, proposal_id)
            base = await self._points_at(tx, prompt.name, label)
            proposal = Proposal(
                proposal_id, prompt.name, label, summary, base, head.version, [caller.id], "open", None, None, now
            )
            await self._store.proposals.open(tx, proposal)
            await self._step(tx, caller, proposal, "opened", summary)
            return await self._shown(tx, proposal)

    async def revise(self, caller: Principal, proposal_id: UUID, written: Content, reason: str) -> Shown:
        """Another candidate, based on what the label points at now; approvals were of the one before."""
        prompt = await self._prompt_of(caller, proposal_id)
        prepared = await self._publishing.prepare(caller, prompt.title, written)
        async with self._holding(caller, proposal_id) as (tx, held, proposal):
            head = await self._publishing.add(tx, caller, held, prepared, reason, proposal_id)
            base = await self._points_at(tx, held.name, proposal.label)
            await self._store.proposals.revise(tx, proposal_id, base, head.version, caller.id)
            changed = replace(proposal, head_version=head.version)
            await self._step(tx, caller, changed, "revised", reason)
            return await self._again(tx, proposal_id)

    async def evaluate(
        self, caller: Principal, proposal_id: UUID, golden: DatasetVersion, task: str, model: str | None = None
    ) -> tuple[Shown, Comparison]:
        """Ask for both versions to be measured on the same rows, answered by the same model. Raises NotRegistered."""
        async with self._holding(caller, proposal_id) as (tx, prompt, proposal):
            head = await self._asset(tx, prompt, proposal.head_version)
            base = await self._asset(tx, prompt, proposal.base_version) if proposal.base_version else None
            asked = Comparison(
                proposal.head_version, new_id(), proposal.base_version, new_id() if base else None,
                f"{golden.urn}@{golden.version}", task, caller.id, self._clock(),
            )  # fmt: skip
            await self._store.proposals.compare(tx, proposal_id, asked)
            for request_id, asset in ((asked.head_request, head), (asked.base_request, base)):
                if request_id is not None and asset is not None:
                    tx.emit(
                        EvalRequested(request_id=request_id, asset=asset, golden_set=golden, template=task, model=model)
                    )
            await self._step(tx, caller, proposal, "evaluation requested", asked.golden_set)
            return await self._again(tx, proposal_id), asked

    async def comparisons(self, caller: Principal, proposal_id: UUID) -> list[Compared]:
        """What was asked for and what came of it, newest first."""
        async with self._database.begin(caller.workspace) as tx:
            await self._one(tx, proposal_id)
            asked = await self._store.proposals.comparisons(tx, proposal_id)
            ids = [one for pair in asked for one in (pair.head_request, pair.base_request) if one is not None]
            found = await self._store.evidence.by_ids(tx, ids)
        return [_compared(one, found) for one in asked]

    async def decide(
        self, caller: Principal, proposal_id: UUID, decision: str, digest: str | None, reason: str
    ) -> Shown:
        """Approve or reject the newest candidate. Raises FourEyes, and StaleBase where another was looked at."""
        async with self._holding(caller, proposal_id) as (tx, prompt, proposal):
            if caller.id in proposal.authors:
                raise FourEyes(f"{caller.id} wrote a part of this; let somebody else decide")
            head = await self._version(tx, prompt, proposal.head_version)
            if digest not in (None, head.digest):
                raise StaleBase(f"the newest candidate is version {head.version} with {head.digest}, not {digest}")
            await self._store.proposals.decide(tx, proposal_id, decision, caller.id)
            await self._step(tx, caller, proposal, decision, reason)
            return await self._again(tx, proposal_id)

    async def merge(self, caller: Principal, proposal_id: UUID, reason: str) -> tuple[Shown, LabelMove]:
        """The label moves to the candidate, which is a version like any other from now on.

        Raises NotApproved, StaleBase when the label moved since, and LabelProtected where policy did not let it.
        """
        async with self._holding(caller, proposal_id) as (tx, prompt, proposal):
            if proposal.decision != "approved":
                by = f"{proposal.decided_by} rejected it" if proposal.decision else "nobody approved it"
                raise NotApproved(f"version {proposal.head_version} cannot be merged: {by}")
            points_at = await self._points_at(tx, prompt.name, proposal.label)
            if points_at != proposal.base_version:
                raise StaleBase(
                    f"label {proposal.label!r} points at version {points_at} now, but the proposal was made from "
                    f"{proposal.base_version}; revise it, so that it is decided on what is there",
                    base=proposal.base_version,
                    now=points_at,
                )
            head = await self._version(tx, prompt, proposal.head_version)
            moved = await self._labels.point(tx, caller, prompt, proposal.label, head, reason)
            await self._store.proposals.end(tx, proposal_id, "merged", self._clock())
            await self._step(tx, caller, proposal, "merged", reason)
            return await self._again(tx, proposal_id), moved

    async def close(self, caller: Principal, proposal_id: UUID, reason: str) -> Shown:
        """It will not be merged; its candidates stay versions that nobody's `latest` points at."""
        async with self._holding(caller, proposal_id) as (tx, _, proposal):
            await self._store.proposals.end(tx, proposal_id, "closed", None)
            await self._step(tx, caller, proposal, "closed", reason)
            return await self._again(tx, proposal_id)

    async def one(self, caller: Principal, proposal_id: UUID) -> Shown:
        async with self._database.begin(caller.workspace) as tx:
            return await self._again(tx, proposal_id)

    async def of(self, caller: Principal, given: str, state: str | None) -> list[Shown]:
        """Proposals of a prompt, newest first."""
        async with self._database.begin(caller.workspace) as tx:
            prompt = await self._store.versions.find(tx, given)
            if prompt is None:
                raise PromptNotFound(f"there is no prompt {given!r}")
            found = await self._store.proposals.of(tx, prompt.name, state, MOST)
            return [await self._shown(tx, proposal) for proposal in found]

    # Inside of a transaction

    @asynccontextmanager
    async def _holding(
        self, caller: Principal, proposal_id: UUID
    ) -> AsyncIterator[tuple[Transaction, Prompt, Proposal]]:
        """The prompt first, as everything else that holds one does; then the proposal, which must be open."""
        prompt = await self._prompt_of(caller, proposal_id)
        async with self._database.begin(caller.workspace) as tx:
            held = await self._store.versions.hold(tx, prompt.title)
            proposal = await self._one(tx, proposal_id)
            if proposal.state != "open":
                raise ProposalEnded(f"the proposal is {proposal.state}")
            yield tx, held, proposal

    async def _prompt_of(self, caller: Principal, proposal_id: UUID) -> Prompt:
        async with reading(self._database, caller.workspace) as tx:
            proposal = await self._one(tx, proposal_id, lock=False)
            prompt = await self._store.versions.find(tx, proposal.name)
        assert prompt is not None
        return prompt

    async def _one(self, tx: Transaction, proposal_id: UUID, *, lock: bool = True) -> Proposal:
        found = await self._store.proposals.one(tx, proposal_id, lock=lock)
        if found is None:
            raise PromptNotFound(f"there is no proposal {proposal_id}")
        return found

    async def _again(self, tx: Transaction, proposal_id: UUID) -> Shown:
        return await self._shown(tx, await self._one(tx, proposal_id))

    async def _shown(self, tx: Transaction, proposal: Proposal) -> Shown:
        prompt = await self._store.versions.find(tx, proposal.name)
        steps = await self._store.proposals.steps(tx, proposal.proposal_id)
        points_at = await self._points_at(tx, proposal.name, proposal.label)
        is_stale = proposal.state == "open" and points_at != proposal.base_version
        return Shown(proposal, prompt.title if prompt else proposal.name, steps, is_stale)

    async def _points_at(self, tx: Transaction, name: str, label: str) -> int | None:
        move = await self._store.labels.one(tx, name, label)
        return move.after if move else None

    async def _version(self, tx: Transaction, prompt: Prompt, number: int) -> PromptVersion:
        found = await self._store.versions.one(tx, prompt.name, number)
        assert found is not None
        return found

    async def _asset(self, tx: Transaction, prompt: Prompt, number: int) -> AssetRef:
        version = await self._version(tx, prompt, number)
        if version.asset_version is None or version.asset_digest is None:
            raise NotRegistered(
                f"version {number} is {version.state}" + (f": {version.reason}" if version.reason else "; ask again")
            )
        return AssetRef(urn=f"mm:prompt/{prompt.name}", version=version.asset_version, digest=version.asset_digest)

    async def _step(self, tx: Transaction, caller: Principal, proposal: Proposal, what: str, reason: str) -> None:
        step = Step(what, proposal.head_version, caller.id, reason, self._clock())
        await self._store.proposals.add_step(tx, proposal.proposal_id, step)


def _compared(asked: Comparison, found: dict[UUID, Evidence]) -> Compared:
    head = found.get(asked.head_request)
    base = found.get(asked.base_request) if asked.base_request else None
    measures = compared(head.measures, base.measures) if head and base else {}
    return Compared(asked, head, base, measures)
