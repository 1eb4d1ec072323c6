"""Batches: begun, looked at and cancelled by people; taken from where they are to their end by the worker."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from services.router.batches.domain import Job, Spec, State, digest_of
from services.router.batches.run import LeaseLost, Runner, Stopped
from services.router.batches.store import BatchStore
from services.router.errors import BatchOver, BatchRefused, GatewayAway, SealBroken, UnknownBatch, UnknownGroup
from services.router.store import Store
from shared.artefacts import ArtefactStore
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database, Transaction
from shared.errors import MintmarkError, NotFound, Refused, Unavailable
from shared.identity.principal import Principal
from shared.ids import new_id

log = logging.getLogger(__name__)

AGAIN = timedelta(seconds=5)
"""How long a batch that cannot go on waits before it is tried again."""


class Batches:
    """`runner` is None where there is no master key to seal tickets with: then no batch can be begun."""

    def __init__(
        self,
        database: Database,
        store: Store,
        batches: BatchStore,
        artefacts: ArtefactStore,
        runner: Runner | None,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._batches = batches
        self._artefacts = artefacts
        self._runner = runner
        self._clock = clock

    # -- people

    async def upload(self, by: Principal, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Keep a file under its digest; its size. Raises IntegrityFailed, and keeps nothing then."""
        _, size = await self._artefacts.put(chunks, expected=digest)
        async with self._database.begin(by.workspace) as tx:
            await self._batches.hold_file(tx, digest, size, self._clock())
        return size

    async def download(self, by: Principal, digest: str) -> tuple[int, AsyncIterator[bytes]]:
        """Size and bytes of a file that the caller's workspace gave or that a batch of it made. Raises NotFound."""
        async with self._database.begin(by.workspace) as tx:
            size = await self._batches.file_size(tx, digest)
        if size is None or await self._artefacts.size(digest) is None:
            raise NotFound(f"Your workspace has no file {digest[:80]}.")
        return size, self._artefacts.read(digest)

    async def begin(self, by: Principal, group: str, spec: Spec) -> Job:
        """Raises UnknownGroup, BatchRefused, SealBroken."""
        if self._runner is None:
            raise SealBroken("There is no master key to ask the gateway with: set MINTMARK_ROUTER_MASTER_KEY_FILE.")
        spec = spec.model_copy(update={"input": digest_of(spec.input)})
        now = self._clock()
        job = Job(
            new_id(), by.workspace, group, spec, State.QUEUED, False, by.id, tuple(sorted(by.roles)), now, next_at=now
        )
        async with self._database.begin(by.workspace) as tx:
            await self._require_group(tx, group)
            if await self._batches.file_size(tx, spec.input) is None:
                raise BatchRefused(
                    f"Your workspace has no file {spec.input}; upload it first: PUT /router/v1/batch-files/{{digest}}."
                )
            await self._batches.add(tx, job)
        return job

    async def one(self, workspace: str, group: str, job_id: UUID) -> Job:
        """Raises UnknownGroup, UnknownBatch."""
        async with self._database.begin(workspace) as tx:
            return await self._find(tx, group, job_id)

    async def page(self, workspace: str, group: str, before: tuple[datetime, UUID] | None, most: int) -> list[Job]:
        """The latest first. Raises UnknownGroup."""
        async with self._database.begin(workspace) as tx:
            await self._require_group(tx, group)
            return await self._batches.page(tx, group, before, most)

    async def cancel(self, workspace: str, group: str, job_id: UUID) -> Job:
        """No further row is asked; what was asked stays in the group's table. Raises UnknownBatch, BatchOver."""
        async with self._database.begin(workspace) as tx:
            job = await self._find(tx, group, job_id)
            if not await self._batches.cancel(tx, group, job_id, self._clock()):
                raise BatchOver(f"The batch is {job.state.value}; there is nothing to cancel.")
            return await self._find(tx, group, job_id)

    async def _find(self, tx: Transaction, group: str, job_id: UUID) -> Job:
        await self._require_group(tx, group)
        job = await self._batches.one(tx, group, job_id)
        if job is None:
            raise UnknownBatch(f"The group {group!r} has no batch {job_id}.")
        return job

    async def _require_group(self, tx: Transaction, group: str) -> None:
        if await self._store.group(tx, group) is None:
            raise UnknownGroup(group)

    # -- the worker

    async def claim(self, owner: UUID) -> Job | None:
        """A batch that is due, now the owner's."""
        if self._runner is None:
            return None
        now = self._clock()
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            return await self._batches.claim(tx, owner, now, now + self._runner.lease)

    async def work(self, job: Job, owner: UUID) -> None:
        """Take it to its end, or as far as it goes now."""
        assert self._runner is not None, "nothing is claimed without one"
        named = {"batch": str(job.id), "group": job.group}
        try:
            if job.cancel:
                raise Stopped
            await self._runner.run(job, owner)
        except LeaseLost:
            log.warning("somebody else has the batch now", extra=named)
        except Stopped:
            await self._end(job, owner, State.CANCELLED, "cancelled", "It was cancelled.")
        except (GatewayAway, SealBroken) as error:
            async with self._database.begin(job.workspace) as tx:
                await self._batches.wait(tx, job, owner, self._clock() + AGAIN, error.message)
        except Refused as error:
            await self._end(job, owner, State.FAILED, error.code, error.message)
        except (Unavailable, asyncpg.PostgresError, OSError) as error:
            log.warning("a batch goes on when its lease has run out", extra={**named, "error": repr(error)[:500]})
        except Exception:  # a defect must not try the same again for ever
            log.exception("a batch failed", extra=named)
            await self._end(job, owner, State.FAILED, MintmarkError.code, MintmarkError().message)

    async def _end(self, job: Job, owner: UUID, state: State, code: str, message: str) -> None:
        async with self._database.begin(job.workspace) as tx:
            await self._batches.end(tx, job, owner, state, self._clock(), code=code, message=message[:2000])
