"""What the gateway's tests stand on: a gateway of their own, a stub behind it, and groups made as the router does."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.local.cluster import PostgresCluster
from services.router.domain import Group, Hosted, Version, configure, log_table
from services.router.gateway.app import Gateway
from services.router.gateway.approvals import APPROVAL_MEDIA_TYPE
from services.router.gateway.sealing import Belonging, FileMasterKey, Sealer, Secret
from services.router.gateway.settings import GatewaySettings
from services.router.gateway.shipper.metrics import ShipperMetrics
from services.router.gateway.shipper.shipper import Shipper
from services.router.group_settings import SECTIONS
from shared.db.database import Database
from shared.identity.dsse import sign
from shared.identity.identity import Identity
from shared.ids import new_id
from shared.settings import PlatformSettings
from shared.testing.installation import eventually

from .stub import StubServer

POLICY = Ed25519PrivateKey.generate()
STRANGER = Ed25519PrivateKey.generate()
SIGNATURE = orjson.dumps({"inputs": [{"name": "AGEP"}, {"name": "MAR"}]}).decode()
WITHIN_S = 30.0
BODY = {"id": "person-1", "inputs": [{"name": "AGEP", "datatype": "FP64", "shape": [1, 1], "data": [42.0]}]}


@dataclass
class Postgres:
    cluster: PostgresCluster
    dsn: str

    async def restart(self) -> None:
        await asyncio.to_thread(self.cluster.start)


@dataclass
class World:
    """One gateway in front of one stub, and the database behind both."""

    db: asyncpg.Connection
    stub: StubServer
    gateway: Gateway
    http: httpx.AsyncClient
    shipper: Shipper
    master_key: Path
    groups: dict[str, Group] = field(default_factory=dict)

    async def deploy(
        self,
        version: Version,
        model: str = "good",
        *,
        signer: Ed25519PrivateKey = POLICY,
        approved: Version | None = None,
        workspace: str = "default",
        approved_in: str | None = None,
        endpoint: str | None = None,
    ) -> Version:
        """Put a version behind the stub's `model`, with an approval of `approved` (itself) signed by `signer`."""
        await self.db.execute(
            "INSERT INTO served_version (workspace, urn, version, digest, deployment_id, target, endpoint, model_name, "
            "statement, signature, completed_at) VALUES ($1, $2, $3, $4, $5, 'local', $6, $7, $8, $9, now())",
            workspace, version.urn, version.version, version.digest, new_id(), endpoint or self.stub.url, model,
            approval(approved or version, signer, approved_in or workspace), SIGNATURE,
        )  # fmt: skip
        return version

    async def provide(
        self, name: str, configuration: dict[str, Any], key: str | None, *, workspace: str = "default"
    ) -> None:
        """A provider, or another key for one, as the router stores both."""
        sealed = None
        if key is not None:
            sealed = Sealer(FileMasterKey(self.master_key)).seal(Secret(key), Belonging(workspace, name)).to_json()
        await self.db.execute(
            "INSERT INTO provider (workspace, name, configuration, created_at, changed_at, changed_by, sealed, "
            "key_set_at, key_set_by) VALUES ($1, $2, $3, now(), now(), 'user:otto', $4, $5, $6) "
            "ON CONFLICT (workspace, name) DO UPDATE SET sealed = excluded.sealed, "
            "configuration = excluded.configuration, stamp = clock_timestamp()",
            workspace, name, orjson.dumps(configuration).decode(), sealed,
            datetime.now(UTC) if sealed else None, "user:otto" if sealed else None,
        )  # fmt: skip

    async def make_group(
        self, name: str, champion: Version, *, workspace: str = "default", hosted: tuple[Hosted, ...] = ()
    ) -> Group:
        group = Group(name, workspace, 1, champion, hosted=hosted)
        async with self.db.transaction():
            await self.db.execute(
                "INSERT INTO model_group (workspace, name, log_table, revision, created_at) "
                "VALUES ($1, $2, $3, 1, now())",
                workspace, name, log_table(name),
            )  # fmt: skip
            await self._append(group, "created")
            await self.db.execute("SELECT create_inference_log($1, $2)", name, workspace)
        await self.until_served(group)
        return group

    async def move(self, group: Group, change: str) -> Group:
        async with self.db.transaction():
            swapped = await self.db.fetchval(
                "UPDATE model_group SET revision = $2 WHERE name = $1 AND revision = $2 - 1 RETURNING revision",
                group.name, group.revision,
            )  # fmt: skip
            assert swapped == group.revision
            await self._append(group, change)
        return group

    async def _append(self, group: Group, change: str) -> None:
        challengers = [
            {
                "urn": c.version.urn,
                "version": c.version.version,
                "digest": c.version.digest,
                "buckets": c.buckets.ranges,
            }
            for c in group.challengers
        ]
        await self.db.execute(
            "INSERT INTO group_revision (workspace, group_name, revision, change, champion_urn, champion_version, "
            "champion_digest, challengers, hosted, shadows, who, why, at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'user:ada', 'test', now())",
            group.workspace, group.name, group.revision, change, group.champion.urn, group.champion.version,
            group.champion.digest, orjson.dumps(challengers).decode(),
            orjson.dumps([_host(one) for one in group.hosted]).decode(),
            orjson.dumps([{**asdict(one.version), "share_bp": one.share_bp} for one in group.shadows]).decode(),
        )  # fmt: skip

    async def configure(self, group: Group, section: str, value: dict[str, Any]) -> Group:
        """Put a section of the group's settings in force."""
        moved = configure(group, expected_revision=group.revision)
        checked = SECTIONS[section].model_validate(value).model_dump(mode="json", exclude_defaults=True)
        async with self.db.transaction():
            await self.db.execute(
                "INSERT INTO group_setting (workspace, group_name, section, revision, value, who, why, at) "
                "VALUES ($1, $2, $3, $4, $5, 'user:ada', 'test', now())",
                group.workspace, group.name, section, moved.revision, orjson.dumps(checked).decode(),
            )  # fmt: skip
            await self.move(moved, "configured")
        await self.until_served(moved)
        return moved

    async def until_served(self, group: Group) -> None:
        async with asyncio.timeout(WITHIN_S):
            while True:
                route = self.gateway.snapshot.routes.get(group.name) if self.gateway.snapshot else None
                if route is not None and route.group.revision == group.revision:
                    return
                await asyncio.sleep(0.005)

    async def infer(self, group: str, body: Any = BODY, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self.http.post(
            f"/v2/models/{group}/infer", content=content, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    async def rows(self, group: str) -> list[asyncpg.Record]:
        """The group's rows, after everything that is spooled was shipped."""
        await self.shipper.catch_up()
        return await self.db.fetch(f"SELECT * FROM {log_table(group)} ORDER BY request_id")


def _host(one: Hosted) -> dict[str, Any]:
    return {**asdict(one.version), "provider": one.provider, "model": one.model, "statement": one.statement}


def hosted(version: Version, provider: str, model: str = "upstream-model", **more: Any) -> Hosted:
    """The version as a provider answers for it, with an approval of it (of `approved`, signed by `signer`)."""
    signed = approval(more.get("approved", version), more.get("signer", POLICY))
    return Hosted(version, provider, model, signed)


def a_version(number: int, name: str | None = None) -> Version:
    return Version(f"mm:model/{name or 'employment-' + new_id().hex[-12:]}", number, f"sha256:{number:064x}")


def approval(version: Version, signer: Ed25519PrivateKey, workspace: str = "default") -> str:
    statement = {
        "type": "approval",
        "workspace": workspace,
        "asset": {"urn": version.urn, "version": version.version, "digest": version.digest},
        "decision": "approved",
    }
    return sign(orjson.dumps(statement), APPROVAL_MEDIA_TYPE, signer, "policy").to_json().decode()


@asynccontextmanager
async def a_world(
    postgres: Postgres, db: asyncpg.Connection, stub: StubServer, keys: dict[str, str], folder: Path, **changes: Any
) -> AsyncIterator[World]:
    master_key = folder / "master-key.json"
    master_key.write_bytes(orjson.dumps({"current": "1", "keys": {"1": b64encode(os.urandom(32)).decode()}}))
    settings = GatewaySettings(
        dsn=postgres.dsn, platform=PlatformSettings(keys_file=folder / "keys.json"), port=0, grpc_port=0, drain_s=5,
        folder=folder / "gateway", master_key_file=master_key, provider_networks="127.0.0.1", **changes
    )  # fmt: skip
    gateway = Gateway(settings, Identity(settings), {"policy": POLICY.public_key()})
    port = await gateway.start()
    shipper = Shipper(settings.spool_folder, Database(postgres.dsn, "router"), ShipperMetrics(lambda: 0), poll_s=0.02)
    headers = {"authorization": f"Bearer {keys['caller']}"}
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=WITHIN_S) as http:
            await eventually(lambda: http.get("/readyz"), lambda answer: answer.status_code == 200)
            yield World(db, stub, gateway, http, shipper, master_key)
    finally:
        await gateway.stop()
        await shipper.close()
