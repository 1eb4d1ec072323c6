"""One claimed deployment, step by step: verify, bundle, load, look, complete. Each step is kept before the next begins.

The approval is verified from its signature whenever anything is put onto a target, the first time and every time after;
no state that is kept here stands in for it. A step that is done again after a crash does the same again.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from services.deployer import domain, packing
from services.deployer.bundle import Bundle, BundleRefused, open_verified
from services.deployer.domain import Approval, Asset
from services.deployer.errors import (
    ArtefactDamaged,
    ArtefactMissing,
    LeaseLost,
    NoDecision,
    TargetFailed,
    UnknownAsset,
    UnknownTarget,
)
from services.deployer.settings import Settings
from services.deployer.store import Deployment, Store
from services.deployer.targets import Endpoint, State, Target, TargetUnavailable
from shared import faults
from shared.artefacts import ArtefactStore
from shared.bus.continuing import continuing
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import MintmarkError, Refused, Unavailable
from shared.events.base import Actor, Json
from shared.events.deployer import DeployCompleted, DeployFailed, DeployProgressed, DeployWithdrawn

log = logging.getLogger(__name__)

PERCENT: Final = {"approved": 20, "bundled": 50, "loaded": 80, "completed": 100, "restored": 100, "undeployed": 100}
STOOD: Final = ("restoring", "undeploying")
"""States of a deployment that had completed: others go by its deploy.completed."""
NEWS_WAIT_S: Final = 0.25
"""How soon a request that waits for news of its version looks again."""


class Rollout:
    """`trusted` holds policy's key alone; `key` signs bundles as `deployer`."""

    def __init__(
        self,
        database: Database,
        store: Store,
        artefacts: ArtefactStore,
        clock: Clock,
        key: Ed25519PrivateKey,
        trusted: Mapping[str, Ed25519PublicKey],
        settings: Settings,
    ) -> None:
        self._database = database
        self._store = store
        self._artefacts = artefacts
        self._clock = clock
        self._key = key
        self._own = {"deployer": key.public_key()}
        self._trusted = trusted
        self._settings = settings

    async def carry_out(self, job: Deployment, targets: Mapping[str, Target]) -> None:
        """Do what the job's state asks for, to its end or to the next try. Raises only what is no news of the job."""
        with continuing(f"deployment {job.state}", job.row):
            try:
                await self._carry_out(job, targets)
            except LeaseLost:
                log.warning("another worker goes on", extra={"deployment": str(job.deployment_id)})

    async def _carry_out(self, job: Deployment, targets: Mapping[str, Target]) -> None:
        try:
            target = targets.get(job.target)
            if target is None:
                raise UnknownTarget(f"there is no target {job.target!r} here; there is {', '.join(sorted(targets))}")
            if job.state == "undeploying":
                await self._undeploy(job, target)
            elif job.state == "restoring":
                await self._restore(job, target)
            else:
                await self._deploy(job, target)
        except (UnknownAsset, NoDecision) as error:
            await self._wait_for_news(job, error)
        except Refused as error:
            await self._fail(job, error, targets.get(job.target))
        except LeaseLost:
            raise
        except Exception as error:
            await self._try_again(job, error, targets.get(job.target))

    # the road

    async def _deploy(self, job: Deployment, target: Target) -> None:
        asset, approval = await self._verified(job)
        if job.state == "requested":
            detail = f"by {approval.statement.approver.id}, approval {approval.statement.approval_id}"
            await self._advance(job, "approved", detail, approval)
        with tempfile.TemporaryDirectory(prefix="mintmark-deploy-") as folder:
            async with self._database.begin(job.workspace) as tx:
                live = await self._store.live(tx, job)
            bundle = await self._bundle(job, live, asset, approval, Path(folder))
            name, number = bundle.manifest.model_name, bundle.manifest.version
            if job.state in ("requested", "approved") or job.bundle != bundle.digest:
                detail = f"{bundle.digest}, {bundle.size} bytes"
                await self._advance(job, "bundled", detail, approval, bundle=bundle.digest, model_name=name)
            if live is None and (await target.status(name, number)).state is not State.ABSENT:
                await target.undeploy(name, number)  # a try before this one got that far
            endpoint = await target.deploy(bundle)
            guardrails = await asyncio.to_thread(packing.guardrails_of, bundle)
        base = base_url(endpoint)
        if job.state != "loaded":
            await self._advance(job, "loaded", endpoint.url, approval, endpoint=base)
        await self._look(target, bundle, asset)
        await self._complete(job, asset, approval, bundle, base, guardrails)

    async def _verified(self, job: Deployment) -> tuple[Asset, Approval]:
        """The version and the approval that lets it through, each verified now."""
        async with self._database.begin(job.workspace) as tx:
            asset = domain.require_registered(job.asset, await self._store.asset(tx, job.asset.urn, job.asset.version))
            decision = await self._store.decision(tx, job.asset)
            approval = domain.require_approved(asset, job.workspace, decision, self._trusted, self._clock())
            domain.require_not_rejected(asset, await self._store.verdict(tx, job.asset, approval.statement.binding))
        return asset, approval

    async def _bundle(
        self, job: Deployment, live: Deployment | None, asset: Asset, approval: Approval, folder: Path
    ) -> Bundle:
        """The bundle that stands already, or the one of the try before this, or a new one; in the store in any case."""
        kept = live.bundle if live else job.bundle if job.approval_id == approval.statement.approval_id else None
        if kept is not None:
            with suppress(ArtefactMissing, ArtefactDamaged):
                return await self._kept(kept, asset, folder)
        if asset.artefact is None:
            raise ArtefactMissing(f"{asset.ref} has no artefact")
        model = await packing.fetch(self._artefacts, asset.artefact.digest, folder / "model")
        made = await asyncio.to_thread(packing.pack, folder, asset, approval, job.workspace, model, self._key)
        await self._artefacts.put(packing.chunks(made.path), made.digest)
        return made

    async def _kept(self, digest: str, asset: Asset, folder: Path) -> Bundle:
        """A bundle from the store, its signature and every byte verified."""
        path = await packing.fetch(self._artefacts, digest, folder / "bundle.tar")
        bundle = await asyncio.to_thread(open_verified, path, self._own)
        if bundle.digest != digest or bundle.manifest.asset_digest != asset.ref.digest:
            raise BundleRefused(f"{digest} is not the bundle of {asset.ref}")
        return bundle

    async def _look(self, target: Target, bundle: Bundle, asset: Asset) -> None:
        """Believe the target only when it is ready and describes this very bundle. Raises TargetFailed."""
        name, number = bundle.manifest.model_name, bundle.manifest.version
        status = await target.status(name, number)
        if status.state is not State.READY:
            raise TargetFailed(f"{asset.ref} was loaded, but is {status.state}: {status.reason or 'no reason given'}")
        said = (await target.metadata(name, number)).get("parameters") or {}
        if (said.get("bundle"), said.get("asset_digest")) != (bundle.digest, asset.ref.digest):
            raise TargetFailed(f"the target serves {said.get('asset_digest')} as {asset.ref}, not {asset.ref.digest}")

    async def _complete(
        self, job: Deployment, asset: Asset, approval: Approval, bundle: Bundle, base: str, guardrails: tuple[Json, ...]
    ) -> None:
        """It answers: say so, with everything that a gateway needs to verify it for itself."""
        now = self._clock()
        async with self._database.begin(job.workspace) as tx:
            await self._store.finish(tx, job, "completed", now)
            await self._store.add_step(tx, job.deployment_id, "completed", f"answers at {base}", now)
            tx.emit(self._progress(job, "completed", f"answers at {base}"))
            tx.emit(
                DeployCompleted(
                    request_id=job.request_id, deployment_id=job.deployment_id, asset=asset.ref, target=job.target,
                    endpoint=base, model_name=bundle.manifest.model_name, bundle=bundle.digest,
                    approval_id=approval.statement.approval_id, statement=approval.envelope,
                    signature=packing.signature_of(asset, bundle.manifest), guardrails=guardrails, completed_at=now,
                )
            )  # fmt: skip

    # what comes after

    async def _restore(self, job: Deployment, target: Target) -> None:
        """Put back what the target has lost, if it is still approved; an address that changed is news."""
        asset, approval = await self._verified(job)
        with tempfile.TemporaryDirectory(prefix="mintmark-deploy-") as folder:
            bundle = await self._kept(job.bundle or "", asset, Path(folder))
            base = base_url(await target.deploy(bundle))
            guardrails = await asyncio.to_thread(packing.guardrails_of, bundle)
        await self._look(target, bundle, asset)
        if base != job.endpoint:
            async with self._database.begin(job.workspace) as tx:
                await self._store.advance(tx, job, "restoring", endpoint=base)
            await self._complete(job, asset, approval, bundle, base, guardrails)
            return
        now = self._clock()
        async with self._database.begin(job.workspace) as tx:
            await self._store.finish(tx, job, "completed", now)
            await self._store.add_step(tx, job.deployment_id, "restored", f"the target had lost {bundle.digest}", now)
            tx.emit(self._progress(job, "restored", "the target had lost it"))

    async def _undeploy(self, job: Deployment, target: Target) -> None:
        """Take it from the target, unless a group has begun to route to it or another deployment needs it."""
        async with self._database.begin(job.workspace) as tx:
            live = await self._store.live(tx, job)
            groups = await self._store.groups_of(tx, job.asset) if live is None else []
            if groups:
                now = self._clock()
                await self._store.finish(tx, job, "completed", now)
                detail = f"not taken away: group {', '.join(groups)} routes to it"
                await self._store.add_step(tx, job.deployment_id, "kept", detail, now)
                return
        if live is None and job.model_name is not None:
            await target.undeploy(job.model_name, str(job.asset.version))
        now = self._clock()
        async with self._database.begin(job.workspace) as tx:
            await self._store.finish(tx, job, "undeployed", now)
            await self._store.add_step(tx, job.deployment_id, "undeployed", f"from {job.target}", now)
            tx.emit(self._progress(job, "undeployed", f"from {job.target}"))
            if live is None:
                actor = job.withdrawn_by or domain.SERVICE
                tx.emit(_withdrawn(job, "undeployed", f"undeployed by {actor.id}", actor, now))

    # when it does not go on

    async def _wait_for_news(self, job: Deployment, error: Refused) -> None:
        """The version or its approval may be on its way here still, on another topic than the request."""
        waited = (self._clock() - job.requested_at).total_seconds()
        if waited >= self._settings.patience_s or job.state != "requested":
            await self._fail(job, error, None)
            return
        async with self._database.begin(job.workspace) as tx:
            await self._store.postpone(tx, job, job.tries, NEWS_WAIT_S, error.code, error.message)

    async def _try_again(self, job: Deployment, error: Exception, target: Target | None) -> None:
        """Later, if there are tries left. What stands already is tried for ever: its target may come back any time."""
        known = isinstance(error, Unavailable)
        if not known:
            log.error("a deployment failed and is tried again", exc_info=error, extra={"request": str(job.request_id)})
        tries = job.tries + 1
        for_ever = known and job.state in ("restoring", "undeploying")
        if tries >= self._settings.most_tries and not for_ever:
            await self._fail(job, error, target)
            return
        code = error.code if isinstance(error, MintmarkError) else "internal"
        async with self._database.begin(job.workspace) as tx:
            await self._store.postpone(tx, job, tries, domain.wait_s(tries), code, str(error))

    async def _fail(self, job: Deployment, error: Exception, target: Target | None) -> None:
        """The end, said with its reason; nothing of it stays on the target."""
        if target is not None:
            await self._clear(job, target)
        code = error.code if isinstance(error, MintmarkError) else "internal"
        reason = str(error) if isinstance(error, MintmarkError) else "the deployer failed; its log says why"
        now = self._clock()
        async with self._database.begin(job.workspace) as tx:
            await self._store.finish(tx, job, "failed", now, code=code, reason=reason[:4000])
            await self._store.add_step(tx, job.deployment_id, "failed", f"{code}: {reason}"[:4000], now)
            tx.emit(
                DeployFailed(
                    request_id=job.request_id, event_id=job.event_id, asset=job.asset, target=job.target, code=code,
                    reason=reason[:4000],
                )
            )  # fmt: skip
            if job.state in STOOD and await self._store.live(tx, job) is None:
                tx.emit(_withdrawn(job, code, reason[:4000], domain.SERVICE, now))

    async def _clear(self, job: Deployment, target: Target) -> None:
        async with self._database.begin(job.workspace) as tx:
            kept = await self._store.deployment(tx, job.deployment_id)
            live = await self._store.live(tx, job)
        if live is not None or kept is None or kept.model_name is None:
            return
        try:
            await target.undeploy(kept.model_name, str(job.asset.version))
        except (TargetUnavailable, Refused) as error:  # reconciling takes it away once the target answers
            log.warning("a failed deployment is not cleared yet", extra={"reason": str(error)})

    async def _advance(
        self,
        job: Deployment,
        state: str,
        detail: str,
        approval: Approval,
        *,
        bundle: str | None = None,
        model_name: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        """Keep the step, and say it. Raises LeaseLost."""
        async with self._database.begin(job.workspace) as tx:
            await self._store.advance(
                tx, job, state, approval_id=approval.statement.approval_id, bundle=bundle, model_name=model_name,
                endpoint=endpoint,
            )  # fmt: skip
            await self._store.add_step(tx, job.deployment_id, state, detail, self._clock())
            tx.emit(self._progress(job, state, detail))
        faults.point("worker.between")

    def _progress(self, job: Deployment, step: str, detail: str) -> DeployProgressed:
        return DeployProgressed(
            request_id=job.request_id, asset=job.asset, target=job.target, step=step, detail=detail,
            percent=PERCENT[step],
        )  # fmt: skip


def _withdrawn(job: Deployment, code: str, reason: str, actor: Actor, at: datetime) -> DeployWithdrawn:
    return DeployWithdrawn(
        request_id=job.request_id, deployment_id=job.deployment_id, asset=job.asset, target=job.target,
        endpoint=job.endpoint or "", code=code, reason=reason, actor=actor, withdrawn_at=at,
    )  # fmt: skip


def base_url(endpoint: Endpoint) -> str:
    """The base URL of the Open Inference Protocol, of which `endpoint.url` is the one path that infers."""
    suffix = f"/v2/models/{endpoint.model_name}/versions/{endpoint.version}/infer"
    if not endpoint.url.endswith(suffix):
        raise TargetFailed(f"the target answers at {endpoint.url[:200]}, which is no path of the protocol")
    return endpoint.url.removesuffix(suffix)
