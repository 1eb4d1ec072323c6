"""What other services said, kept as lineage and beside the version that it is about."""

from __future__ import annotations

from datetime import datetime

from services.registry.domain import lineage
from services.registry.domain.lineage import Arms, Edge, Finding
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Transaction
from shared.events.deployer import DeployCompleted, DeployFailed, DeployWithdrawn
from shared.events.envelope import Received
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import ApprovalDecided, ClassificationChanged, DatasetApproved, GateDecided, WaiverSigned
from shared.events.prompts import PromptPublished
from shared.events.router import GroupChanged, GroupPromoted, GroupRolledBack
from shared.events.upstream import RunCompleted


class Following:
    """One method an event; each is an upsert, so that the order of topics does not matter."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def run_completed(self, tx: Transaction, received: Received[RunCompleted]) -> None:
        await self._store.graph.link(tx, lineage.of_run(received.event), received.event.ended_at, received.id)

    async def evaluated(self, tx: Transaction, received: Received[EvalCompleted]) -> None:
        await self._keep(tx, received.id, *lineage.of_evaluation(received.event))

    async def evaluation_failed(self, tx: Transaction, received: Received[EvalFailed]) -> None:
        await self._keep(tx, received.id, *lineage.of_failed_evaluation(received.event, self._said_at(received)))

    async def gated(self, tx: Transaction, received: Received[GateDecided]) -> None:
        await self._keep(tx, received.id, *lineage.of_gate(received.event))

    async def approved(self, tx: Transaction, received: Received[ApprovalDecided]) -> None:
        await self._keep(tx, received.id, *lineage.of_approval(received.event))

    async def dataset_approved(self, tx: Transaction, received: Received[DatasetApproved]) -> None:
        await self._keep(tx, received.id, *lineage.of_dataset_approval(received.event))

    async def waived(self, tx: Transaction, received: Received[WaiverSigned]) -> None:
        await self._keep(tx, received.id, *lineage.of_waiver(received.event, self._said_at(received)))

    async def classified(self, tx: Transaction, received: Received[ClassificationChanged]) -> None:
        await self._keep(tx, received.id, *lineage.of_classification(received.event, self._said_at(received)))

    async def deployed(self, tx: Transaction, received: Received[DeployCompleted]) -> None:
        await self._keep(tx, received.id, *lineage.of_deployment(received.event))

    async def deployment_failed(self, tx: Transaction, received: Received[DeployFailed]) -> None:
        event = received.event
        if event.asset is not None:
            found = lineage.of_failed_deployment(event, event.asset, self._said_at(received))
            await self._keep(tx, received.id, *found)

    async def deployment_withdrawn(self, tx: Transaction, received: Received[DeployWithdrawn]) -> None:
        await self._keep(tx, received.id, *lineage.of_withdrawn_deployment(received.event))

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

    async def _regroup(
        self, tx: Transaction, event_id: str, group: str, revision: int, before: Arms, arms: Arms, at: datetime
    ) -> None:
        serving = {arm.asset for arm in arms}
        gone = [arm for arm in before if arm.asset not in serving]
        await self._store.graph.unlink(tx, (lineage.in_group(group, arm) for arm in gone), at)
        await self._store.graph.link(tx, (lineage.in_group(group, arm) for arm in arms), at, event_id)
        for arm in (*gone, *arms):
            finding = lineage.of_arm(group, revision, arm, at, serves=arm.asset in serving)
            await self._store.graph.put(tx, finding)
        await self._store.graph.put_group(tx, group, revision, arms)

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
