"""Measures what waits: plans evaluations, scores shards in processes of their own, finishes reports.

All progress is in Postgres. A shard that was claimed and never came back is claimed again when its lease ends; a
finished shard is never scored twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from services.evaluator.domain import SHARD_ROWS, File, Finished, ModelFile, plan
from services.evaluator.errors import EvaluationError, TaskMismatch
from services.evaluator.handlers import Handlers
from services.evaluator.processes import ScoringProcesses
from services.evaluator.settings import Settings
from services.evaluator.store import Asset, ClaimedShard, Dataset, Evaluation
from services.evaluator.templates import Assignment, GoldenSpec, template
from shared import faults
from shared.artefacts import ArtefactStore
from shared.bus.continuing import continuing
from shared.db.database import EVERY_WORKSPACE
from shared.errors import MintmarkError, Unavailable
from shared.events.base import AssetRef, Interval
from shared.events.upstream import DatasetVersion

log = logging.getLogger(__name__)

LOOK_S = 0.5
GOLDEN_SPLITS = ("golden", "test")


class GoldenSetMissing(EvaluationError):
    """The dataset has neither a golden nor a test split; add the files to its manifest."""

    code = "golden-set-missing"


class DatasetRejected(EvaluationError):
    """The golden set was rejected, so nothing is measured on it."""

    code = "dataset-rejected"


class ModelCrashed(EvaluationError):
    """The model made the scoring process die each time it was tried."""

    code = "model-crashed"


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything that an evaluation is about."""

    asset: Asset
    dataset: Dataset

    @property
    def refs(self) -> tuple[AssetRef, DatasetVersion]:
        ref = self.dataset.ref
        return self.asset.ref, DatasetVersion(urn=ref.urn, version=ref.version, digest=ref.digest)

    def assignment(self, evaluation: Evaluation, rows: int) -> Assignment:
        manifest = self.dataset.manifest
        return Assignment(
            model=self.asset.ref.digest,
            golden_set=self.dataset.ref.digest,
            template=evaluation.template,
            spec=GoldenSpec(label=manifest.label or "label", sensitive=manifest.sensitive),
            plan=plan(rows, SHARD_ROWS),
        )


