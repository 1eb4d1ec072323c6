"""One job, from where it is to its end: fetch the file, ask its rows, write their answers in the file's order.

Rows in flight are those that were asked and have no result in Postgres yet, and there are never more of them than the
job's `concurrency`. Whoever takes the job over after a crash asks those again and no others.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from uuid import UUID

from services.router.batches import files
from services.router.batches.asking import Asker, Issue
from services.router.batches.domain import Item, Job, Result, State, item_of, name_of
from services.router.batches.store import BatchStore
from services.router.errors import BatchRefused
from shared import faults
from shared.artefacts import ArtefactStore
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import MintmarkError, NotFound

log = logging.getLogger(__name__)

CHUNK = 1 << 20
ROWS_AT_A_TIME = 64
RESULTS_AT_A_TIME = 500


class LeaseLost(Exception):
    """Somebody else has the job now."""


class Stopped(Exception):
    """Its owner does not want the job any more."""


class Runner:
    """Runs jobs that this worker (`owner`) has claimed."""

    def __init__(
        self,
        database: Database,
        store: BatchStore,
        artefacts: ArtefactStore,
        issue: Issue,
        clock: Clock,
        *,
        gateway_url: str,
        lease_s: float,
        input_bytes: int,
        rows: int,
    ) -> None:
        self._database = database
        self._store = store
        self._artefacts = artefacts
        self._issue = issue
        self._clock = clock
        self._gateway_url = gateway_url
        self.lease = timedelta(seconds=lease_s)
        self._input_bytes = input_bytes
        self._rows = rows

    async def run(self, job: Job, owner: UUID) -> None:
        """Raises BatchRefused for what can never be done, GatewayAway and Unavailable for what can be later."""
        renewing = asyncio.create_task(self._renew(job, owner))
        try:
            with tempfile.TemporaryDirectory(prefix="mintmark-batch-") as folder:
                path = Path(folder) / "input"
                await self._fetch(job.spec.input, path)
                total = await asyncio.to_thread(files.count, path, job.spec.format, self._rows)
                await self._hold(job, owner, total=total)
                await self._ask(job, owner, path)
                output, size = await self._write(job, Path(folder) / "output")
                async with self._database.begin(job.workspace) as tx:
                    await self._store.hold_file(tx, output, size, self._clock())
                    await self._store.end(tx, job, owner, State.DONE, self._clock(), output=output)
        finally:
            renewing.cancel()

    async def _renew(self, job: Job, owner: UUID) -> None:
        """Keep the lease while a row takes its time; whether it is still held, the next result shows."""
        while True:
            await asyncio.sleep(self.lease.total_seconds() / 4)
            try:
                async with self._database.begin(job.workspace) as tx:
                    await self._store.hold(tx, job, owner, self._clock() + self.lease)
            except MintmarkError:
                log.warning("the lease of a batch was not renewed", extra={"batch": str(job.id)})

    async def _hold(
        self, job: Job, owner: UUID, *, total: int | None = None, results: list[Result] | None = None
    ) -> None:
        """Record results and keep the lease. Raises LeaseLost, Stopped."""
        async with self._database.begin(job.workspace) as tx:
            stop = await self._store.hold(
                tx, job, owner, self._clock() + self.lease, total=total, results=results or ()
            )
        faults.point("worker.between")
        if stop is None:
            raise LeaseLost
        if stop:
            raise Stopped

    # -- the three steps

    async def _fetch(self, digest: str, path: Path) -> None:
        """The whole file, its digest verified before any row of it is asked. Raises BatchRefused."""
        size = await self._artefacts.size(digest)
        if size is None:
            raise BatchRefused(f"The input {digest} is not in the artefact store any more.")
        if size > self._input_bytes:
            raise BatchRefused(
                f"The input has {size} bytes; {self._input_bytes} is the most of one batch, so split it."
            )
        try:
            with path.open("wb") as file:
                async for chunk in self._artefacts.read(digest):
                    await asyncio.to_thread(file.write, chunk)
        except NotFound as error:
            raise BatchRefused(error.message) from None

    async def _ask(self, job: Job, owner: UUID, path: Path) -> None:
        async with self._database.begin(job.workspace) as tx:
            first, there = await self._store.missing(tx, job)
        asking: set[asyncio.Task[Result]] = set()
        try:
            async with Asker(self._gateway_url, job, self._issue, self._clock) as asker:
                async for place, row in _blocks(files.rows(path, job.spec.format, first)):
                    if place in there:
                        continue
                    if len(asking) >= job.spec.concurrency:
                        asking = await self._some(job, owner, asking)
                    asking.add(asyncio.create_task(_answer(asker, job, place, row)))
                while asking:
                    asking = await self._some(job, owner, asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _some(self, job: Job, owner: UUID, asking: set[asyncio.Task[Result]]) -> set[asyncio.Task[Result]]:
        """Wait for answers and record them; what is still asked. An error of one is raised when the others are kept."""
        done, left = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        failed = [error for task in done if (error := task.exception()) is not None]
        answered = [task.result() for task in done if task.exception() is None]
        if answered:
            await self._hold(job, owner, results=answered)
        if failed:
            raise failed[0]
        return left

    async def _write(self, job: Job, path: Path) -> tuple[str, int]:
        """The output in the artefact store, in the input's order; the same bytes whoever writes it. Digest and size."""
        made = await asyncio.to_thread(files.writer, path, job.spec.output_format, job.spec.shape)
        place = 0
        try:
            while True:
                async with self._database.begin(job.workspace) as tx:
                    found = await self._store.results(tx, job, place, RESULTS_AT_A_TIME)
                if not found:
                    break
                await asyncio.to_thread(made.write, found)
                place = found[-1].position + 1
        finally:
            made.close()
        written = await self._artefacts.put(_chunks(path))
        faults.point("worker.between")
        return written


async def _answer(asker: Asker, job: Job, place: int, row: files.Row) -> Result:
    """A row that is no request is a result as well, and nobody is asked."""
    if isinstance(row, MintmarkError):
        return Result.refused(place, str(place), row)
    try:
        item: Item = item_of(row, place, job.group, job.spec)
    except MintmarkError as error:
        name = name_of(row, place, job.spec.id_field) if isinstance(row, dict) else str(place)
        return Result.refused(place, name, error)
    return await asker.ask(item)


async def _blocks(rows: Iterator[tuple[int, files.Row]]) -> AsyncIterator[tuple[int, files.Row]]:
    """Rows, read in a thread some at a time."""
    while block := await asyncio.to_thread(lambda: list(islice(rows, ROWS_AT_A_TIME))):
        for one in block:
            yield one


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
