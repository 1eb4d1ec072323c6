"""Counts rows and compares splits; ends what may be kept no longer."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.registry.datasets import overlaps, retention
from services.registry.datasets.reading import Files
from services.registry.datasets.sketches import Sketch, shared
from services.registry.datasets.store import Counted, Expired, Work
from services.registry.domain.assets import Version
from services.registry.domain.lineage import Finding
from services.registry.store import Store
from services.registry.store.leases import renewed
from shared import faults
from shared.clock import Clock
from shared.db.database import EVERY_WORKSPACE, Database, Transaction
from shared.errors import Conflict, MintmarkError, Refused
from shared.events.base import Actor, AssetRef
from shared.events.registry import AssetChanged
from shared.events.upstream import Manifest
from shared.ids import new_id

log = logging.getLogger(__name__)

LOOK_S = 1.0
LEASE_S = 60.0
WAIT_S = 2.0
MOST_TRIES = 500  # some seven hours
RETAIN_LOOK_S = 30.0
AT_ONCE = 20
REGISTRY = Actor(id="service:registry", proven=True)


class Counting:
    """Hashes the rows of new dataset versions and compares them; several processes may, by leases."""

    name = "counting"

    def __init__(self, database: Database, store: Store, files: Files, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._files = files
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                work = await self._claim()
                if work is not None:
                    await self._do(work)
                    continue
            except MintmarkError as error:
                log.warning("rows wait", extra={"service": "registry", "error": str(error)[:300]})
            await asyncio.sleep(LOOK_S)

    async def _claim(self) -> Work | None:
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            return await self._store.datasets.claim(tx, new_id(), self._clock() + timedelta(seconds=LEASE_S))

    async def _do(self, work: Work) -> None:
        async with self._database.begin(work.workspace) as tx:
            version = await self._store.versions.one(tx, work.urn, work.version)
        assert version is not None
        try:
            async with renewed(LEASE_S / 3, lambda: self._renew(work)):
                done = await (self._count(work, version) if work.what == "rows" else self._compare(work, version))
            if not done:
                await self._again(work, "its datasets' rows wait")
        except Conflict as error:  # a deadlock, say
            await self._again(work, error.message)
        except Refused as error:  # it will not become readable by trying
            await self._end(work, "failed", error.message)
        except MintmarkError as error:
            await self._again(work, error.message)

    async def _count(self, work: Work, version: Version) -> bool:
        """Each split's rows, and each pair of splits."""
        manifest = Manifest.model_validate(version.content["manifest"])
        sketches: dict[str, Sketch] = {}
        for split in dict.fromkeys(str(file.split) for file in manifest.files):
            sketches[split] = await self._files.sketch([file for file in manifest.files if file.split == split])
        digests = {split: await self._files.keep(sketch) for split, sketch in sketches.items()}
        name, now = str(version.ref), self._clock()
        findings = [
            overlaps.finding(
                version.ref,
                (name, one, sketches[one]),
                (name, other, sketches[other]),
                await asyncio.to_thread(shared, sketches[one], sketches[other]),
                now,
            )
            for one, other in overlaps.pairs(sketches)
        ]
        async with self._database.begin(work.workspace) as tx:
            await self._store.versions.claim(tx, set(digests.values()))
            if not all([await self._files.there(digest) for digest in digests.values()]):
                return False  # the same hashes of another version were removed just now
            if not await self._store.datasets.end(tx, work, "done", now):
                return True  # somebody else took it over
            for split, sketch in sketches.items():
                counted = Counted(split, sketch.rows, sketch.distinct, sketch.halvings, digests[split], now)
                await self._store.datasets.put_counted(tx, work.urn, work.version, counted)
            await self._keep(tx, version.ref, findings)
        return True

    async def _compare(self, work: Work, version: Version) -> bool:
        """What a version was trained on with what it is measured on; False while their rows are not counted."""
        training, golden = version.training.dataset, version.golden_set
        assert training is not None and golden is not None
        sides: list[dict[str, Sketch]] = []
        async with self._database.begin(work.workspace) as tx:
            states = [await self._store.datasets.work(tx, one.urn, one.version) for one in (training, golden)]
            counted = [await self._store.datasets.counted(tx, one.urn, one.version) for one in (training, golden)]
        for side, state in zip((training, golden), states, strict=True):
            if state.get("rows", ("", None))[0] == "failed":
                raise Refused(f"the rows of {side.urn}@{side.version} could not be counted: {state['rows'][1]}")
        if not all(counted):
            return False
        for splits in counted:
            if any(one.digest is None for one in splits):
                raise Refused("the hashes of the rows were erased")
            sides.append({one.split: await self._kept(one) for one in splits})
        left, right = sides
        now, findings = self._clock(), []
        for one in overlaps.learnt(left):
            for other in overlaps.measured(right):
                if (training.urn, training.version, one) == (golden.urn, golden.version, other):
                    continue
                found = await asyncio.to_thread(shared, left[one], right[other])
                sources = f"{training.urn}@{training.version}", f"{golden.urn}@{golden.version}"
                findings.append(
                    overlaps.finding(
                        version.ref, (sources[0], one, left[one]), (sources[1], other, right[other]), found, now
                    )
                )
        async with self._database.begin(work.workspace) as tx:
            if await self._store.datasets.end(tx, work, "done", now):
                await self._keep(tx, version.ref, findings)
        return True

    async def _kept(self, counted: Counted) -> Sketch:
        assert counted.digest is not None
        return await self._files.kept(counted.digest, counted.rows, counted.halvings)

    async def _keep(self, tx: Transaction, ref: AssetRef, findings: list[Finding]) -> None:
        for finding in findings:
            await self._store.graph.put(tx, finding)
        told = overlaps.told(findings)
        if told:
            worst = max(told, key=lambda one: one["shared"])
            reason = (
                f"{worst['shared']:,} rows of {worst['right']['dataset']} ({worst['right']['split']}) stand in "
                f"{worst['left']['dataset']} ({worst['left']['split']}) too"
            )
            tx.emit(
                AssetChanged(
                    urn=ref.urn,
                    change="metadata",
                    version=ref.version,
                    name="overlap",
                    after=told[:20],
                    reason=reason,
                    actor=REGISTRY,
                    at=findings[0].at,
                )
            )

    async def _again(self, work: Work, error: str) -> None:
        """Later, each time somewhat later, until it was tried for hours: the artefact store may be away so long."""
        state = "waiting" if work.attempts < MOST_TRIES else "failed"
        await self._end(work, state, error, WAIT_S * max(1, work.attempts / 10))

    async def _end(self, work: Work, state: str, error: str, wait_s: float = 0.0) -> None:
        async with self._database.begin(work.workspace) as tx:
            await self._store.datasets.end(tx, work, state, self._clock() + timedelta(seconds=wait_s), error[:500])

    async def _renew(self, work: Work) -> None:
        async with self._database.begin(work.workspace) as tx:
            await self._store.datasets.renew(tx, work, self._clock() + timedelta(seconds=LEASE_S))


