"""What other services say about prompts, kept as read models."""

from __future__ import annotations

from services.prompts.store import Evidence, Store
from shared.clock import Clock
from shared.db.database import Transaction
from shared.events.envelope import Received
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import ApprovalDecided, GateDecided, PolicyPublished, WaiverSigned
from shared.events.registry import AssetRefused, AssetRegistered
from shared.events.router import GroupMeasured

PROMPT = "mm:prompt/"
PROTECTION = "protection"


class Following:
    """One method an event; each keeps the newest word, so that the order of topics does not matter."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def registered(self, tx: Transaction, received: Received[AssetRegistered]) -> None:
        """A prompt of ours is an asset now; and what closes over prompts is evidence of them once it has traffic."""
        event = received.event
        if event.prompts:
            await self._store.live.close_over(tx, event.asset, event.prompts)
        if event.kind == "prompt":
            found = (event.asset.version, event.asset.digest)
            await self._store.versions.decide(tx, event.submission_id, registered=found)

    async def refused(self, tx: Transaction, received: Received[AssetRefused]) -> None:
        """A submission was refused; if it was ours, its version says so."""
        event = received.event
        if event.submission_id is not None:
            await self._store.versions.decide(tx, event.submission_id, refused=(event.code, event.reason))

    async def policy(self, tx: Transaction, received: Received[PolicyPublished]) -> None:
        """Which labels of the workspace are protected from now on; what pointed somewhere before stays there."""
        event = received.event
        if event.policy == PROTECTION:
            labels = event.document.get("labels", [])
            wanted = sorted({str(label) for label in labels}) if isinstance(labels, list) else []
            await self._store.standings.protect(tx, event.number, wanted)

    async def gated(self, tx: Transaction, received: Received[GateDecided]) -> None:
        if received.event.asset.urn.startswith(PROMPT):
            await self._store.standings.gated(tx, received.event)

    async def approved(self, tx: Transaction, received: Received[ApprovalDecided]) -> None:
        if received.event.asset.urn.startswith(PROMPT):
            await self._store.standings.approved(tx, received.event)

    async def waived(self, tx: Transaction, received: Received[WaiverSigned]) -> None:
        if received.event.asset.urn.startswith(PROMPT):
            await self._store.standings.waived(tx, received.event)

    async def evaluated(self, tx: Transaction, received: Received[EvalCompleted]) -> None:
        """What was measured of a prompt: its evidence."""
        event = received.event
        if not event.asset.urn.startswith(PROMPT):
            return
        measures = {name: measure.model_dump(mode="json") for name, measure in event.measures.items()}
        golden = f"{event.golden_set.urn}@{event.golden_set.version}"
        evidence = Evidence(
            event.evaluation_id, event.asset.name, event.asset.version, event.asset.digest, event.template,
            event.model, golden, measures, event.rows, event.errors, event.report, None, None, event.ended_at,
        )  # fmt: skip
        await self._store.evidence.keep(tx, evidence)

    async def evaluation_failed(self, tx: Transaction, received: Received[EvalFailed]) -> None:
        """No score; kept so that who waits for it hears why there is none."""
        event = received.event
        if not event.asset.urn.startswith(PROMPT):
            return
        at = received.envelope.time or self._clock()
        evidence = Evidence(
            event.evaluation_id, event.asset.name, event.asset.version, event.asset.digest, None, None, None, {},
            0, 0, None, event.code, event.reason, at,
        )  # fmt: skip
        await self._store.evidence.keep(tx, evidence)

    async def group_measured(self, tx: Transaction, received: Received[GroupMeasured]) -> None:
        """What versions did in traffic: live evidence of the prompts that they close over, now or once that is heard.

        All of them are kept, since what closes over what comes on another topic.
        """
        event = received.event
        for figures in event.figures:
            await self._store.live.keep(tx, event.group, event.since, event.until, figures)
