"""Measures what waits: begins evaluations, scores shards in processes of their own, finishes reports.

All progress is in Postgres. What was claimed and never came back is claimed again when its lease ends; a finished shard
is never scored twice. An evaluation of one shard is begun and finished in one go: there is nothing to keep in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from services.evaluator.answers.measuring import LANES, PromptMeasuring
from services.evaluator.domain import SHARD_ROWS, File, Finished, ModelFile, Plan, plan
from services.evaluator.errors import EvaluationError, GatewayUnavailable, RenderTooLarge, TaskMismatch
from services.evaluator.handlers import Handlers
from services.evaluator.processes import ScoringDied, ScoringProcesses
from services.evaluator.settings import Settings
from services.evaluator.store import Claimed, Dataset
from services.evaluator.templates import Assignment, GoldenSpec, template
from shared import faults
from shared.artefacts import ArtefactStore
from shared.bus.continuing import continuing
from shared.db.database import EVERY_WORKSPACE
from shared.errors import Conflict, MintmarkError, Unavailable
from shared.events.base import Interval

log = logging.getLogger(__name__)

LOOK_S = 0.5
GATHER_S = 0.02  # the wake comes just before the event's commit; who looks at once finds nothing
GOLDEN_SPLITS = ("golden", "test")


class GoldenSetMissing(EvaluationError):
    """The dataset has neither a golden nor a test split; add the files to its manifest."""

    code = "golden-set-missing"


class DatasetRejected(EvaluationError):
    """The golden set was rejected, so nothing is measured on it."""

    code = "dataset-rejected"


class ModelCrashed(EvaluationError):
    """The model, or its golden set, made the scoring process die each time it was tried."""

    code = "model-crashed"


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
        self._prompts = PromptMeasuring(self._processes, artefacts, settings)

    async def run(self) -> None:
        """Work until cancelled; then the scoring processes end as well."""
        try:
            async with asyncio.TaskGroup() as lanes:
                # One more than processes: it reads and writes while they score.
                for _ in range(self._settings.processes + 1):
                    lanes.create_task(self._lane(prompts=False))
                for _ in range(LANES):
                    lanes.create_task(self._lane(prompts=True))
        finally:
            self._processes.end()

    async def _lane(self, *, prompts: bool) -> None:
        while True:
            self._handlers.waiting.clear()  # before looking: what is set meanwhile wakes at once
            try:
                busy = await self._work(prompts=prompts)
            except (Unavailable, Conflict) as error:
                log.warning("evaluations wait", extra={"error": str(error)})
                busy = False
            if busy:
                faults.point("worker.between")
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._handlers.waiting.wait()
                    await asyncio.sleep(GATHER_S)

    async def _work(self, *, prompts: bool) -> bool:
        """One stage of one evaluation, of a prompt or of a model; False when there is nothing to do."""
        lease_s, approved_only = self._settings.lease_s, self._settings.require_approved_datasets
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            claimed = await self._store.claim(tx, lease_s, approved_only, prompts)
        if claimed is None:
            return False
        faults.point("worker.claimed")
        async with self._held(claimed):
            if claimed.attempts > self._settings.most_attempts:
                raise RenderTooLarge() if prompts else ModelCrashed()
            if claimed.shard:
                await self._score(claimed)
            elif claimed.evaluation.state == "waiting":
                await self._begin(claimed)
            else:
                await self._finish(claimed)
        return True

    async def _begin(self, claimed: Claimed) -> None:
        evaluation, asset = claimed.evaluation, claimed.asset
        if claimed.dataset.decision == "rejected":
            raise DatasetRejected()
        if evaluation.model is not None:
            await self._plan(claimed, await self._prompts.begin(claimed, await self._files(claimed.dataset)))
            return
        if asset.task and template(evaluation.template).task != asset.task:
            raise TaskMismatch(f"{evaluation.template} does not measure {asset.task}")
        files, model = await self._files(claimed.dataset), await self._model(claimed)
        begun: Finished | int = await self._processes.run("begin", _assignment(claimed, 0), model, files)
        if isinstance(begun, Finished):
            await self._complete(claimed, begun)
            return
        await self._plan(claimed, _assignment(claimed, begun).plan)

    async def _plan(self, claimed: Claimed, made: Plan) -> None:
        async with self._database.begin(claimed.evaluation.workspace) as tx:
            await self._store.plan(tx, claimed.evaluation, made.rows, made.shards)

    async def _score(self, claimed: Claimed) -> None:
        files = await self._files(claimed.dataset)
        result: bytes
        if claimed.evaluation.model is not None:
            result = await self._prompts.score(claimed, files)
        else:
            model, assignment = await self._model(claimed), _assignment(claimed, claimed.evaluation.rows or 0)
            result = await self._processes.run("score", assignment, model, files, claimed.shard)
        async with self._database.begin(claimed.evaluation.workspace) as tx:
            await self._store.keep_shard(tx, claimed, result)

    async def _finish(self, claimed: Claimed) -> None:
        async with self._database.begin(claimed.evaluation.workspace) as tx:
            partials = await self._store.results(tx, claimed.evaluation)
        if claimed.evaluation.model is not None:
            await self._complete(claimed, await self._prompts.finish(claimed, partials))
            return
        assignment = _assignment(claimed, claimed.evaluation.rows or 0)
        await self._complete(claimed, await self._processes.run("report", assignment, partials))

    async def _complete(self, claimed: Claimed, finished: Finished) -> None:
        digest = await self._artefacts.put_bytes(finished.report)
        measures = {found["name"]: _interval(found) for found in finished.measures}
        async with self._database.begin(claimed.evaluation.workspace) as tx:
            await self._handlers.completed(tx, claimed.evaluation, claimed.refs, measures, digest, finished)

    @asynccontextmanager
    async def _held(self, claimed: Claimed) -> AsyncIterator[None]:
        """Go on with the evaluation's story and renew the lease, for as long as that takes.

        What cannot be measured fails the evaluation. What is not its fault is given back, and does not count against
        it: a lost database or store, a service that stops. A scoring process that died counts, and so does a gateway
        that was away: that is tried again after a pause.
        """
        evaluation = claimed.evaluation
        renewing = asyncio.create_task(self._renew(claimed))
        try:
            with continuing(f"evaluate {claimed.evaluation.state}", evaluation.story):
                try:
                    yield
                except ScoringDied as error:
                    log.warning(str(error), extra={"evaluation": str(evaluation.id), "tries": claimed.attempts})
                    await self._release(claimed, forgiven=False)
                except GatewayUnavailable as error:
                    log.warning(str(error), extra={"evaluation": str(evaluation.id), "tries": claimed.attempts})
                    if claimed.attempts >= self._settings.most_attempts:
                        await self._failed(claimed, error)
                    else:
                        await self._pause(claimed)
                except (Unavailable, Conflict, asyncio.CancelledError):
                    with suppress(Unavailable, Conflict):  # then the lease ends by itself
                        await self._release(claimed, forgiven=True)
                    raise
                except MintmarkError as error:
                    await self._failed(claimed, error)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _failed(self, claimed: Claimed, error: MintmarkError) -> None:
        async with self._database.begin(claimed.evaluation.workspace) as tx:
            await self._handlers.failed(tx, claimed.evaluation, claimed.asset.ref, error)

    async def _pause(self, claimed: Claimed) -> None:
        """Nobody claims it for a while: let go at once, it would be claimed at once, before everything else."""
        async with self._database.begin(claimed.evaluation.workspace) as tx:
            await self._store.renew(tx, claimed, self._settings.gateway_pause_s)

    async def _release(self, claimed: Claimed, *, forgiven: bool) -> None:
        async with self._database.begin(claimed.evaluation.workspace) as tx:
            await self._store.release(tx, claimed, forgiven=forgiven)

    async def _renew(self, claimed: Claimed) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            with suppress(Unavailable):
                async with self._database.begin(claimed.evaluation.workspace) as tx:
                    await self._store.renew(tx, claimed, self._settings.lease_s)

    async def _model(self, claimed: Claimed) -> ModelFile:
        asset = claimed.asset
        if asset.artefact is None:
            raise EvaluationError(f"{asset.ref} has no artefact that could be measured")
        features = tuple(tensor.name for tensor in asset.signature.inputs)
        content = await self._artefacts.get(asset.artefact.digest)
        return ModelFile(content, asset.artefact.format, features, template(claimed.evaluation.template).task)

    async def _files(self, dataset: Dataset) -> list[File]:
        for split in GOLDEN_SPLITS:
            files = [file for file in dataset.manifest.files if file.split == split]
            if files:
                return [(await self._artefacts.get(file.digest), file.format) for file in files]
        raise GoldenSetMissing()


def _assignment(claimed: Claimed, rows: int) -> Assignment:
    manifest = claimed.dataset.manifest
    return Assignment(
        model=claimed.asset.ref.digest,
        golden_set=claimed.dataset.ref.digest,
        template=claimed.evaluation.template,
        spec=GoldenSpec(label=manifest.label or "label", sensitive=manifest.sensitive),
        plan=plan(rows, SHARD_ROWS),
    )


def _interval(found: dict[str, object]) -> Interval:
    """A measure as the event carries it."""
    names = ("value", "low", "high", "n", "level", "method", "unit", "higher_is_better")
    return Interval.model_validate({name: found[name] for name in names})
