"""Policy: evaluations become gates, gates are decided on by HTTP, and the ledger has every event once and verifies."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

from shared.events.base import Actor, Artefact, AssetRef, Interval
from shared.events.evaluator import EvalCompleted
from shared.events.policy import ApprovalDecided, GateDecided
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import DatasetFile, DatasetVersion, Manifest
from shared.ids import sha256
from tests.faults.stories.base import AT, INBOX, NAMES, RELAY, Story, once_each

DATASET = AssetRef(urn="mm:dataset/census", version=1, digest=sha256(b"census"))
BEA = Actor(id="user:bea", proven=True)
NOT_YET = ("not-evaluated", "unknown-version")


class PolicyStory(Story):
    service = "policy"
    points = (*INBOX, "inbox.parked", *RELAY, "parking.handled", "http.committed", "worker.between")

    async def prepare(self) -> None:
        self.evaluated: list[UUID] = []
        self.approved: list[AssetRef] = []
        file = DatasetFile(path="golden.parquet", digest=sha256(b"file"), size=1, rows=1000, split="golden")
        manifest = Manifest(files=(file,), label="employed", source="census", licence="public domain")
        await self.publish(DatasetRegistered(asset=DATASET, manifest=manifest, author=BEA, registered_at=AT))

    async def step(self, number: int) -> None:
        """A version with its evaluation, which comes too early every third time; every other one is approved."""
        name = f"model-{number % NAMES}"
        asset = AssetRef(urn=f"mm:model/{name}", version=number // NAMES + 1, digest=sha256(b"%d" % number))
        golden = DatasetVersion(urn=DATASET.urn, version=1, digest=DATASET.digest)
        registered = AssetRegistered(
            asset=asset,
            submission_id=uuid4(),
            kind="model",
            task="classification",
            artefact=Artefact(digest=sha256(b"model"), format="lightgbm"),
            golden_set=golden,
            author=BEA,
            registered_at=AT,
        )
        good = Interval(value=0.88, low=0.87, high=0.89, n=1000, method="DeLong")
        one = good.model_copy(update={"value": 1, "low": 1, "high": 1})
        evaluation = EvalCompleted(
            evaluation_id=uuid4(),
            asset=asset,
            golden_set=golden,
            template="tabular-classification",
            measures={"coverage": one, "roc_auc": good, "latency_ms.p99": one},
            report=sha256(b"report"),
            rows=1000,
            started_at=AT,
            ended_at=datetime.now(UTC),
        )
        self.evaluated.append(evaluation.evaluation_id)
        for event in (evaluation, registered) if number % 3 == 0 else (registered, evaluation):
            await self.publish(event)
        if number % 2 == 0:
            self.approved.append(asset)
            wish = {
                "asset": {"urn": asset.urn, "version": asset.version},
                "decision": "approved",
                "reason": "figures reviewed",
            }
            self.world.beside(self.world.post("/policy/v1/approvals", wish, until=NOT_YET))

    async def complaints(self) -> list[str]:
        tape = self.world.tape
        found = once_each("gate.decided", self.evaluated, (e.evaluation_id for e in tape.once(GateDecided)))
        gates = await self.world.rows("SELECT evaluation_id FROM gate")
        found += once_each("gate", self.evaluated, (row["evaluation_id"] for row in gates))
        found += once_each("approval.decided", self.approved, map(_name, tape.once(ApprovalDecided)))
        approvals = await self.world.rows("SELECT urn, version FROM approval")
        found += once_each("approval", self.approved, (f"{row['urn']}@{row['version']}" for row in approvals))
        return found + await self.ledger()

    async def ledger(self) -> list[str]:
        """It verifies, and holds every event that is on Kafka once."""
        said = {
            (one.envelope.source, one.envelope.id)
            for one in self.world.tape.said
            if one.envelope is not None and not one.topic.endswith(".dlq")
        }
        verdict = await self.world.get("/policy/v1/ledger/verify")
        found = [] if verdict["holds"] else [f"the ledger does not verify: {verdict}"]
        entries = await self.world.rows("SELECT source, event_id FROM ledger")
        found += once_each("ledger", said, ((row["source"], row["event_id"]) for row in entries))
        return found


def _name(event: ApprovalDecided) -> str:
    return str(event.asset)
