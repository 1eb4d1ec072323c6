"""Experiments, runs, metrics, logged models and files as rows, and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.registry.domain.tracking import Experiment, File, LoggedModel, Point, Run
from shared.db.database import Transaction
from shared.events.base import Actor


class Tracking:
    """Tables experiment, run, metric_point, latest_metric, logged_model, tracked_file."""

    def __init__(self, queries: Any) -> None:
        self._queries = queries

    # Experiments

    async def add_experiment(
        self, tx: Transaction, name: str, location: str | None, tags: dict[str, str], at: datetime
    ) -> Experiment | None:
        """A new one; None where the name is taken."""
        row = await self._queries.add_experiment(
            tx.connection, workspace=tx.workspace, name=name, location=location, tags=tags, at=at
        )
        return None if row is None else _experiment(row)

    async def add_default(self, tx: Transaction, at: datetime) -> None:
        await self._queries.add_default(tx.connection, workspace=tx.workspace, at=at)

    async def experiment(self, tx: Transaction, number: int, *, hold: bool = False) -> Experiment | None:
        query = self._queries.hold_experiment if hold else self._queries.experiment
        row = await query(tx.connection, workspace=tx.workspace, id=number)
        return None if row is None else _experiment(row)

    async def experiment_called(self, tx: Transaction, name: str) -> Experiment | None:
        row = await self._queries.experiment_by_name(tx.connection, workspace=tx.workspace, name=name)
        return None if row is None else _experiment(row)

    async def experiments(self, tx: Transaction, most: int) -> list[Experiment]:
        rows = self._queries.experiments(tx.connection, workspace=tx.workspace, most=most)
        return [_experiment(row) async for row in rows]

    async def put_experiment(self, tx: Transaction, experiment: Experiment) -> None:
        await self._queries.put_experiment(
            tx.connection,
            workspace=tx.workspace,
            id=experiment.id,
            name=experiment.name,
            tags=experiment.tags,
            updated_at=experiment.updated_at,
            deleted_at=experiment.deleted_at,
        )

    async def mark_runs(self, tx: Transaction, experiment: int, deleted_at: datetime | None) -> None:
        await self._queries.mark_runs(
            tx.connection, workspace=tx.workspace, experiment=experiment, deleted_at=deleted_at
        )

    # Runs

    async def add_run(self, tx: Transaction, run: Run) -> None:
        await self._queries.add_run(
            tx.connection,
            workspace=tx.workspace,
            run_id=run.run_id,
            experiment=run.experiment,
            name=run.name,
            status=run.status,
            user_name=run.user,
            started_ms=run.started_ms,
            ended_ms=run.ended_ms,
            tags=run.tags,
            params=run.params,
            config=run.config,
            config_digest=run.config_digest,
            signer=run.signer.id,
            signer_proven=run.signer.proven,
            at=run.created_at,
        )

    async def run(self, tx: Transaction, run_id: str, *, hold: bool = False) -> Run | None:
        if hold:
            await self._queries.hold_run(tx.connection, workspace=tx.workspace, run_id=run_id)
        row = await self._queries.run(tx.connection, workspace=tx.workspace, run_id=run_id)
        return None if row is None else _run(row)

    async def runs(
        self, tx: Transaction, experiments: Sequence[int], deleted: bool | None, offset: int, most: int
    ) -> list[Run]:
        """Last started first; deleted ones, others, or with None both."""
        rows = self._queries.runs(
            tx.connection,
            workspace=tx.workspace,
            experiments=list(experiments),
            deleted=deleted,
            offset=offset,
            most=most,
        )
        return [_run(row) async for row in rows]

    async def put_run(self, tx: Transaction, run: Run) -> None:
        await self._queries.put_run(
            tx.connection,
            workspace=tx.workspace,
            run_id=run.run_id,
            name=run.name,
            status=run.status,
            ended_ms=run.ended_ms,
            tags=run.tags,
            params=run.params,
            inputs=run.inputs,
            model_inputs=run.model_inputs,
            model_outputs=run.model_outputs,
            deleted_at=run.deleted_at,
        )

    async def tell(self, tx: Transaction, run_id: str, at: datetime) -> bool:
        """Whether that the run ended was not said before; from now on it was."""
        return bool(await self._queries.tell(tx.connection, workspace=tx.workspace, run_id=run_id, at=at))

    async def log(self, tx: Transaction, owner: str, points: Sequence[Point]) -> None:
        """Values of metrics of a run or a logged model."""
        if points:
            await self._queries.log_metrics(
                tx.connection,
                workspace=tx.workspace,
                owner=owner,
                keys=[point.key for point in points],
                values=[point.value for point in points],
                times=[point.timestamp_ms for point in points],
                steps=[point.step for point in points],
            )

    async def history(self, tx: Transaction, owner: str, key: str, offset: int, most: int) -> list[Point]:
        rows = self._queries.metric_history(
            tx.connection, workspace=tx.workspace, owner=owner, key=key, offset=offset, most=most
        )
        return [Point(row["key"], row["value"], row["timestamp_ms"], row["step"]) async for row in rows]

    # Logged models

    async def add_model(self, tx: Transaction, model: LoggedModel) -> None:
        await self._queries.add_logged_model(
            tx.connection,
            workspace=tx.workspace,
            model_id=model.model_id,
            experiment=model.experiment,
            name=model.name,
            model_type=model.model_type,
            source_run_id=model.source_run_id,
            status=model.status,
            tags=model.tags,
            params=model.params,
            at=model.created_at,
        )

    async def model(self, tx: Transaction, model_id: str, *, hold: bool = False) -> LoggedModel | None:
        if hold:
            await self._queries.hold_logged_model(tx.connection, workspace=tx.workspace, model_id=model_id)
        row = await self._queries.logged_model(tx.connection, workspace=tx.workspace, model_id=model_id)
        return None if row is None else _model(row)

    async def models(
        self, tx: Transaction, experiments: Sequence[int], last: LoggedModel | None, most: int
    ) -> list[LoggedModel]:
        """Newest first; those after the last one that was read."""
        rows = self._queries.logged_models(
            tx.connection,
            workspace=tx.workspace,
            experiments=list(experiments),
            before=None if last is None else last.created_at,
            after="" if last is None else last.model_id,
            most=most,
        )
        return [_model(row) async for row in rows]

    async def put_model(self, tx: Transaction, model: LoggedModel, deleted_at: datetime | None = None) -> None:
        await self._queries.put_logged_model(
            tx.connection,
            workspace=tx.workspace,
            model_id=model.model_id,
            status=model.status,
            tags=model.tags,
            params=model.params,
            updated_at=model.updated_at,
            deleted_at=deleted_at,
        )

    # Files

    async def put_file(self, tx: Transaction, path: str, digest: str, size: int, at: datetime) -> None:
        await self._queries.put_file(tx.connection, workspace=tx.workspace, path=path, digest=digest, size=size, at=at)

    async def file(self, tx: Transaction, path: str) -> File | None:
        row = await self._queries.file(tx.connection, workspace=tx.workspace, path=path)
        return None if row is None else File(row["path"], row["digest"], row["size"])

    async def files(self, tx: Transaction, folder: str, most: int) -> list[File]:
        """Every file below a folder, at any depth, by path."""
        first, last = _below(folder)
        rows = self._queries.files_below(tx.connection, workspace=tx.workspace, first=first, last=last, most=most)
        return [File(row["path"], row["digest"], row["size"]) async for row in rows]

    async def remove_files(self, tx: Transaction, path: str) -> None:
        first, last = _below(path)
        await self._queries.remove_files(tx.connection, workspace=tx.workspace, path=path, first=first, last=last)


def _below(folder: str) -> tuple[str, str]:
    """The range of paths below a folder; `0` follows `/` in the order of bytes."""
    return (f"{folder}/", f"{folder}0") if folder else ("", "\U0010ffff")


def _experiment(row: Any) -> Experiment:
    return Experiment(
        row["id"], row["name"], row["artifact_location"], row["tags"], row["created_at"], row["updated_at"],
        row["deleted_at"],
    )  # fmt: skip


def _points(row: Any) -> tuple[Point, ...]:
    columns = (row["keys"] or (), row["values"] or (), row["times"] or (), row["steps"] or ())
    return tuple(Point(key, value, at, step) for key, value, at, step in zip(*columns, strict=True))


def _run(row: Any) -> Run:
    return Run(
        run_id=row["run_id"],
        experiment=row["experiment"],
        name=row["name"],
        status=row["status"],
        user=row["user_name"],
        started_ms=row["started_ms"],
        ended_ms=row["ended_ms"],
        tags=row["tags"],
        params=row["params"],
        inputs=row["inputs"],
        model_inputs=row["model_inputs"],
        model_outputs=row["model_outputs"],
        config=row["config"],
        config_digest=row["config_digest"],
        signer=Actor(id=row["signer"], proven=row["signer_proven"]),
        created_at=row["created_at"],
        deleted_at=row["deleted_at"],
        root=row["artifact_location"] or f"mlflow-artifacts:/{row['experiment']}",
        metrics=_points(row),
    )


def _model(row: Any) -> LoggedModel:
    return LoggedModel(
        model_id=row["model_id"],
        experiment=row["experiment"],
        name=row["name"],
        model_type=row["model_type"],
        source_run_id=row["source_run_id"],
        status=row["status"],
        tags=row["tags"],
        params=row["params"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        root=row["artifact_location"] or f"mlflow-artifacts:/{row['experiment']}",
        metrics=_points(row),
    )
