"""Rows of batches and of their results as values, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from services.router.batches.domain import Job, Result, Spec, State
from shared.db.database import Transaction


class BatchStore:
    """Reads and writes in a transaction that it is given; `queries` are those of this package."""

    def __init__(self, queries: Any) -> None:
        self._sql = queries

    async def hold_file(self, tx: Transaction, digest: str, size: int, at: datetime) -> None:
        await self._sql.hold_file(tx.connection, workspace=tx.workspace, digest=digest, size=size, at=at)

    async def file_size(self, tx: Transaction, digest: str) -> int | None:
        """None when the workspace has no such file."""
        size: int | None = await self._sql.file_size(tx.connection, digest=digest)
        return size

    async def add(self, tx: Transaction, job: Job) -> None:
        await self._sql.insert_job(
            tx.connection, id=job.id, workspace=tx.workspace, group_name=job.group,
            spec=job.spec.model_dump(mode="json"), who=job.who, roles=list(job.roles), created_at=job.created_at,
        )  # fmt: skip

    async def one(self, tx: Transaction, group: str, job_id: UUID) -> Job | None:
        row = await self._sql.job(tx.connection, id=job_id, group_name=group)
        return None if row is None else _job(row)

    async def page(self, tx: Transaction, group: str, before: tuple[datetime, UUID] | None, most: int) -> list[Job]:
        """The latest first."""
        at, id = before or (None, None)
        rows = self._sql.jobs(tx.connection, group_name=group, before=at, before_id=id, most=most)
        return [_job(row) async for row in rows]

    async def cancel(self, tx: Transaction, group: str, job_id: UUID, now: datetime) -> bool:
        """False when it is over already, or not there."""
        return await self._sql.cancel_job(tx.connection, id=job_id, group_name=group, now=now) is not None

    # -- for the worker that holds the job

    async def claim(self, tx: Transaction, owner: UUID, now: datetime, lease_until: datetime) -> Job | None:
        """A job that is now the owner's; for a transaction that sees every workspace."""
        row = await self._sql.claim_job(tx.connection, owner=owner, now=now, lease_until=lease_until)
        return None if row is None else _job(row)

    async def hold(
        self,
        tx: Transaction,
        job: Job,
        owner: UUID,
        lease_until: datetime,
        *,
        total: int | None = None,
        results: Sequence[Result] = (),
    ) -> bool | None:
        """Go on, with these results: whether to stop; None, and nothing kept, when the lease went to somebody else."""
        stop: bool | None = await self._sql.hold_job(
            tx.connection, id=job.id, owner=owner, lease_until=lease_until, total=total, recorded=len(results),
            failed=sum(one.is_error for one in results),
        )  # fmt: skip
        if stop is not None and results:
            await self._sql.add_results(
                tx.connection, workspace=tx.workspace, job_id=job.id,
                positions=[one.position for one in results],
                results=[orjson.dumps(asdict(one)).decode() for one in results],
            )  # fmt: skip
        return stop

    async def missing(self, tx: Transaction, job: Job) -> tuple[int, frozenset[int]]:
        """The first place without a result, and those behind it that have one."""
        first: int = await self._sql.first_missing(tx.connection, job_id=job.id)
        rows = self._sql.places_from(tx.connection, job_id=job.id, position=first)
        return first, frozenset([row["position"] async for row in rows])

    async def results(self, tx: Transaction, job: Job, position: int, most: int) -> list[Result]:
        """In the order of the file."""
        rows = self._sql.results(tx.connection, job_id=job.id, position=position, most=most)
        return [Result(**orjson.loads(row["result"])) async for row in rows]

    async def end(
        self,
        tx: Transaction,
        job: Job,
        owner: UUID,
        state: State,
        at: datetime,
        *,
        output: str | None = None,
        code: str | None = None,
        message: str | None = None,
    ) -> bool:
        """False when the lease went to somebody else."""
        ended = await self._sql.end_job(
            tx.connection, id=job.id, owner=owner, state=state.value, output=output, error_code=code,
            error_message=message, at=at,
        )  # fmt: skip
        if ended is None:
            return False
        await self._sql.drop_results(tx.connection, job_id=job.id)
        return True

    async def wait(self, tx: Transaction, job: Job, owner: UUID, next_at: datetime, waits_for: str) -> None:
        await self._sql.wait_job(tx.connection, id=job.id, owner=owner, next_at=next_at, waits_for=waits_for)


def _job(row: Mapping[str, Any]) -> Job:
    return Job(
        id=row["id"], workspace=row["workspace"], group=row["group_name"], spec=Spec.model_validate(row["spec"]),
        state=State(row["state"]), cancel=row["cancel"], who=row["who"], roles=tuple(row["roles"]),
        created_at=row["created_at"], started_at=row["started_at"], ended_at=row["ended_at"], next_at=row["next_at"],
        total=row["total"], recorded=row["recorded"], failed=row["failed"], output=row["output"],
        error_code=row["error_code"], error_message=row["error_message"], waits_for=row["waits_for"],
    )  # fmt: skip
