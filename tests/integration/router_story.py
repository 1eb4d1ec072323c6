"""What the router's stories stand on: real models on a real model server, a real gateway process, signed approvals."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import lightgbm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.deployer.bundle import Feature, build
from services.deployer.model_server.testing import KEY, ModelServer, breast_cancer, manifest
from shared.events.base import Actor, AssetRef, Signature, Tensor
from shared.events.deployer import DeployCompleted
from shared.events.policy import ApprovalDecided, Envelope
from shared.identity import dsse
from shared.identity.identity import signing_key
from shared.ids import new_id, sha256
from shared.testing.installation import Installation, eventually

STATEMENT_TYPE = "application/vnd.mintmark.approval+json"
FEATURES = 5
GATEWAY, SHIPPER = "services.router.gateway", "services.router.gateway.shipper"
ROWS, TRUTH, NAMES = breast_cancer(FEATURES)


def asset(number: int, name: str = "tumour") -> AssetRef:
    return AssetRef(urn=f"mm:model/{name}", version=number, digest=sha256(f"{name} {number}".encode()))


def named(ref: AssetRef) -> dict[str, Any]:
    return {"urn": ref.urn, "version": ref.version}


def statement(
    installation: Installation,
    of: AssetRef,
    *,
    workspace: str = "default",
    expires_at: datetime | None = None,
    key: Ed25519PrivateKey | None = None,
) -> Envelope:
    """An approval as policy signs it."""
    said = {
        "type": "approval",
        "approval_id": str(new_id()),
        "workspace": workspace,
        "asset": of.model_dump(),
        "artefact": None,
        "binding": sha256(str(of).encode()),
        "decision": "approved",
        "approver": {"id": "user:bea", "proven": True},
        "author": {"id": "user:ada", "proven": True},
        "reason": "figures reviewed",
        "decided_at": datetime.now(UTC).isoformat(),
        "expires_at": (expires_at or datetime.now(UTC) + timedelta(days=90)).isoformat(),
    }
    signer = key or signing_key(installation.folder / "policy.pem")
    signed = dsse.sign(json.dumps(said).encode(), STATEMENT_TYPE, signer, "policy")
    return Envelope.model_validate(signed.model_dump())


def deployed(of: AssetRef, approval: Envelope, endpoint: str = "http://127.0.0.1:9") -> DeployCompleted:
    inputs = tuple(Tensor(name=name, datatype="FP64") for name in NAMES)
    return DeployCompleted(
        request_id=uuid4(),
        deployment_id=uuid4(),
        asset=of,
        target="local",
        endpoint=endpoint,
        model_name=of.name,
        bundle=sha256(b"bundle"),
        approval_id=uuid4(),
        statement=approval,
        signature=Signature(inputs=inputs),
        completed_at=datetime.now(UTC),
    )


def decided(of: AssetRef, decision: str, approval: Envelope | None = None) -> ApprovalDecided:
    return ApprovalDecided(
        approval_id=uuid4(),
        asset=of,
        decision=decision,  # type: ignore[arg-type]
        approver=Actor(id="user:bea", proven=True),
        author=Actor(id="user:ada", proven=True),
        reason="drifted",
        binding=sha256(b"binding"),
        statement=approval,
        decided_at=datetime.now(UTC),
    )


async def deploy(installation: Installation, client: httpx.AsyncClient, *versions: AssetRef, **more: Any) -> None:
    """deploy.completed for each version, and wait until the router has heard it."""
    workspace = more.pop("workspace", "default")
    for version in versions:
        approval = more.get("approval") or statement(installation, version, workspace=workspace)
        event = deployed(version, approval, more.get("endpoint", "http://127.0.0.1:9"))
        await installation.publish(event, workspace=workspace, source="mintmark/deployer")
        await deployment(client, version)


async def deployment(client: httpx.AsyncClient, version: AssetRef, objection: str | None = "") -> dict[str, Any]:
    """The router's word on a deployed version, once it is there (and has this objection)."""

    async def look() -> dict[str, Any] | None:
        items = (await client.get("/router/v1/deployments", params={"max_results": 200})).json()["items"]
        return next((one for one in items if one["asset"] == version.model_dump()), None)

    def there(found: dict[str, Any] | None) -> bool:
        return found is not None and (
            objection == ""
            or (found["objection"] or "").find(objection or "\0") >= 0
            or (objection is None and found["objection"] is None)
        )

    found = await eventually(look, there, what=f"the deployment of {version}")
    assert found is not None
    return found


