"""What the deployer does when it hears something or is asked by HTTP; the work itself is the worker's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from pydantic import ValidationError

from services.deployer import domain
from services.deployer.domain import Decision
from services.deployer.errors import CarriesTraffic, NotDeployed, UnknownAsset, UnknownDeployment
from services.deployer.store import Deployment, Row, Store
from shared import strict_json
from shared.clock import Clock
from shared.db.database import Database, Transaction
from shared.errors import MintmarkError, Refused
from shared.events.base import Actor, AssetRef
from shared.events.deployer import DeployFailed, DeployProgressed
from shared.events.envelope import Envelope, Origin, Received
from shared.events.policy import ApprovalDecided, GateDecided
from shared.events.registry import AssetRegistered
from shared.events.router import GroupChanged
from shared.events.upstream import DeployRequested
from shared.identity.principal import Principal
from shared.ids import new_id


@dataclass(frozen=True, slots=True)
class Wish:
    """A deployment asked for by HTTP; what is left out is filled in."""

    urn: str
    version: int
    digest: str | None
    target: str
    parameters: dict[str, Any]
    request_id: UUID | None


@dataclass(frozen=True, slots=True)
class Account:
    """One deployment with its steps and the decision about its version that is in force now."""

    deployment: Deployment
    steps: list[Row]
    decision: Decision | None
    groups: list[str]


class Handlers:
    """`waiting` is set when there is new work; a worker that misses it finds the work by looking."""

    def __init__(
        self, database: Database, store: Store, clock: Clock, *, unverified: Literal["refuse", "allow"]
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._unverified = unverified
        self.waiting = asyncio.Event()

    async def know_asset(self, tx: Transaction, received: Received[AssetRegistered]) -> None:
        """Keep what a bundle is made of."""
        await self._store.add_asset(tx, received.event)

    async def know_gate(self, tx: Transaction, received: Received[GateDecided]) -> None:
        """Keep the verdict: a later rejection stops what an earlier approval let through."""
        await self._store.add_gate(tx, received.event)

    async def know_approval(self, tx: Transaction, received: Received[ApprovalDecided]) -> None:
        """Keep the decision with its signed statement."""
        await self._store.add_approval(tx, received.event)

    async def know_traffic(self, tx: Transaction, received: Received[GroupChanged]) -> None:
        """Keep which versions carry traffic: those are not taken away."""
        await self._store.keep_traffic(tx, received.event)

    async def requested(self, tx: Transaction, received: Received[DeployRequested]) -> None:
        """deploy.requested was heard: taken in, or refused because of who asks."""
        event = received.event
        try:
            author = domain.requester_of(event.requested_by, received.author, unverified=self._unverified)
            await self._take(tx, event, author, received.id)
        except Refused as error:
            # Whoever waits is answered by request_id, but nobody's refused event may speak for another's deployment.
            taken = await self._store.deployment_of_request(tx, event.request_id)
            tx.emit(
                DeployFailed(
                    request_id=None if taken else event.request_id, event_id=received.id, asset=event.asset,
                    target=event.target, code=error.code, reason=error.message[:4000],
                )
            )  # fmt: skip

    async def refuse_invalid(self, tx: Transaction, envelope: Envelope, origin: Origin, error: MintmarkError) -> None:
        """What came on deploy.requested and is none: answered, with as much of its name as can be read."""
        tx.emit(
            DeployFailed(
                event_id=envelope.id, asset=_asset(envelope.data), code=error.code, reason=error.message[:4000]
            )
        )

    async def _take(self, tx: Transaction, event: DeployRequested, author: Actor, event_id: str) -> Deployment:
        now = self._clock()
        deployment, new = await self._store.add(tx, event, author, event_id, now)
        if new:
            await self._store.add_step(tx, deployment.deployment_id, "requested", f"by {author.id}", now)
            tx.emit(
                DeployProgressed(
                    request_id=event.request_id, asset=event.asset, target=event.target, step="requested",
                    detail=f"by {author.id}", percent=0,
                )
            )  # fmt: skip
            self.waiting.set()
        return deployment

    async def request(self, caller: Principal, wish: Wish) -> Deployment:
        """The same by HTTP; the requester is the caller. Raises UnknownAsset, WrongDigest or RequestReused."""
        async with self._database.begin(caller.workspace) as tx:
            asset = await self._store.asset(tx, wish.urn, wish.version)
            if asset is None:
                raise UnknownAsset(f"{wish.urn}@{wish.version} is not registered in your workspace")
            wanted = AssetRef(urn=wish.urn, version=wish.version, digest=wish.digest or asset.ref.digest)
            domain.require_registered(wanted, asset)
            request_id = wish.request_id or new_id()
            event = DeployRequested(request_id=request_id, asset=wanted, target=wish.target, parameters=wish.parameters)
            return await self._take(tx, event, caller.actor, str(request_id))

    async def undeploy(self, caller: Principal, deployment_id: UUID) -> Deployment:
        """Order a deployment to be taken away. Raises UnknownDeployment, NotDeployed or CarriesTraffic."""
        async with self._database.begin(caller.workspace) as tx:
            deployment = await self._store.deployment(tx, deployment_id, lock=True)
            if deployment is None:
                raise UnknownDeployment(f"there is no deployment {deployment_id} in your workspace")
            if deployment.state in ("undeploying", "undeployed"):
                return deployment
            if deployment.state != "completed":
                raise NotDeployed(
                    f"deployment {deployment_id} is {deployment.state}; only a completed one is undeployed"
                )
            groups = await self._store.groups_of(tx, deployment.asset)
            if groups and await self._store.live(tx, deployment) is None:
                raise CarriesTraffic(f"{deployment.asset} is in group {', '.join(groups)}; take it out there first")
            await self._store.order_undeploying(tx, deployment_id, caller.actor)
            await self._store.add_step(tx, deployment_id, "undeploying", f"by {caller.id}", self._clock())
            ordered = await self._store.deployment(tx, deployment_id)
            self.waiting.set()
        assert ordered is not None
        return ordered

    async def deployments(
        self, workspace: str, urn: str | None, state: str | None, before: int, most: int
    ) -> list[Deployment]:
        """Newest first."""
        async with self._database.begin(workspace) as tx:
            return await self._store.deployments(tx, urn, state, before, most)

    async def account(self, workspace: str, deployment_id: UUID) -> Account:
        """One deployment with all that is known of it. Raises UnknownDeployment."""
        async with self._database.begin(workspace) as tx:
            deployment = await self._store.deployment(tx, deployment_id)
            if deployment is None:
                raise UnknownDeployment(f"there is no deployment {deployment_id} in your workspace")
            return Account(
                deployment,
                await self._store.steps(tx, deployment_id),
                await self._store.decision(tx, deployment.asset),
                await self._store.groups_of(tx, deployment.asset),
            )


def _asset(data: bytes) -> AssetRef | None:
    try:
        return AssetRef.model_validate(strict_json.loads(data)["asset"])
    except (MintmarkError, ValidationError, ValueError, TypeError, KeyError):
        return None
