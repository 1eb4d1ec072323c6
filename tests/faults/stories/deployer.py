"""The deployer: approved versions onto a real model server, by event and by HTTP; every step of each is said once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import lightgbm

from services.deployer.model_server.testing import ModelServer, breast_cancer
from services.policy import domain as policy
from services.policy.handlers.approvals import PAYLOAD_TYPE
from shared.artefacts import open_store
from shared.events.base import Actor, Artefact, AssetRef, Signature, Tensor
from shared.events.deployer import DeployCompleted, DeployFailed, DeployProgressed
from shared.events.policy import ApprovalDecided, Envelope
from shared.events.registry import AssetRegistered
from shared.events.upstream import DeployRequested
from shared.identity import dsse
from shared.identity.identity import signing_key
from shared.ids import canonical, digest_of, sha256
from tests.faults.stories.base import ADA, AT, INBOX, NAMES, RELAY, Story, once_each

BEA = Actor(id="user:bea", proven=True)
FEATURES = 3
STEPS = ("requested", "approved", "bundled", "loaded", "completed")


class DeployerStory(Story):
    service = "deployer"
    points = (*INBOX, *RELAY, "http.committed", "worker.claimed", "worker.between")
    inputs = 6
    pause_s = 1.5
    deepest = 5

    async def prepare(self) -> None:
        installation = self.world.installation
        self.requested: list[UUID] = []
        self.served: set[tuple[str, str]] = set()
        rows, target, self.names = breast_cancer(FEATURES)
        parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1}
        booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target, feature_name=self.names), 2)
        self.model = booster.model_to_string().encode()
        await open_store(installation.platform()).put_bytes(self.model)
        keys = {"deployer": signing_key(installation.folder / "deployer.pem")}
        self.server = ModelServer(installation.folder / "model-server", keys=keys)
        await asyncio.to_thread(self.server.__enter__)
        self.world.environment["MINTMARK_DEPLOYER_MODEL_SERVER_URL"] = self.server.url
        self.world.environment["MINTMARK_DEPLOYER_PATIENCE_S"] = "25"  # its own news comes late after a crash

    async def close(self) -> None:
        if self.server.process is not None:
            await asyncio.to_thread(self.server.stop)

    async def step(self, number: int) -> None:
        """A version with its approval and the wish to have it; every third wish comes by HTTP."""
        name, version = f"model-{number % NAMES}", number // NAMES + 1
        asset = AssetRef(urn=f"mm:model/{name}", version=version, digest=sha256(b"%d" % number))
        self.served.add((f"default.{name}", str(version)))
        await self.publish(
            AssetRegistered(
                asset=asset,
                submission_id=uuid4(),
                kind="model",
                task="classification",
                artefact=Artefact(digest=sha256(self.model), format="lightgbm", size=len(self.model)),
                signature=Signature(inputs=tuple(Tensor(name=n, datatype="FP64", nullable=True) for n in self.names)),
                author=ADA,
                registered_at=AT,
            )
        )
        await self.publish(self.approval(asset))
        request_id = uuid4()
        self.requested.append(request_id)
        if number % 3 == 2:
            body = {"asset": {"urn": asset.urn, "version": version}, "request_id": str(request_id)}
            self.world.beside(self.world.post("/deployer/v1/deployments", body, until=("unknown-asset",)))
        else:
            await self.publish(DeployRequested(request_id=request_id, asset=asset), signed=True)

    def approval(self, asset: AssetRef) -> ApprovalDecided:
        """As policy signs it."""
        now, approval_id, artefact = datetime.now(UTC), uuid4(), sha256(self.model)
        binding = digest_of([asset.digest, artefact])
        said = policy.statement(
            approval_id=str(approval_id),
            workspace="default",
            asset=asset,
            artefact=artefact,
            bound=binding,
            gate_id=str(uuid4()),
            policy="classification",
            policy_version=1,
            approver=BEA,
            author=ADA,
            reason="figures reviewed",
            decided_at=now,
            expires_at=now + timedelta(days=30),
        )
        key = signing_key(self.world.installation.folder / "policy.pem")
        signed = dsse.sign(canonical(said), PAYLOAD_TYPE, key, "policy")
        return ApprovalDecided(
            approval_id=approval_id,
            asset=asset,
            decision="approved",
            approver=BEA,
            author=ADA,
            reason="figures reviewed",
            binding=binding,
            statement=Envelope.model_validate(signed.model_dump()),
            expires_at=now + timedelta(days=30),
            decided_at=now,
        )

    async def complaints(self) -> list[str]:
        tape = self.world.tape
        found = [f"failed: {event.code} {event.reason}" for event in tape.once(DeployFailed)]
        found += once_each("deploy.completed", self.requested, (e.request_id for e in tape.once(DeployCompleted)))
        wanted = (f"{request_id} {step}" for request_id in self.requested for step in STEPS)
        progress = tape.once(DeployProgressed)
        found += once_each("deploy.progressed", wanted, (f"{e.request_id} {e.step}" for e in progress))
        rows = await self.world.rows("SELECT request_id, state FROM deployment")
        found += once_each("deployment", self.requested, (row["request_id"] for row in rows))
        async with httpx.AsyncClient(base_url=self.server.url) as http:
            index = (await http.post("/v2/repository/index", json={"ready": True})).json()
        return found + once_each("served", self.served, ((one["name"], one["version"]) for one in index))
