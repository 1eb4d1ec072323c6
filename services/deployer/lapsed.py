"""Says which running versions would not be deployed today, because their approval was withdrawn or has expired.

It only says so. Nothing is taken away (docs/decisions/lapsed-approvals.md), and nothing is let through by it: that is
`domain.require_approved`, which verifies the signature that is only read here.
"""

from __future__ import annotations

import logging

from prometheus_client import Gauge

from services.deployer import domain
from services.deployer.store import Store
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database
from shared.telemetry.metrics import REGISTRY

log = logging.getLogger(__name__)

lapsed_deployments = Gauge(
    "mintmark_deployer_lapsed_deployments",
    "Running deployments whose approval was withdrawn or has expired",
    registry=REGISTRY,
)


class Lapsed:
    """Looks at what is running, in every workspace; any number of processes may do so at the same time."""

    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock

    async def look(self) -> None:
        """Once: every complaint as it is now, with a step and a line in the log where it changed."""
        now = self._clock()
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            running = await self._store.running(tx)
        complaints = [domain.complaint(deployment.asset, decision, now) for deployment, decision in running]
        for (deployment, _), complaint in zip(running, complaints, strict=True):
            if complaint == deployment.complaint:
                continue
            async with self._database.begin(deployment.workspace) as tx:
                if await self._store.complain(tx, deployment, complaint):
                    step = "lapsed" if complaint else "approved again"
                    await self._store.add_step(tx, deployment.deployment_id, step, complaint or "", now)
            log.warning(
                "a running version's approval changed",
                extra={"version": str(deployment.asset), "workspace": deployment.workspace, "complaint": complaint},
            )
        lapsed_deployments.set(sum(complaint is not None for complaint in complaints))
