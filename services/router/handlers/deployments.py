"""Which versions answer where, and whether traffic may be moved to them: read models of what others say."""

from __future__ import annotations

import logging

from services.router.approval import Deployed, evidence, is_proven
from services.router.domain import Version
from services.router.errors import NotApproved
from services.router.gateway.approvals import TrustedKeys
from services.router.handlers.groups import By, Groups
from services.router.store import Store
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import Early
from shared.events.deployer import DeployCompleted, DeployWithdrawn
from shared.events.envelope import Received
from shared.events.policy import ApprovalDecided, ClassificationChanged

log = logging.getLogger(__name__)


class Deployments:
    """`trusted` holds only the keys that may sign approvals."""

    def __init__(self, database: Database, store: Store, groups: Groups, trusted: TrustedKeys, clock: Clock) -> None:
        self._database = database
        self._groups = groups
        self._store = store
        self._trusted = trusted
        self._clock = clock

    async def completed(self, tx: Transaction, received: Received[DeployCompleted]) -> None:
        """The version answers from here on. Without a statement that verifies it is kept, but gets no traffic."""
        event = received.event
        version = Version(event.asset.urn, event.asset.version, event.asset.digest)
        statement = event.statement.model_dump(mode="json", by_alias=True)
        proven = is_proven(statement, version, tx.workspace, self._trusted)
        if not proven:
            log.error("a deployment's approval does not verify", extra={"version": str(version), "event": received.id})
        deployed = Deployed(version, event.target, event.endpoint, event.model_name, statement, event.completed_at)
        await self._store.keep_deployment(
            tx,
            deployed,
            event.deployment_id,
            event.signature.model_dump(mode="json"),
            list(event.guardrails),
            proven=proven,
        )

    async def withdrawn(self, tx: Transaction, received: Received[DeployWithdrawn]) -> None:
        """The version answers no longer: a challenger leaves its groups, a champion is said to be unavailable.

        Who serves instead of a champion is for people to decide. Raises Early while its deployment was not heard of.
        """
        event = received.event
        version = Version(event.asset.urn, event.asset.version, event.asset.digest)
        if not await self._store.knows_version(tx, version):
            raise Early(f"{version} is withdrawn, but its deployment was not heard of yet")
        if await self._store.withdraw(tx, version, event.deployment_id, event.target, event.withdrawn_at, event.reason):
            reason = f"{version} was withdrawn: {event.reason}"[:4000]
            await self._groups.take_out(tx, By(tx.workspace, event.actor, reason), version)

    async def decided(self, tx: Transaction, received: Received[ApprovalDecided]) -> None:
        """A rejection bars the version from promotion; a new approval lets it in again. Running traffic goes on."""
        event = received.event
        version = Version(event.asset.urn, event.asset.version, event.asset.digest)
        statement = event.statement.model_dump(mode="json", by_alias=True) if event.statement else None
        await self._store.keep_decision(tx, version, event.decision, event.reason, statement, event.decided_at)

    async def classified(self, tx: Transaction, received: Received[ClassificationChanged]) -> None:
        """Who may call the asset, and for how much a month, is decided by its classes at every gateway within 1 s."""
        await self._store.classify(tx, received.event)

    async def listed(self, workspace: str, after: tuple[str, int], most: int) -> list[tuple[Deployed, str | None]]:
        """Versions that answer, each with the reason why no traffic may be moved to it, or None."""
        async with self._database.begin(workspace) as tx:
            found = await self._store.deployments(tx, after, most)
        return [(deployed, self._objection(deployed, workspace)) for deployed in found]

    def _objection(self, deployed: Deployed, workspace: str) -> str | None:
        try:
            evidence(deployed, workspace, self._trusted, self._clock())
        except NotApproved as refused:
            return refused.message
        return None
