"""Experiments, runs and logged models: what was tried, and what is said when a try is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

from services.registry.domain.tracking import ENDED, RUN_NAME, STATUSES, Experiment, LoggedModel, Point, Run
from services.registry.errors import NameTaken
from services.registry.store import Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import Invalid, NotFound
from shared.identity.principal import Principal
from shared.ids import digest_of

MOST_EXPERIMENTS = 50_000
MOST_RUNS = 50_000
CHUNK = 1_000

T = TypeVar("T")
Order = Callable[[T], Any]
"""What an order is by: a value of each, None where it has none."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """What is said of a run when it starts. `config` is signed by whoever starts it: its digest is kept with them."""

    name: str = ""
    user: str = ""
    started_ms: int | None = None
    tags: Mapping[str, str] | None = None
    config: dict[str, Any] | None = None


class Tracking:
    """Changes of one run hold its row, one after the other."""

    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock

    def ms(self, at: datetime | None) -> int:
        """A moment, or now, as clients of tracking count time."""
        return int((at or self._clock()).timestamp() * 1000)

    # Experiments

    async def create_experiment(
        self, caller: Principal, name: str, location: str | None, tags: Mapping[str, str]
    ) -> Experiment:
        """Raises NameTaken, where a deleted one has the name, too."""
        async with self._database.begin(caller.workspace) as tx:
            await self._store.tracking.add_default(tx, self._clock())
            made = await self._store.tracking.add_experiment(tx, name, location, dict(tags), self._clock())
        if made is None:
            raise NameTaken(f"Experiment(name={name[:200]}) already exists.")
        return made

    async def experiment(self, caller: Principal, number: int) -> Experiment:
        async with self._database.begin(caller.workspace) as tx:
            return await self._experiment(tx, number)

    async def experiment_called(self, caller: Principal, name: str) -> Experiment:
        async with self._database.begin(caller.workspace) as tx:
            found = await self._store.tracking.experiment_called(tx, name)
            if found is None and name == "Default":
                return await self._experiment(tx, 0)
        if found is None:
            raise NotFound(f"Could not find experiment with name '{name[:200]}'")
        return found

    async def experiments(self, caller: Principal) -> list[Experiment]:
        """All of them, last changed first."""
        async with self._database.begin(caller.workspace) as tx:
            await self._store.tracking.add_default(tx, self._clock())
            return await self._store.tracking.experiments(tx, MOST_EXPERIMENTS)

    async def change_experiment(
        self,
        caller: Principal,
        number: int,
        change: Callable[[Experiment], Experiment],
        *,
        deleted: bool | None = False,
    ) -> Experiment:
        """Change an experiment that is (not) deleted; its runs go and come back with it."""
        async with self._database.begin(caller.workspace) as tx:
            before = await self._experiment(tx, number, hold=True)
            if (before.deleted_at is not None) != deleted:
                if not deleted:
                    before.check_active()
                raise NotFound(f"No Experiment with id={number} in the other state exists")
            after = replace(change(before), updated_at=max(self._clock(), before.updated_at))
            taken = after.name != before.name and await self._store.tracking.experiment_called(tx, after.name)
            if taken:
                raise NameTaken(f"Experiment(name={after.name[:200]}) already exists.")
            await self._store.tracking.put_experiment(tx, after)
            if after.deleted_at != before.deleted_at:
                await self._store.tracking.mark_runs(tx, number, after.deleted_at)
            return after

    async def delete_experiment(self, caller: Principal, number: int) -> None:
        """An experiment and its runs are deleted; they can be restored. Raises NotFound where they are."""
        if (await self.experiment(caller, number)).deleted_at is not None:
            raise NotFound(f"No Experiment with id={number} exists")
        await self.change_experiment(caller, number, lambda before: replace(before, deleted_at=self._clock()))

    # Runs

    async def start(self, caller: Principal, experiment: int, wanted: NewRun) -> Run:
        """A new run. Raises NotFound or Invalid for its experiment."""
        tags, now = dict(wanted.tags or {}), self._clock()
        named = tags.get(RUN_NAME, "")
        if wanted.name and named and wanted.name != named:
            raise Invalid(f"the run's name is {wanted.name[:100]!r}, and {named[:100]!r} in its tag {RUN_NAME}")
        run_id = uuid4().hex
        name = wanted.name or named or f"run-{run_id[:8]}"
        tags[RUN_NAME] = name
        async with self._database.begin(caller.workspace) as tx:
            found = await self._experiment(tx, experiment)
            found.check_active()
            run = Run(
                run_id=run_id,
                experiment=experiment,
                name=name,
                status="RUNNING",
                user=wanted.user,
                started_ms=self.ms(now) if wanted.started_ms is None else wanted.started_ms,
                ended_ms=None,
                tags=tags,
                params={},
                inputs=[],
                model_inputs=[],
                model_outputs=[],
                config=wanted.config,
                config_digest=digest_of(wanted.config) if wanted.config is not None else None,
                signer=caller.actor,
                created_at=now,
                deleted_at=None,
                root=found.root,
            )
            await self._store.tracking.add_run(tx, run)
        return run

    async def run(self, caller: Principal, run_id: str) -> Run:
        async with self._database.begin(caller.workspace) as tx:
            return await self._run(tx, run_id)

    async def change(self, caller: Principal, run_id: str, change: Callable[[Run], Run], *, active: bool = True) -> Run:
        """Change a run. One that ends says so once, with its metrics as they are then."""
        async with self._changing(caller, run_id, active=active) as (tx, before):
            return await self.put(tx, before, change(before))

    def dropping(self, before: Run) -> Run:
        return replace(before, deleted_at=before.deleted_at or self._clock())

    async def log(
        self, caller: Principal, run_id: str, points: Sequence[Point], change: Callable[[Run], Run] | None = None
    ) -> None:
        """Metrics, and with them whatever else `change` brings; all of it or nothing."""
        async with self._changing(caller, run_id, active=True) as (tx, before):
            if change is not None:
                await self.put(tx, before, change(before))
            await self._store.tracking.log(tx, run_id, points)

    async def log_of_models(self, caller: Principal, points: Mapping[str, Sequence[Point]]) -> None:
        """The same metrics, kept with the logged models that they are about."""
        async with self._database.begin(caller.workspace) as tx:
            for model_id, of_model in sorted(points.items()):
                if await self._store.tracking.model(tx, model_id) is not None:
                    await self._store.tracking.log(tx, model_id, of_model)

    async def history(self, caller: Principal, run_id: str, key: str, offset: int, most: int) -> list[Point]:
        async with self._database.begin(caller.workspace) as tx:
            return await self._store.tracking.history(tx, run_id, key, offset, most)

    async def runs(
        self,
        caller: Principal,
        experiments: Sequence[int],
        deleted: bool | None,
        fits: Callable[[Run], bool] | None,
        order: Sequence[tuple[Order[Run], bool]],
        offset: int,
        most: int,
    ) -> list[Run]:
        """Runs that fit, last started first where no other order is asked for; in it, those without a value are last.

        The database sorts by start; whatever else is asked for is looked at here, run by run.
        """
        async with self._database.begin(caller.workspace) as tx:
            if fits is None and not order:
                return await self._store.tracking.runs(tx, experiments, deleted, offset, most)
            found: list[Run] = []
            for read in range(0, MOST_RUNS, CHUNK):
                page = await self._store.tracking.runs(tx, experiments, deleted, read, CHUNK)
                found += [run for run in page if fits is None or fits(run)]
                if len(page) < CHUNK or (not order and len(found) >= offset + most):
                    break
        return _ordered(found, order)[offset : offset + most]

    # Logged models

    async def create_model(
        self,
        caller: Principal,
        experiment: int,
        name: str,
        model_type: str,
        source_run_id: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
    ) -> LoggedModel:
        model_id = f"m-{uuid4().hex}"
        async with self._database.begin(caller.workspace) as tx:
            found = await self._experiment(tx, experiment)
            found.check_active()
            now = self._clock()
            made = LoggedModel(
                model_id=model_id,
                experiment=experiment,
                name=name or f"model-{model_id[2:10]}",
                model_type=model_type,
                source_run_id=source_run_id,
                status=1,
                tags=dict(tags),
                params=dict(params),
                created_at=now,
                updated_at=now,
                root=found.root,
            )
            await self._store.tracking.add_model(tx, made)
        return made

    async def model(self, caller: Principal, model_id: str) -> LoggedModel:
        async with self._database.begin(caller.workspace) as tx:
            return await self._model(tx, model_id)

    async def change_model(
        self, caller: Principal, model_id: str, change: Callable[[LoggedModel], LoggedModel], *, delete: bool = False
    ) -> LoggedModel:
        async with self._database.begin(caller.workspace) as tx:
            before = await self._model(tx, model_id, hold=True)
            after = replace(change(before), updated_at=max(self._clock(), before.updated_at))
            await self._store.tracking.put_model(tx, after, after.updated_at if delete else None)
            return after

    async def models(
        self,
        caller: Principal,
        experiments: Sequence[int],
        fits: Callable[[LoggedModel], bool],
        order: Sequence[tuple[Order[LoggedModel], bool]],
        most: int,
    ) -> list[LoggedModel]:
        """The first that fit, newest first where no other order is asked for; in it, those without a value are last.

        However old they are: all are looked through, a chunk in a transaction of its own, and no more than `most` kept.
        """
        found: list[LoggedModel] = []
        last: LoggedModel | None = None
        while True:
            async with self._database.begin(caller.workspace) as tx:
                page = await self._store.tracking.models(tx, experiments, last, CHUNK)
            found = _ordered(found + [model for model in page if fits(model)], order)[:most]
            if len(page) < CHUNK or (not order and len(found) == most):
                return found
            last = page[-1]

    # Shared

    async def put(self, tx: Transaction, before: Run, after: Run) -> Run:
        """A run that is held as it is now; that it ended is said once."""
        if after.status not in STATUSES:
            raise Invalid(f"a run's status is one of {', '.join(STATUSES)}, not {after.status[:40]!r}")
        await self._store.tracking.put_run(tx, after)
        if after.inputs != before.inputs:
            await self._store.graph.link(tx, after.edges(), self._clock(), f"run:{after.run_id}")
        if after.status in ENDED and before.status not in ENDED:
            now = self._clock()
            if await self._store.tracking.tell(tx, after.run_id, now):
                ended = self.ms(now) if after.ended_ms is None else after.ended_ms
                tx.emit(after.completed(ended))
        return after

    @asynccontextmanager
    async def _changing(
        self, caller: Principal, run_id: str, *, active: bool
    ) -> AsyncIterator[tuple[Transaction, Run]]:
        async with self._database.begin(caller.workspace) as tx:
            before = await self._run(tx, run_id, hold=True)
            if active:
                before.check_active()
            yield tx, before

    async def _experiment(self, tx: Transaction, number: int, *, hold: bool = False) -> Experiment:
        found = await self._store.tracking.experiment(tx, number, hold=hold)
        if found is None and number == 0:
            await self._store.tracking.add_default(tx, self._clock())
            found = await self._store.tracking.experiment(tx, number, hold=hold)
        if found is None:
            raise NotFound(f"No Experiment with id={number} exists")
        return found

    async def _run(self, tx: Transaction, run_id: str, *, hold: bool = False) -> Run:
        found = await self._store.tracking.run(tx, run_id, hold=hold)
        if found is None:
            raise NotFound(f"Run with id={run_id[:100]} not found")
        return found

    async def _model(self, tx: Transaction, model_id: str, *, hold: bool = False) -> LoggedModel:
        found = await self._store.tracking.model(tx, model_id, hold=hold)
        if found is None:
            raise NotFound(f"Logged model with ID '{model_id[:100]}' not found.")
        return found


def _ordered(found: list[T], order: Sequence[tuple[Order[T], bool]]) -> list[T]:
    """By each key in turn (ascending or not), those without a value last; else as they came."""
    for key, ascending in reversed(order):
        present = [one for one in found if key(one) is not None]
        present.sort(key=key, reverse=not ascending)
        found = present + [one for one in found if key(one) is None]
    return found