@dataclass
class Traffic:
    """A real gateway process in front of a real model server."""

    installation: Installation
    server: ModelServer
    process: subprocess.Popen[bytes]
    http: httpx.AsyncClient
    log: Path
    grpc: str
    """Where the gateway serves gRPC: host:port."""
    start: Callable[[str], subprocess.Popen[bytes]]
    """Starts a module as a process of this world, ended with it."""
    boosters: dict[AssetRef, lightgbm.Booster] = field(default_factory=dict)

    def load(self, version: AssetRef, rounds: int) -> AssetRef:
        """A LightGBM model of real rows, as this version, on the model server."""
        data = lightgbm.Dataset(ROWS, TRUTH, feature_name=NAMES)
        booster = lightgbm.train(
            {"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": version.version}, data, rounds
        )
        folder = self.installation.folder / f"bundle-{version.name}-{version.version}"
        folder.mkdir()
        booster.save_model(str(folder / "model.txt"))
        described = manifest(
            version.name,
            str(version.version),
            asset_digest=version.digest,
            format="lightgbm",
            model_file="model.txt",
            task="binary",
            labels=(0, 1),
            features=[Feature(name=name, nullable=True) for name in NAMES],
        )
        answer = self.server.load(build(folder, described, {"model.txt": folder / "model.txt"}, KEY))
        assert answer.status_code == 200, answer.text
        self.boosters[version] = booster
        return version

    async def ask(self, group: str, row: int, unit: str | None = None) -> httpx.Response:
        inputs = [
            {"name": name, "datatype": "FP64", "shape": [1, 1], "data": [float(value)]}
            for name, value in zip(NAMES, ROWS[row % len(ROWS)], strict=True)
        ]
        return await self.http.post(
            f"/v2/models/{group}/infer", json={"inputs": inputs}, headers={"x-mintmark-unit": unit or f"patient-{row}"}
        )

    async def until_group(self, group: str) -> None:
        async def look() -> int:
            return (await self.http.get(f"/v2/models/{group}")).status_code

        await eventually(look, lambda status: status == 200, what=f"{group} at the gateway")


@asynccontextmanager
async def traffic(
    installation: Installation, key: str, trusted: Mapping[str, Ed25519PrivateKey] | None = None, *, ships: bool = True
) -> AsyncIterator[Traffic]:
    """Start a model server and a gateway with its shipper as `mintmark up` starts them, until the end of the block.

    The model server trusts the bundles of `trusted`, or those that `load` makes. Without `ships`, rows stay in a spool.
    """
    with socket.socket() as probe, socket.socket() as other:
        probe.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, grpc_port = probe.getsockname()[1], other.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINTMARK_")}
    environment |= {name: value for name, value in installation.environment().items() if "SIGNING" not in name}
    environment |= {"MINTMARK_GATEWAY_HOST": "127.0.0.1", "MINTMARK_GATEWAY_PORT": str(port)}
    environment["MINTMARK_GATEWAY_GRPC_PORT"] = str(grpc_port)
    environment |= {"MINTMARK_GATEWAY_FOLDER": str(installation.folder / "gateway"), "MINTMARK_SHIPPER_PORT": "0"}
    log = installation.folder / "gateway.log"
    keys = trusted or {"deployer": KEY}
    with ModelServer(installation.folder / "model-server", keys=keys) as server, log.open("ab") as output:
        processes: list[subprocess.Popen[bytes]] = []

        def start(module: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", module]
            processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            return processes[-1]

        process = start(GATEWAY)
        if ships:
            start(SHIPPER)
        headers = {"authorization": f"Bearer {key}"}
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as http:

                async def look() -> int:
                    assert process.poll() is None, log.read_text()
                    try:
                        return (await http.get("/readyz")).status_code
                    except httpx.TransportError:
                        return 0

                await eventually(look, lambda status: status == 200, what="the gateway")
                yield Traffic(installation, server, process, http, log, f"127.0.0.1:{grpc_port}", start)
        finally:
            for one in processes:
                one.send_signal(signal.SIGTERM)
                await asyncio.to_thread(one.wait, 20)


def payload(envelope: Envelope) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(envelope.payload))
    return document