class Evaluations:
    """The evaluator's worker. Any number may run, here and in other processes."""

    name = "evaluations"

    def __init__(self, handlers: Handlers, artefacts: ArtefactStore, settings: Settings) -> None:
        self._handlers = handlers
        self._store = handlers.store
        self._database = handlers.database
        self._artefacts = artefacts
        self._settings = settings
        self._processes = ScoringProcesses(settings.processes)

    async def run(self) -> None:
        """Work until cancelled; then the scoring processes end as well."""
        try:
            await asyncio.gather(*(self._lane() for _ in range(self._settings.processes)))
        finally:
            self._processes.drop()

    async def _lane(self) -> None:
        while True:
            try:
                busy = await self._finish_one() or await self._score_one() or await self._plan_one()
            except Unavailable as error:
                log.warning("evaluations wait", extra={"error": str(error)})
                busy = False
            if busy:
                faults.point("worker.between")
                continue
            self._handlers.waiting.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._handlers.waiting.wait()

    async def _plan_one(self) -> bool:
        lease, approved_only = self._settings.lease_s, self._settings.require_approved_datasets
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            evaluation = await self._store.claim(tx, lease, approved_only)
        if evaluation is None:
            return False
        faults.point("worker.claimed")
        subject = await self._subject(evaluation)
        async with self._at_work("plan evaluation", evaluation):
            try:
                if subject.dataset.decision == "rejected":
                    raise DatasetRejected()
                if evaluation.attempts > self._settings.most_attempts:
                    raise ModelCrashed("the golden set made the scoring process die each time it was read")
                if subject.asset.task and template(evaluation.template).task != subject.asset.task:
                    raise TaskMismatch(f"{evaluation.template} does not measure {subject.asset.task}")
                rows = await self._processes.run("count_rows", await self._files(subject.dataset))
                shards = subject.assignment(evaluation, rows).plan.shards
                async with self._database.begin(evaluation.workspace) as tx:
                    await self._store.plan(tx, evaluation, rows, shards)
            except BrokenProcessPool:
                self._processes.drop()
            except Unavailable:
                raise
            except MintmarkError as error:
                await self._fail(evaluation, subject, error)
        return True

    async def _score_one(self) -> bool:
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            claimed = await self._store.claim_shard(tx, self._settings.lease_s)
        if claimed is None:
            return False
        faults.point("worker.claimed")
        async with self._database.begin(claimed.workspace) as tx:
            evaluation = await self._store.evaluation(tx, claimed.evaluation_id)
        assert evaluation is not None
        subject = await self._subject(evaluation)
        async with self._at_work("score shard", evaluation, claimed):
            try:
                if claimed.attempts > self._settings.most_attempts:
                    raise ModelCrashed()
                result = await self._scored(evaluation, subject, claimed)
                async with self._database.begin(claimed.workspace) as tx:
                    await self._store.keep_shard(tx, claimed, result)
            except BrokenProcessPool:
                log.warning("scoring process died", extra={"evaluation": str(evaluation.id), "tries": claimed.attempts})
                self._processes.drop()
                async with self._database.begin(claimed.workspace) as tx:
                    await self._store.release_shard(tx, claimed)
            except Unavailable:
                raise
            except MintmarkError as error:
                await self._fail(evaluation, subject, error)
        return True

    async def _scored(self, evaluation: Evaluation, subject: Subject, claimed: ClaimedShard) -> bytes:
        artefact = subject.asset.artefact
        if artefact is None:
            raise EvaluationError(f"{subject.asset.ref} has no artefact that could be measured")
        assignment = subject.assignment(evaluation, evaluation.rows or 0)
        features = tuple(tensor.name for tensor in subject.asset.signature.inputs)
        content = await self._artefacts.get(artefact.digest)
        model = ModelFile(content, artefact.format, features, template(evaluation.template).task)
        files = await self._files(subject.dataset)
        result: bytes = await self._processes.run("score", assignment, model, files, claimed.shard)
        return result

    async def _finish_one(self) -> bool:
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            evaluation = await self._store.claim_finish(tx, self._settings.lease_s)
        if evaluation is None:
            return False
        faults.point("worker.claimed")
        subject = await self._subject(evaluation)
        async with self._at_work("finish evaluation", evaluation):
            try:
                async with self._database.begin(evaluation.workspace) as tx:
                    partials = await self._store.results(tx, evaluation)
                assignment = subject.assignment(evaluation, evaluation.rows or 0)
                finished: Finished = await self._processes.run("report", assignment, partials)
                digest = await self._artefacts.put_bytes(finished.report)
                measures = {found["name"]: _interval(found) for found in finished.measures}
                async with self._database.begin(evaluation.workspace) as tx:
                    await self._handlers.completed(tx, evaluation, subject.refs, measures, digest, finished.errors)
            except BrokenProcessPool:
                self._processes.drop()
            except Unavailable:
                raise
            except MintmarkError as error:
                await self._fail(evaluation, subject, error)
        return True

    @asynccontextmanager
    async def _at_work(
        self, name: str, evaluation: Evaluation, claimed: ClaimedShard | None = None
    ) -> AsyncIterator[None]:
        """Go on with the evaluation's story, and renew the lease for as long as that takes."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(self._settings.lease_s / 3)
                with suppress(Unavailable):
                    async with self._database.begin(evaluation.workspace) as tx:
                        await self._store.renew(tx, evaluation, claimed, self._settings.lease_s)

        renewing = asyncio.create_task(renew())
        try:
            with continuing(name, evaluation.story):
                yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _fail(self, evaluation: Evaluation, subject: Subject, error: MintmarkError) -> None:
        async with self._database.begin(evaluation.workspace) as tx:
            await self._handlers.failed(tx, evaluation, subject.asset.ref, error)

    async def _subject(self, evaluation: Evaluation) -> Subject:
        async with self._database.begin(evaluation.workspace) as tx:
            asset = await self._store.asset(tx, evaluation.urn, evaluation.version)
            dataset = await self._store.dataset(tx, evaluation.golden_urn, evaluation.golden_version)
        assert asset is not None and dataset is not None, "an evaluation is made only of what is known"
        return Subject(asset, dataset)

    async def _files(self, dataset: Dataset) -> list[File]:
        for split in GOLDEN_SPLITS:
            files = [file for file in dataset.manifest.files if file.split == split]
            if files:
                return [(await self._artefacts.get(file.digest), file.format) for file in files]
        raise GoldenSetMissing()


def _interval(found: dict[str, object]) -> Interval:
    """A measure as the event carries it."""
    names = ("value", "low", "high", "n", "level", "method", "unit", "higher_is_better")
    return Interval.model_validate({name: found[name] for name in names})