class Retaining:
    """Ends dataset versions whose time is over, in two steps, so that a crash between them loses nothing.

    First a version is released: its bytes are this workspace's no longer. After a grace, in which an upload or a
    registration that had begun before may still claim them, what nobody claims is removed, and the receipt is written.
    Who claims bytes and who removes them keep out of each other's way by a lock for each digest; where somebody is
    claiming them, retention does not wait but comes back in the next round.
    """

    name = "retaining"

    def __init__(
        self,
        database: Database,
        store: Store,
        files: Files,
        clock: Clock,
        grace_s: float,
        key: Ed25519PrivateKey | None,
        look_s: float = RETAIN_LOOK_S,
    ) -> None:
        self._database = database
        self._store = store
        self._files = files
        self._clock = clock
        self._grace_s = grace_s
        self._key = key
        self._look_s = look_s

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.round()
            except MintmarkError as error:
                log.warning("retention waits", extra={"service": "registry", "error": str(error)[:300]})
            await asyncio.sleep(self._look_s)

    async def round(self) -> None:
        """Everything that is due now."""
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            expired = await self._store.datasets.expired(tx, self._clock(), AT_ONCE)
        for one in expired:
            await self._release(one)
        before = self._clock() - timedelta(seconds=self._grace_s)
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            released = await self._store.datasets.released(tx, before, AT_ONCE)
        for one in released:
            await self._erase(one)

    async def _release(self, expired: Expired) -> None:
        async with self._database.begin(expired.workspace) as tx:
            files = await self._store.datasets.bytes_of(tx, expired.urn, expired.version)
            if not await self._store.datasets.alone_with(tx, [file.digest for file in files]):
                return
            keeping = await self._store.datasets.hold(tx, expired.urn, expired.version)
            held = await self._store.datasets.last(tx, expired.urn, expired.version, "hold")
            if keeping is None or keeping.released_at is not None or (held is not None and held.holds):
                return  # another process was faster, or a hold was put on it just now
            found = await self._store.datasets.bytes_of(tx, expired.urn, expired.version)
            plan = retention.plan(found)
            await self._store.datasets.release(
                tx, expired.urn, expired.version, self._clock(), plan, [one["digest"] for one in plan["goes"]]
            )
        faults.point("worker.between")

    async def _erase(self, expired: Expired) -> None:
        async with self._database.begin(expired.workspace) as tx:
            keeping = await self._store.datasets.keeping(tx, expired.urn, expired.version)
            version = await self._store.versions.one(tx, expired.urn, expired.version)
        if keeping is None or version is None or keeping.plan is None:
            return
        digests = [one["digest"] for one in keeping.plan["goes"]]
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            sketches = await self._store.datasets.lone_sketches(tx, expired)
        left = {digest: await self._remove(digest, expired) for digest in {*digests, *sketches}}
        if None in left.values():
            return
        claimed = {digest for digest in digests if not left[digest]}
        faults.point("worker.between")
        async with self._database.begin(expired.workspace) as tx:
            await self._receipt(tx, version, keeping, claimed)

    async def _remove(self, digest: str, expired: Expired) -> bool | None:
        """Whether the bytes are gone; None where somebody is claiming them just now.

        A transaction for each, so that a slow store keeps nobody but those who want these very bytes.
        """
        async with self._database.begin(EVERY_WORKSPACE) as tx:
            if not await self._store.datasets.alone_with(tx, [digest]):
                return None
            if await self._store.datasets.rested_on(tx, digest, expired):
                return False
            await self._files.remove(digest)
            return True

    async def _receipt(self, tx: Transaction, version: Version, keeping: Any, claimed: set[str]) -> None:
        held = await self._store.datasets.hold(tx, version.ref.urn, version.ref.version)
        if held is None or held.erased_at is not None:
            return
        now = self._clock()
        manifest = Manifest.model_validate(version.content["manifest"])
        receipt = retention.receipt(tx.workspace, version.ref, manifest, keeping, claimed, now, REGISTRY, self._key)
        await self._store.datasets.erased(tx, version.ref.urn, version.ref.version, now, receipt)
        tx.emit(
            AssetChanged(
                urn=version.ref.urn,
                change="metadata",
                version=version.ref.version,
                name="retention",
                before="kept",
                after={"erased_at": now.isoformat(), "removed": len(receipt["payload"]["removed"])},
                reason=f"kept for {manifest.retention_days} days",
                actor=REGISTRY,
                at=now,
            )
        )
