"""Rows of schema `evaluator` and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.evaluator.domain import Shard
from shared.bus.continuing import story
from shared.db.database import Transaction
from shared.events.base import Artefact, AssetRef, Signature
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import DatasetVersion, Manifest


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset version as the evaluator knows it; `decision` is None until somebody decided."""

    ref: AssetRef
    manifest: Manifest
    decision: str | None


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset version as the evaluator knows it."""

    ref: AssetRef
    kind: str
    task: str | None
    artefact: Artefact | None
    signature: Signature


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation; `story` holds what belongs to its trace, `model` what answers where a prompt is measured."""

    workspace: str
    id: UUID
    urn: str
    version: int
    golden_urn: str
    golden_version: int
    template: str
    model: str | None
    state: str
    rows: int | None
    attempts: int
    report: str | None
    measures: dict[str, Any] | None
    code: str | None
    reason: str | None
    requested_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    story: dict[str, str | None]
    shards: int = 0
    shards_done: int = 0


@dataclass(frozen=True, slots=True)
class Claimed:
    """Work that is ours for a while: the stage that an evaluation is at, with all that it is about.

    To be begun while the evaluation is `waiting`; then its shards one by one, each as `shard`; then to be finished.
    `attempts` counts how often this stage was claimed, this time included.
    """

    evaluation: Evaluation
    asset: Asset
    dataset: Dataset
    shard: Shard | None
    attempts: int

    @property
    def refs(self) -> tuple[AssetRef, DatasetVersion]:
        ref = self.dataset.ref
        return self.asset.ref, DatasetVersion(urn=ref.urn, version=ref.version, digest=ref.digest)


