"""What nobody may wait for: fetching artefacts, looking through large ones, a prompt's author; the index of search."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from services.registry.errors import AuthorUnproven, SourceFailed
from services.registry.handlers.artefacts import Artefacts
from services.registry.handlers.registration import Registration
from services.registry.search.folding import MOST, Fold
from services.registry.search.meaning import Embedding
from services.registry.store import Store, Submission
from services.registry.store.leases import renewed
from shared import faults
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database
from shared.errors import Conflict, MintmarkError, Refused, Unavailable
from shared.events import cause
from shared.ids import new_id
from shared.telemetry import traces

log = logging.getLogger(__name__)

LOOK_S = 0.5
LEASE_S = 12.0  # renewed while at work; so long after a crash somebody else goes on
HANDS = 4  # submissions at once; they wait for the network most of the time
MOST_TRIES = 6


class Fetching:
    """Works off submissions that are not decided. Several processes may: a lease says who holds which one."""

    name = "fetching"

    def __init__(
        self,
        database: Database,
        store: Store,
        artefacts: Artefacts,
        registration: Registration,
        clock: Clock,
        timeout_s: float,
    ) -> None:
        self._database = database
        self._store = store
        self._artefacts = artefacts
        self._registration = registration
        self._clock = clock
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Until cancelled. One looks for work, so that a quiet registry asks its database twice a second."""
        free = asyncio.Semaphore(HANDS)
        async with asyncio.TaskGroup() as hands:
            while True:
                await free.acquire()
                submission = await self._next()
                hands.create_task(self._work(submission)).add_done_callback(lambda _: free.release())

    async def _next(self) -> Submission:
        """The next submission, as soon as there is one."""
        while True:
            try:
                submission = await self._claim()
            except MintmarkError as error:
                self._wait_for(error)
                submission = None
            if submission is not None:
                faults.point("worker.claimed")
                return submission
            await asyncio.sleep(LOOK_S)

    async def _work(self, submission: Submission) -> None:
        try:
            await self._decide(submission)
        except MintmarkError as error:  # the lease ends, and then it is tried again
            self._wait_for(error)

    def _wait_for(self, error: MintmarkError) -> None:
        log.warning("submissions wait", extra={"service": "registry", "error": str(error)[:300]})

    async def _claim(self) -> Submission | None:
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            until = self._clock() + timedelta(seconds=LEASE_S)
            return await self._store.submissions.claim(tx, new_id(), until)

    async def _decide(self, submission: Submission) -> None:
        """Register, refuse, or give back for later. Nothing is held in the database while bytes are fetched."""
        with traces.span("register", parent=submission.traceparent):
            token = cause.current.set(cause.Cause(submission.correlation_id, submission.causation_id))
            try:
                sizes = await self._gathered(submission)
            except Refused as error:
                await self._conclude(submission, error)
            except Exception as error:  # a source fails in many ways; none may stop the others' submissions
                await self._again(submission, error)
            else:
                await self._conclude(submission, sizes)
            finally:
                cause.current.reset(token)

    async def _gathered(self, submission: Submission) -> dict[str, int]:
        if submission.state == "vouching":
            raise AuthorUnproven(f"nobody vouched for author {submission.event.author!r}, and the event has no proof")
        async with renewed(LEASE_S / 3, lambda: self._renew(submission)):
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._artefacts.gather(submission.workspace, submission.event)
            except TimeoutError:
                raise SourceFailed(f"fetching took longer than {self._timeout_s:.0f} s") from None

    async def _renew(self, submission: Submission) -> None:
        async with self._database.begin(submission.workspace) as tx:
            await self._store.submissions.renew(tx, submission, self._clock() + timedelta(seconds=LEASE_S))

    async def _conclude(self, submission: Submission, outcome: dict[str, int] | Refused) -> None:
        async with self._database.begin(submission.workspace) as tx:
            held = await self._store.submissions.one(tx, submission.id, lock=True)
            if held is None or held.lease != submission.lease:
                return  # somebody else took it over, or its author was named meanwhile
            if isinstance(outcome, Refused):
                await self._registration.refuse(tx, submission, outcome)
            else:
                await self._registration.conclude(tx, submission, outcome)

    async def _again(self, submission: Submission, error: Exception) -> None:
        """Later, a few times; then it is refused."""
        reason = f"{submission.attempts} tries failed; the last one: {str(error)[:500] or type(error).__name__}"
        log.warning(
            "submission waits", extra={"service": "registry", "submission": str(submission.id), "error": reason}
        )
        if submission.attempts >= MOST_TRIES:
            await self._conclude(submission, SourceFailed(reason))
            return
        wait_s = min(2.0 ** (submission.attempts - 1), 30.0)
        async with self._database.begin(submission.workspace) as tx:
            await self._store.submissions.postpone(tx, submission, self._clock() + timedelta(seconds=wait_s))


FOLD_LOOK_S = 0.5
EMBED_LOOK_S = 1.0


class Folding:
    """Folds what was written into the index. Several processes may: one a workspace is at it, the others pass by."""

    name = "folding"

    def __init__(self, database: Database, fold: Fold) -> None:
        self._database = database
        self._fold = fold

    async def run(self) -> None:
        """Look twice a second; while there is more than a batch, go on at once."""
        while True:
            try:
                busy = await self.fold()
            except (Conflict, Unavailable) as error:
                log.warning("search is not folded", extra={"service": "registry", "error": str(error)[:300]})
                busy = False
            if not busy:
                await asyncio.sleep(FOLD_LOOK_S)

    async def fold(self) -> bool:
        """A batch of every workspace; whether there is more."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            workspaces = await self._fold.workspaces(tx)
        busy = False
        for workspace in workspaces:
            async with self._database.begin(workspace) as tx:
                folded = await self._fold.fold(tx)
                faults.point("fold.folded")
            busy = busy or folded == MOST
        return busy


class Embedders:
    """Embeds what was folded. The model works outside of any transaction; who comes second does nothing."""

    name = "embedding"

    def __init__(self, database: Database, embedding: Embedding, clock: Clock) -> None:
        self._database = database
        self._embedding = embedding
        self._clock = clock

    async def run(self) -> None:
        """Look once a second; while there is more than a batch, go on at once."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            await self._embedding.prepare(tx)
        while True:
            try:
                busy = await self.embed()
            except (Conflict, Unavailable) as error:
                log.warning("texts wait to be embedded", extra={"service": "registry", "error": str(error)[:300]})
                busy = False
            if not busy:
                await asyncio.sleep(EMBED_LOOK_S)

    async def embed(self) -> bool:
        """A batch of every workspace; whether any was embedded."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            workspaces = await self._embedding.workspaces(tx)
        busy = False
        for workspace in workspaces:
            async with self._database.begin(workspace) as tx:
                new = await self._embedding.new(tx)
            vectors = await self._embedding.embedder.embed([gist for _, gist in new])
            async with self._database.begin(workspace) as tx:
                await self._embedding.keep(tx, [id for id, _ in new], vectors, self._clock())
            busy = busy or bool(new)
        return busy
