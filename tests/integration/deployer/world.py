"""A registered model, a deployer and a model server: what the stories about deployments are told with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

import httpx
import lightgbm
import numpy as np

from services.deployer.model_server.testing import ModelServer, breast_cancer
from services.policy import domain as policy
from services.policy.handlers.approvals import PAYLOAD_TYPE
from shared.artefacts.folder import FolderStore
from shared.events.base import Actor, Artefact, AssetRef, Signature, Tensor
from shared.events.deployer import DeployCompleted, DeployFailed
from shared.events.policy import ApprovalDecided, Envelope, GateDecided
from shared.events.registry import AssetRegistered
from shared.events.router import Arm, GroupChanged
from shared.events.upstream import DeployRequested
from shared.identity import dsse
from shared.identity.identity import signing_key
from shared.ids import canonical, digest_of, sha256
from shared.testing.installation import Installation, eventually

ADA = Actor(id="user:ada", proven=True)
BEA = Actor(id="user:bea", proven=True)
FEATURES = 5


@dataclass
class World:
    """A registered model, and what may happen to it."""

    installation: Installation
    server: ModelServer
    booster: lightgbm.Booster
    name: str = "tumour"
    key: str = ""
    asset: AssetRef = field(init=False)
    artefact: str = field(init=False)

    async def begin(self, **settings: Any) -> World:
        """Start the deployer and register version 1."""
        self.key = self.installation.key("user:rita", "release-manager")
        settings = {"model_server_url": self.server.url, "patience_s": 1, "reconcile_s": 1} | settings
        await self.installation.start("deployer", **settings)
        await self.register()
        return self

    async def register(self, version: int = 1) -> AssetRef:
        data = self.booster.model_to_string().encode()
        self.artefact = await self.store.put_bytes(data)
        self.asset = AssetRef(urn=f"mm:model/{self.name}", version=version, digest=sha256(f"{version}".encode()))
        inputs = tuple(Tensor(name=name, datatype="FP64", nullable=True) for name in breast_cancer(FEATURES)[2])
        await self.installation.publish(
            AssetRegistered(
                asset=self.asset,
                submission_id=uuid4(),
                kind="model",
                task="classification",
                artefact=Artefact(digest=self.artefact, format="lightgbm", size=len(data)),
                signature=Signature(inputs=inputs),
                licence="CC0-1.0",
                author=ADA,
                registered_at=datetime.now(UTC),
            )
        )
        return self.asset

    @property
    def store(self) -> FolderStore:
        return FolderStore(self.installation.folder / "artefacts")

    async def approve(self, *, signer: str = "policy", days: float = 30, **stated: Any) -> ApprovalDecided:
        """Policy's word on the version, signed with `signer`'s key; `stated` changes what is signed."""
        now = datetime.now(UTC)
        about: dict[str, Any] = {
            "approval_id": str(uuid4()),
            "workspace": "default",
            "asset": self.asset,
            "artefact": self.artefact,
            "bound": digest_of([self.asset.digest, self.artefact]),
            "gate_id": str(uuid4()),
            "policy": "classification",
            "policy_version": 1,
            "approver": BEA,
            "author": ADA,
            "reason": "figures reviewed",
            "decided_at": now,
            "expires_at": now + timedelta(days=days),
        } | stated
        key = signing_key(self.installation.folder / f"{signer}.pem")
        envelope = dsse.sign(canonical(policy.statement(**about)), PAYLOAD_TYPE, key, "policy")
        decided = ApprovalDecided(
            approval_id=about["approval_id"],
            asset=self.asset,
            decision="approved",
            approver=BEA,
            author=ADA,
            reason="figures reviewed",
            binding=about["bound"],
            statement=Envelope.model_validate(envelope.model_dump()),
            expires_at=about["expires_at"],
            decided_at=now,
        )
        await self.installation.publish(decided)
        await self.heard("SELECT count(*) FROM approval WHERE approval_id = $1", decided.approval_id)
        return decided

    async def heard(self, count: str, *values: Any) -> None:
        """Wait until the deployer has taken it in: topics are not ordered among each other."""

        async def found() -> int:
            async with self.installation.services["deployer"].database.begin("default") as tx:
                return int(await tx.connection.fetchval(count, *values))

        await eventually(found, bool, what=count)

    async def decide(self, approval: ApprovalDecided, decision: str) -> None:
        """Another decision about the same version, without a statement."""
        update = {"approval_id": uuid4(), "decision": decision, "statement": None, "reason": "withdrawn"}
        await self.installation.publish(approval.model_copy(update=update))
        await self.heard("SELECT count(*) FROM approval WHERE approval_id = $1", update["approval_id"])

    async def gate(self, approval: ApprovalDecided, verdict: Literal["pass", "reject"]) -> None:
        """A gate's verdict on what the approval binds to."""
        gate_id = uuid4()
        await self.installation.publish(
            GateDecided(
                gate_id=gate_id,
                asset=self.asset,
                verdict=verdict,
                reason="figures",
                policy_version=1,
                binding=approval.binding,
                decided_at=datetime.now(UTC),
            )
        )
        await self.heard("SELECT count(*) FROM gate WHERE gate_id = $1", gate_id)

    async def route(self, group: str, revision: int, *, routed: bool = True) -> None:
        """A group that routes to the version, or does so no more."""
        arms = (Arm(asset=self.asset, role="champion", weight_bp=10_000),) if routed else ()
        await self.installation.publish(
            GroupChanged(group=group, revision=revision, arms=arms, actor=ADA, at=datetime.now(UTC))
        )

    async def request(self, *, signed: bool = True, **more: Any) -> DeployRequested:
        asked = DeployRequested(**{"request_id": uuid4(), "asset": self.asset} | more)
        await self.installation.publish(asked, key=self.key if signed else None)
        return asked

    async def completed(self, asked: DeployRequested) -> DeployCompleted:
        found: DeployCompleted = await self.installation.wait_for(
            DeployCompleted, lambda event: event.request_id == asked.request_id
        )
        return found

    async def failed(self, asked: DeployRequested) -> DeployFailed:
        found: DeployFailed = await self.installation.wait_for(
            DeployFailed, lambda event: event.request_id == asked.request_id
        )
        return found

    def served(self) -> list[tuple[str, str]]:
        """(model name, version) that the model server serves now."""
        index = httpx.post(f"{self.server.url}/v2/repository/index", json={"ready": True}).json()
        return [(entry["name"], entry["version"]) for entry in index]

    def predicts(self, completed: DeployCompleted) -> None:
        """What a gateway does with the event: POST to the address that endpoint, name and version make."""
        rows = breast_cancer(FEATURES)[0][:3]
        tensor = {"name": "input", "shape": [3, FEATURES], "datatype": "FP64", "data": rows.tolist()}
        path = f"v2/models/{completed.model_name}/versions/{completed.asset.version}/infer"
        answer = httpx.post(f"{completed.endpoint}/{path}", json={"inputs": [tensor]})
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["outputs"][0]["data"], self.booster.predict(rows))