class Store:
    """Reads and writes inside the caller's transaction."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    async def know_dataset(self, tx: Transaction, event: DatasetRegistered) -> None:
        await self._queries.add_dataset(
            tx.connection,
            workspace=tx.workspace,
            urn=event.asset.urn,
            version=event.asset.version,
            digest=event.asset.digest,
            manifest=event.manifest.model_dump(mode="json"),
        )

    async def decide_dataset(self, tx: Transaction, ref: AssetRef, decision: str) -> None:
        await self._queries.decide_dataset(
            tx.connection, workspace=tx.workspace, urn=ref.urn, version=ref.version, decision=decision
        )

    async def dataset(self, tx: Transaction, urn: str, version: int) -> Dataset | None:
        row = await self._queries.dataset(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        if row is None:
            return None
        ref = AssetRef(urn=urn, version=version, digest=row["digest"])
        return Dataset(ref, Manifest.model_validate(row["manifest"]), row["decision"])

    async def know_asset(self, tx: Transaction, event: AssetRegistered) -> bool:
        """Keep an asset version; False when it was known."""
        golden = event.golden_set
        made = await self._queries.add_asset(
            tx.connection,
            workspace=tx.workspace,
            urn=event.asset.urn,
            version=event.asset.version,
            digest=event.asset.digest,
            kind=event.kind,
            task=event.task,
            artefact=event.artefact.model_dump(mode="json") if event.artefact else None,
            signature=event.signature.model_dump(mode="json"),
            golden_urn=golden.urn if golden else None,
            golden_version=golden.version if golden else None,
        )
        return bool(made)

    async def asset(self, tx: Transaction, urn: str, version: int) -> Asset | None:
        row = await self._queries.asset(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return None if row is None else _asset(row)

    async def golden_set_of(self, tx: Transaction, urn: str, version: int) -> tuple[str, int] | None:
        """URN and version of the golden set that an asset version names."""
        row = await self._queries.asset(tx.connection, workspace=tx.workspace, urn=urn, version=version)
        return None if row is None or row["golden_urn"] is None else (row["golden_urn"], row["golden_version"])

    async def ask(
        self,
        tx: Transaction,
        evaluation_id: UUID,
        ref: AssetRef,
        golden: tuple[str, int],
        template: str,
        model: str | None,
        at: datetime,
    ) -> None:
        """Leave an evaluation to the workers; of a prompt where it has a `model`."""
        await self._queries.add_evaluation(
            tx.connection,
            workspace=tx.workspace,
            id=evaluation_id,
            urn=ref.urn,
            version=ref.version,
            golden_urn=golden[0],
            golden_version=golden[1],
            template=template,
            model=model,
            requested_at=at,
            **story(),
        )

    async def claim(self, tx: Transaction, lease_s: float, approved_only: bool, prompts: bool) -> Claimed | None:
        """What is nearest to its end: a report to finish, else a shard, else an evaluation to begin. Of a prompt, or
        of anything else.

        `tx` sees every workspace.
        """
        row, shard = await self._queries.claim_finish(tx.connection, lease_s=lease_s, prompts=prompts), None
        if row is None:
            shard = await self._queries.claim_shard(tx.connection, lease_s=lease_s, prompts=prompts)
            if shard is not None:
                row = await self._queries.evaluation(
                    tx.connection, workspace=shard["workspace"], id=shard["evaluation_id"]
                )
            else:
                row = await self._queries.claim_evaluation(
                    tx.connection, lease_s=lease_s, approved_only=approved_only, prompts=prompts
                )
        if row is None:
            return None
        names = ("workspace", "urn", "version", "golden_urn", "golden_version")
        subject = await self._queries.subject(tx.connection, **{name: row[name] for name in names})
        assert subject is not None, "an evaluation is made only of what is known"
        golden = AssetRef(urn=row["golden_urn"], version=row["golden_version"], digest=subject["golden_digest"])
        return Claimed(
            _evaluation(row),
            _asset(subject),
            Dataset(golden, Manifest.model_validate(subject["manifest"]), subject["decision"]),
            Shard(shard["index"], shard["start"], shard["stop"]) if shard else None,
            (shard or row)["attempts"],
        )

    async def plan(self, tx: Transaction, evaluation: Evaluation, rows: int, shards: Sequence[Shard]) -> None:
        for shard in shards:
            await self._queries.add_shard(
                tx.connection,
                workspace=tx.workspace,
                evaluation_id=evaluation.id,
                index=shard.index,
                start=shard.start,
                stop=shard.stop,
            )
        await self._queries.plan_evaluation(tx.connection, workspace=tx.workspace, id=evaluation.id, rows=rows)

    async def keep_shard(self, tx: Transaction, claimed: Claimed, result: bytes) -> None:
        await self._queries.keep_shard(tx.connection, **_held(claimed), result=result)

    async def renew(self, tx: Transaction, claimed: Claimed, lease_s: float) -> None:
        """Hold what was claimed longer."""
        renew = self._queries.renew_shard if claimed.shard else self._queries.renew_evaluation
        await renew(tx.connection, **_held(claimed), lease_s=lease_s)

    async def release(self, tx: Transaction, claimed: Claimed, *, forgiven: bool) -> None:
        """Let somebody else try at once. What was `forgiven` does not count among the attempts."""
        release = self._queries.release_shard if claimed.shard else self._queries.release_evaluation
        await release(tx.connection, **_held(claimed), forgiven=int(forgiven))

    async def results(self, tx: Transaction, evaluation: Evaluation) -> list[bytes]:
        rows = self._queries.shard_results(tx.connection, workspace=tx.workspace, evaluation_id=evaluation.id)
        return [row["result"] async for row in rows]

    async def end(
        self,
        tx: Transaction,
        evaluation: Evaluation,
        at: datetime,
        *,
        rows: int | None = None,
        report: str | None = None,
        measures: dict[str, Any] | None = None,
        code: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Done with a report, or failed with a code; False when it was ended before."""
        ended = await self._queries.finish_evaluation(
            tx.connection,
            workspace=tx.workspace,
            id=evaluation.id,
            state="done" if report else "failed",
            rows=rows,
            report=report,
            measures=measures,
            code=code,
            reason=reason,
            ended_at=at,
        )
        return bool(ended)

    async def evaluation(self, tx: Transaction, evaluation_id: UUID) -> Evaluation | None:
        row = await self._queries.evaluation(tx.connection, workspace=tx.workspace, id=evaluation_id)
        return None if row is None else _evaluation(row)

    async def evaluations(
        self, tx: Transaction, urn: str | None, version: int | None, after: tuple[datetime, UUID] | None, most: int
    ) -> list[Evaluation]:
        rows = self._queries.evaluations(
            tx.connection,
            workspace=tx.workspace,
            urn=urn,
            version=version,
            after_at=after[0] if after else None,
            after_id=after[1] if after else None,
            most=most,
        )
        return [_evaluation(row) async for row in rows]


def _held(claimed: Claimed) -> dict[str, Any]:
    """The names of a shard, or of an evaluation where no shard was claimed."""
    workspace, evaluation_id = claimed.evaluation.workspace, claimed.evaluation.id
    if claimed.shard is None:
        return {"workspace": workspace, "id": evaluation_id}
    return {"workspace": workspace, "evaluation_id": evaluation_id, "index": claimed.shard.index}


def _asset(row: Any) -> Asset:
    return Asset(
        AssetRef(urn=row["urn"], version=row["version"], digest=row["digest"]),
        row["kind"],
        row["task"],
        Artefact.model_validate(row["artefact"]) if row["artefact"] else None,
        Signature.model_validate(row["signature"]),
    )


def _evaluation(row: Any) -> Evaluation:
    kept = {name: row[name] for name in ("correlation_id", "causation_id", "traceparent")}
    progress = {name: row[name] for name in ("shards", "shards_done") if name in row}
    plain = (
        "workspace", "id", "urn", "version", "golden_urn", "golden_version", "template", "model", "state", "rows",
        "attempts", "report", "measures", "code", "reason", "requested_at", "started_at", "ended_at",
    )  # fmt: skip
    return Evaluation(**{name: row[name] for name in plain}, story=kept, **progress)
