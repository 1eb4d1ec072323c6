"""What the policy stories stand on: versions and datasets that are known, evaluations, and the gate's answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from shared.events.base import Actor, Artefact, AssetRef, Interval
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import GateDecided
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import DatasetFile, DatasetVersion, Manifest
from shared.ids import sha256
from shared.testing.installation import Installation

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
ADA = Actor(id="user:ada", proven=True)
NOBODY = Actor(id="unverified", proven=False)
DATASET = AssetRef(urn="mm:dataset/census", version=1, digest=sha256(b"census"))
ARTEFACT = sha256(b"model")


def version(number: int = 1, name: str = "employment") -> AssetRef:
    return AssetRef(urn=f"mm:model/{name}", version=number, digest=sha256(f"{name} {number}".encode()))


def between(low: float, high: float, n: int = 1000) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high, n=n, method="DeLong")


async def registered(
    installation: Installation, asset: AssetRef, author: Actor = ADA, workspace: str = "default"
) -> None:
    file = DatasetFile(path="golden.parquet", digest=sha256(b"file"), size=1, rows=1000, split="golden")
    manifest = Manifest(files=(file,), label="employed", sensitive=("SEX",), source="census", licence="public domain")
    await installation.publish(
        DatasetRegistered(asset=DATASET, manifest=manifest, author=author, registered_at=NOW), workspace=workspace
    )
    await installation.publish(
        AssetRegistered(
            asset=asset,
            submission_id=uuid4(),
            kind="model",
            task="classification",
            artefact=Artefact(digest=ARTEFACT, format="lightgbm"),
            golden_set=DatasetVersion(urn=DATASET.urn, version=1),
            author=author,
            registered_at=NOW,
        ),
        workspace=workspace,
    )


def evaluated(asset: AssetRef, auc: Interval | None, report: bytes = b"report", **more: Interval) -> EvalCompleted:
    measures = {
        "coverage": between(1, 1),
        "latency_ms.p99": between(1, 3),
        "fairness.SEX.equalized_odds_difference": between(0.05, 0.09),
        **more,
    } | ({"roc_auc": auc} if auc else {})
    return EvalCompleted(
        evaluation_id=uuid4(),
        asset=asset,
        golden_set=DatasetVersion(urn=DATASET.urn, version=1, digest=DATASET.digest),
        template="tabular-classification",
        measures=measures,
        report=sha256(report),
        rows=1000,
        started_at=NOW,
        ended_at=NOW,
    )


async def gated(installation: Installation, evaluation: EvalCompleted | EvalFailed, **more: Any) -> GateDecided:
    """The gate's answer to an evaluation."""
    await installation.publish(evaluation, **more)
    found: GateDecided = await installation.wait_for(
        GateDecided, lambda gate: gate.evaluation_id == evaluation.evaluation_id
    )
    return found


def wish(asset: AssetRef, decision: str = "approved", **more: Any) -> dict[str, Any]:
    body = {"asset": {"urn": asset.urn, "version": asset.version}, "decision": decision, "reason": "figures reviewed"}
    return body | more
