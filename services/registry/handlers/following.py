"""What other services said, kept as lineage and beside the version that it is about."""

from __future__ import annotations

from datetime import datetime

from services.registry.domain import lineage
from services.registry.domain.lineage import Arms, Edge, Finding
from services.registry.errors import GoldenLocked
from services.registry.search import facts, fields
from services.registry.search.index import Index
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Transaction
from shared.events.base import AssetRef
from shared.events.deployer import DeployCompleted, DeployFailed, DeployWithdrawn
from shared.events.envelope import Received
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import (
    ApprovalDecided,
    ClassificationChanged,
    DatasetApproved,
    GateDecided,
    PolicyPublished,
    WaiverSigned,
)
from shared.events.prompts import PromptPublished
from shared.events.router import GroupChanged, GroupMeasured, GroupPromoted, GroupRolledBack
from shared.events.upstream import RunCompleted


class Following:
    """One method an event; each is an upsert, so that the order of topics does not matter."""

    def __init__(self, store: Store, index: Index, clock: Clock) -> None:
        self._store = store
        self._index = index
        self._clock = clock

    async def run_completed(self, tx: Transaction, received: Received[RunCompleted]) -> None:
        await self._store.graph.link(tx, lineage.of_run(received.event), received.event.ended_at, received.id)
        await self._store.graph.put_run(tx, lineage.run_of(received.event))
        for dataset in received.event.datasets:
            # It has happened, so it stays in the lineage; what the run made is not registered (check_training).
            try:
                await self._store.datasets.refuse_locked(tx, dataset)
            except GoldenLocked as error:
                await self._store.graph.put(tx, lineage.violation(received.event, dataset, error.code, error.message))

    async def evaluated(self, tx: Transaction, received: Received[EvalCompleted]) -> None:
        event = received.event
        await self._keep(tx, received.id, *lineage.of_evaluation(event))
        await self._index.change_version(
            tx, event.asset.urn, event.asset.version,
            numbers={facts.measure_field(name): interval.value for name, interval in event.measures.items()},
        )  # fmt: skip

    async def evaluation_failed(self, tx: Transaction, received: Received[EvalFailed]) -> None:
        await self._keep(tx, received.id, *lineage.of_failed_evaluation(received.event, self._said_at(received)))

    async def gated(self, tx: Transaction, received: Received[GateDecided]) -> None:
        event = received.event
        await self._keep(tx, received.id, *lineage.of_gate(event))
        await self._stands(tx, event.asset, "gate", event.verdict)

    async def approved(self, tx: Transaction, received: Received[ApprovalDecided]) -> None:
        event = received.event
        await self._keep(tx, received.id, *lineage.of_approval(event))
        await self._stands(tx, event.asset, "approval", event.decision)

    async def dataset_approved(self, tx: Transaction, received: Received[DatasetApproved]) -> None:
        await self._keep(tx, received.id, *lineage.of_dataset_approval(received.event))

    async def waived(self, tx: Transaction, received: Received[WaiverSigned]) -> None:
        await self._keep(tx, received.id, *lineage.of_waiver(received.event, self._said_at(received)))

    async def classified(self, tx: Transaction, received: Received[ClassificationChanged]) -> None:
        event = received.event
        await self._keep(tx, received.id, *lineage.of_classification(event, self._said_at(received)))
        gone = [*_others("risk", event.risk), *_others("cost", event.cost)]
        come = [facts.term("risk", event.risk), facts.term("cost", event.cost)]
        await self._index.change_asset(tx, event.urn, gone=gone, come=come)

    async def deployed(self, tx: Transaction, received: Received[DeployCompleted]) -> None:
        await self._keep(tx, received.id, *lineage.of_deployment(received.event))

    async def deployment_failed(self, tx: Transaction, received: Received[DeployFailed]) -> None:
        event = received.event
        if event.asset is not None:
            found = lineage.of_failed_deployment(event, event.asset, self._said_at(received))
            await self._keep(tx, received.id, *found)

    async def deployment_withdrawn(self, tx: Transaction, received: Received[DeployWithdrawn]) -> None:
        await self._keep(tx, received.id, *lineage.of_withdrawn_deployment(received.event))

    async def policy_published(self, tx: Transaction, received: Received[PolicyPublished]) -> None:
        """Which aliases and stages are protected from now on."""
        if received.event.policy == "protection":
            await self._store.pointers.protect(tx, received.event.number, received.event.document)

    async def prompt_published(self, tx: Transaction, received: Received[PromptPublished]) -> None:
        """Names the author of a prompt's submission, which may have come before or is still to come."""
        event = received.event
        await self._store.submissions.one_at_a_time(tx, event.submission_id)
        await self._store.submissions.vouch(tx, event.submission_id, event.name, event.version, event.actor)
        submission = await self._store.submissions.one(tx, event.submission_id, lock=True)
        if submission is None or submission.event.urn != event.key:
            return
        if submission.state == "vouching":
            await self._store.submissions.forward(tx, submission.id, event.actor, self._clock())
        elif submission.version is not None:
            same = Edge(f"prompt:{event.name}@{event.version}", "SameAs", f"{event.key}@{submission.version}")
            await self._store.graph.link(tx, [same], self._clock(), received.id)

    async def group_changed(self, tx: Transaction, received: Received[GroupChanged]) -> None:
        """The whole state of a group at its revision; it is believed before what a promotion lets one guess."""
        event = received.event
        known, before = await self._store.graph.hold_group(tx, event.group)
        if event.revision >= known:
            await self._regroup(tx, received.id, event.group, event.revision, before, event.arms, event.at)

    async def group_promoted(self, tx: Transaction, received: Received[GroupPromoted | GroupRolledBack]) -> None:
        """Promoted or rolled back: another champion."""
        event = received.event
        known, before = await self._store.graph.hold_group(tx, event.group)
        if event.revision > known:
            arms = lineage.with_champion(before, event.after)
            await self._regroup(tx, received.id, event.group, event.revision, before, arms, event.at)

    async def group_measured(self, tx: Transaction, received: Received[GroupMeasured]) -> None:
        """What its versions did in traffic; an older word than what is known changes nothing."""
        for finding in lineage.of_figures(received.event):
            await self._store.graph.put(tx, finding)

    async def _regroup(
        self, tx: Transaction, event_id: str, group: str, revision: int, before: Arms, arms: Arms, at: datetime
    ) -> None:
        serving = {arm.asset for arm in arms}
        gone = [arm for arm in before if arm.asset not in serving]
        # An arm with another role or weight is another interval: what served at a moment is asked of the edges alone.
        await self._store.graph.unlink(tx, (lineage.in_group(group, arm) for arm in before if arm not in arms), at)
        await self._store.graph.link(tx, (lineage.in_group(group, arm) for arm in arms), at, event_id)
        for arm in (*gone, *arms):
            finding = lineage.of_arm(group, revision, arm, at, serves=arm.asset in serving)
            await self._store.graph.put(tx, finding)
            serves, term = arm.asset in serving, [facts.term("group", group)]
            await self._index.change_version(
                tx, arm.asset.urn, arm.asset.version, gone=[] if serves else term, come=term if serves else []
            )
        await self._store.graph.put_group(tx, group, revision, arms)

    async def _stands(self, tx: Transaction, asset: AssetRef, of: str, value: str) -> None:
        """A version is found by the newest word on it."""
        come = [facts.term(of, value)]
        await self._index.change_version(tx, asset.urn, asset.version, gone=_others(of, value), come=come)

    async def _keep(self, tx: Transaction, event_id: str, edges: list[Edge], finding: Finding) -> None:
        await self._store.graph.link(tx, edges, finding.at, event_id)
        await self._store.graph.put(tx, finding)

    def _said_at(
        self,
        received: Received[EvalFailed]
        | Received[WaiverSigned]
        | Received[ClassificationChanged]
        | Received[DeployFailed],
    ) -> datetime:
        """For events that carry no time of their own: when the envelope says that they were said."""
        return received.envelope.time or self._clock()


def _others(of: str, value: str) -> list[str]:
    """The terms of the values that a field has no longer."""
    return [facts.term(of, other) for other in fields.CHOICES[of] if other != value]
