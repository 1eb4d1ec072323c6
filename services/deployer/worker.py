"""The worker: claims deployments under a lease, carries out several at a time, and puts back what a target lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from uuid import UUID

from services.deployer.lapsed import Lapsed
from services.deployer.rollout import Rollout, base_url
from services.deployer.settings import Settings
from services.deployer.store import Deployment, Store
from services.deployer.targets import Endpoint, Target, TargetRefused, TargetUnavailable, target
from shared import faults
from shared.db.database import EVERY_WORKSPACE, Database
from shared.errors import Unavailable

log = logging.getLogger(__name__)

LOOK_S = 0.5
GATHER_S = 0.02  # the wake comes just before the commit of what it is about


class Deployments:
    """Any number of these may run, in any number of processes: work is claimed in Postgres, and held by a lease."""

    name = "deployments"

    def __init__(
        self,
        database: Database,
        store: Store,
        rollout: Rollout,
        lapsed: Lapsed,
        settings: Settings,
        waiting: asyncio.Event,
    ) -> None:
        self._database = database
        self._store = store
        self._rollout = rollout
        self._lapsed = lapsed
        self._settings = settings
        self._waiting = waiting
        self._running: dict[asyncio.Task[None], UUID] = {}

    async def run(self) -> None:
        """Work until cancelled; what is in hand then goes back to whoever claims it next."""
        targets = self._open()
        beside = [
            asyncio.create_task(_every(self._settings.lease_s / 3, self._renew)),
            asyncio.create_task(_every(self._settings.reconcile_s, lambda: self._reconcile(targets))),
            asyncio.create_task(_every(self._settings.reconcile_s, self._lapsed.look)),
        ]
        try:
            while True:
                claimed = await self._claim()
                for job in claimed:
                    assert job.lease is not None
                    self._running[asyncio.create_task(self._carry_out(job, targets))] = job.lease
                if not claimed:
                    await self._rest()
        finally:
            leases = list(set(self._running.values()))
            tasks = (*beside, *self._running)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for opened in targets.values():
                await opened.aclose()
            with _patient("giving work back"):
                async with self._database.begin(EVERY_WORKSPACE) as tx:
                    await self._store.release(tx, leases)

    def _open(self) -> dict[str, Target]:
        file = self._settings.model_server_token_file
        token = file.read_text().strip() if file else None
        return {"local": target("local", self._settings.model_server_url, token=token)}

    async def _claim(self) -> list[Deployment]:
        free = self._settings.concurrency - len(self._running)
        if free <= 0:
            return []
        with _patient("claiming"):
            async with self._database.begin(EVERY_WORKSPACE) as tx:
                return await self._store.claim(tx, self._settings.lease_s, free)
        return []

    async def _carry_out(self, job: Deployment, targets: Mapping[str, Target]) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            with _patient("carrying out a deployment"):
                faults.point("worker.claimed")
                await self._rollout.carry_out(job, targets)
        finally:
            self._running.pop(task, None)
            self._waiting.set()

    async def _rest(self) -> None:
        """Until something is done or asked for, or a moment has passed in case another process took it in."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):  # not wait_for, which may swallow a cancellation in Python 3.11
                await self._waiting.wait()
        self._waiting.clear()
        if len(self._running) == 0:
            await asyncio.sleep(GATHER_S)

    async def _renew(self) -> None:
        if not self._running:
            return
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            await self._store.renew(tx, list(set(self._running.values())), self._settings.lease_s)

    async def _reconcile(self, targets: Mapping[str, Target]) -> None:
        """Put back what should be on a target and is not, or answers elsewhere; take away what should not be there."""
        for name, asked in targets.items():
            try:
                serving = await asked.serving()
            except (TargetUnavailable, TargetRefused) as error:
                log.warning("a target cannot be asked what it serves", extra={"target": name, "reason": str(error)})
                continue
            async with self._database.begin(EVERY_WORKSPACE) as tx:
                standing = await self._store.standing(tx, name)
            for deployment in standing:
                found = serving.get((deployment.model_name or "", str(deployment.asset.version)))
                if found is None or base_url(found) != deployment.endpoint:
                    async with self._database.begin(deployment.workspace) as tx:
                        await self._store.restore(tx, deployment.deployment_id)
                    self._waiting.set()
            await self._clear_strays(name, asked, serving)

    async def _clear_strays(self, name: str, asked: Target, serving: Mapping[tuple[str, str], Endpoint]) -> None:
        """Names of deployments that failed or were taken away while the target did not answer; never anybody else's."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            if not serving.keys() & set(await self._store.strays(tx, name)):
                return
            await self._store.lock_claims(tx)  # nobody begins to deploy one of them meanwhile
            for model_name, version in serving.keys() & set(await self._store.strays(tx, name)):
                log.warning("taking away what no deployment wants", extra={"model": model_name, "version": version})
                await asked.undeploy(model_name, version)


async def _every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    """At once, then again and again; a failure is logged and the next time comes."""
    while True:
        with _patient("a regular task"):
            await act()
        await asyncio.sleep(seconds)


@contextmanager
def _patient(what: str) -> Iterator[None]:
    """What fails inside is logged and no more: the work is in Postgres, and somebody comes back to it."""
    try:
        yield
    except Unavailable as error:
        log.warning("%s has to wait", what, extra={"reason": str(error)})
    except Exception as error:
        log.error("%s failed", what, exc_info=error)
