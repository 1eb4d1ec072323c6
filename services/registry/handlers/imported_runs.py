"""Runs and logged models of another registry, under the ids that they have there; those are unique by themselves.

What is here already is compared by what was said of it last: status, tags, parameters and the latest of each metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.registry.domain.tracking import RUN_NAME, Experiment, LoggedModel, Point, Run
from services.registry.handlers.imports import FILES, Item, Outcome, keep_files
from services.registry.handlers.tracking import Tracking
from services.registry.importers.documents import ForeignFile, From
from services.registry.importers.store import Imported
from services.registry.importers.trials import ForeignExperiment, ForeignModel, ForeignRun
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import Conflict, MintmarkError, NotFound
from shared.identity.principal import Principal


@dataclass(frozen=True, slots=True)
class Trials:
    """An experiment with some of its runs and logged models."""

    experiment: ForeignExperiment
    runs: Sequence[ForeignRun]
    models: Sequence[ForeignModel]


class ImportedRuns:
    """One transaction a run or logged model."""

    def __init__(self, database: Database, store: Store, imported: Imported, tracking: Tracking, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._imported = imported
        self._tracking = tracking
        self._clock = clock

    async def bring(self, caller: Principal, source: From, trials: Trials, *, dry: bool) -> list[Item]:
        """What became of each. Runs of an experiment that was deleted here are refused."""
        found: list[Item] = []
        ones: list[ForeignRun | ForeignModel] = [*trials.runs, *trials.models]
        for one in ones:
            try:
                async with self._database.begin(caller.workspace) as tx:
                    if not dry:
                        await self._imported.one_at_a_time(tx, one.id)
                    experiment = await self._experiment(tx, trials.experiment, dry=dry)
                    if isinstance(one, ForeignRun):
                        outcome = await self._run(tx, source, experiment, one, dry=dry)
                    else:
                        outcome = await self._model(tx, experiment, one, dry=dry)
                found.append(Item(one.id, f"run:{one.id}" if isinstance(one, ForeignRun) else one.id, None, outcome))
            except MintmarkError as error:
                found.append(Item(one.id, "", None, "refused", reason=error.message))
        return found

    async def _experiment(self, tx: Transaction, foreign: ForeignExperiment, *, dry: bool) -> Experiment | None:
        """The experiment of that name, made if need be; None in a dry run that would make it."""
        tracking = self._store.tracking
        found = await tracking.experiment_called(tx, foreign.name)
        if found is None and not dry:
            now = self._clock()
            await tracking.add_default(tx, now)
            at = min(foreign.created_at or now, now)
            location = foreign.location or None
            await tracking.add_experiment(tx, foreign.name, location, dict(foreign.tags), at)
            found = await tracking.experiment_called(tx, foreign.name)
            if found is None:
                raise NotFound(f"experiment {foreign.name[:200]!r} was changed meanwhile; import again")
        if found is not None:
            found.check_active()
        return found

    async def _run(
        self, tx: Transaction, source: From, experiment: Experiment | None, foreign: ForeignRun, *, dry: bool
    ) -> Outcome:
        points = [one.point for one in foreign.metrics]
        before = await self._store.tracking.run(tx, foreign.id, hold=not dry)
        if before is None:
            if not dry and experiment is not None:
                await self._new_run(tx, source, experiment, foreign, points)
            return "created"
        if experiment is None or before.experiment != experiment.id:
            raise Conflict(f"run {foreign.id} belongs to another experiment here")
        wanted = replace(
            before,
            status=foreign.status,
            ended_ms=foreign.ended_ms,
            tags=before.tags | foreign.tags,
            params=before.with_params(foreign.params),
            inputs=[one.document for one in foreign.inputs] or before.inputs,
            model_inputs=list(foreign.model_inputs) or before.model_inputs,
            model_outputs=[one.model_dump() for one in foreign.model_outputs] or before.model_outputs,
        )
        if wanted == before and not _newer(points, before.metrics) and not foreign.files:
            return "same"
        if not dry:
            await self._store.tracking.log(tx, foreign.id, points)
            await self._files(tx, wanted.location, foreign.files)
            logged = await self._store.tracking.run(tx, foreign.id)
            await self._tracking.put(tx, before, replace(wanted, metrics=logged.metrics if logged else ()))
        return "changed"

    async def _new_run(
        self, tx: Transaction, source: From, experiment: Experiment, foreign: ForeignRun, points: Sequence[Point]
    ) -> None:
        name = foreign.name or foreign.tags.get(RUN_NAME) or f"run-{foreign.id[:8]}"
        run = Run(
            run_id=foreign.id,
            experiment=experiment.id,
            name=name,
            status="RUNNING",
            user=foreign.user,
            started_ms=foreign.started_ms,
            ended_ms=None,
            tags=foreign.tags | {RUN_NAME: name},
            params=dict(foreign.params),
            inputs=[],
            model_inputs=[],
            model_outputs=[],
            config=None,
            config_digest=None,
            signer=source.author(foreign.user or None),
            created_at=self._clock(),
            deleted_at=None,
            root=experiment.root,
        )
        await self._store.tracking.add_run(tx, run)
        await self._store.tracking.log(tx, run.run_id, points)
        await self._files(tx, run.location, foreign.files)
        begun = await self._store.tracking.run(tx, run.run_id)
        assert begun is not None
        after = replace(
            begun,
            status=foreign.status,
            ended_ms=foreign.ended_ms,
            inputs=[one.document for one in foreign.inputs],
            model_inputs=list(foreign.model_inputs),
            model_outputs=[one.model_dump() for one in foreign.model_outputs],
        )
        await self._tracking.put(tx, begun, after)

    async def _model(
        self, tx: Transaction, experiment: Experiment | None, foreign: ForeignModel, *, dry: bool
    ) -> Outcome:
        points, tracking = [one.point for one in foreign.metrics], self._store.tracking
        before = await tracking.model(tx, foreign.id, hold=not dry)
        if before is None:
            if not dry and experiment is not None:
                now = self._clock()
                made = LoggedModel(
                    model_id=foreign.id,
                    experiment=experiment.id,
                    name=foreign.name,
                    model_type=foreign.model_type,
                    source_run_id=foreign.source_run_id,
                    status=foreign.status,
                    tags=dict(foreign.tags),
                    params=dict(foreign.params),
                    created_at=min(foreign.created_at or now, now),
                    updated_at=now,
                    root=experiment.root,
                )
                await tracking.add_model(tx, made)
                await tracking.log(tx, foreign.id, points)
                await self._files(tx, made.location, foreign.files)
            return "created"
        wanted = replace(before, status=foreign.status, tags=before.tags | foreign.tags)
        if wanted == before and not _newer(points, before.metrics) and not foreign.files:
            return "same"
        if not dry:
            await tracking.log(tx, foreign.id, points)
            await self._files(tx, before.location, foreign.files)
            await tracking.put_model(tx, replace(wanted, updated_at=max(self._clock(), before.updated_at)))
        return "changed"

    async def _files(self, tx: Transaction, location: str, found: Sequence[ForeignFile]) -> None:
        """From now on these bytes stand where clients look for them."""
        if location.startswith(FILES):
            await keep_files(self._store, tx, location.removeprefix(FILES), found, self._clock)


def _newer(points: Sequence[Point], latest: Sequence[Point]) -> bool:
    """Whether a point is newer than the latest one of its metric."""
    known = {point.key: (point.step, point.timestamp_ms) for point in latest}
    return any((point.step, point.timestamp_ms) > known.get(point.key, (-(2**63), -1)) for point in points)
