"""gRPC of real gateway processes: several on one port, one of them killed, and all of them ended in peace."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import psutil
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.router.gateway.grpc_inference.messages import ModelInferRequest
from services.router.gateway.shipper.metrics import ShipperMetrics
from services.router.gateway.shipper.shipper import Shipper
from shared.db.database import Database
from shared.testing.installation import eventually

from .world import POLICY, Postgres, World, a_version

pytestmark = pytest.mark.timeout(120)
INFER = "/inference.GRPCInferenceService/ModelInfer"


async def test_several_processes_share_the_port_and_lose_no_call_at_their_end(
    world: World, name: str, postgres: Postgres, tmp_path: Path, keys: dict[str, str]
) -> None:
    world.stub.delay_s = 0.3
    await world.make_group(name, await world.deploy(a_version(5), "echo"))
    await world.make_group(f"{name}-s", await world.deploy(a_version(6), "slow"))
    raw = POLICY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    (tmp_path / "trust.json").write_text(json.dumps({"policy": base64.b64encode(raw).decode()}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "processes"
    environment = {
        **os.environ,
        "MINTMARK_ROUTER_DSN": postgres.dsn,
        "MINTMARK_TRUST_FILE": str(tmp_path / "trust.json"),
        "MINTMARK_KEYS_FILE": str(tmp_path / "keys.json"),
        "MINTMARK_GATEWAY_PORT": "0",
        "MINTMARK_GATEWAY_GRPC_PORT": str(port),
        "MINTMARK_GATEWAY_PROCESSES": "2",
        "MINTMARK_GATEWAY_FOLDER": str(folder),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.router.gateway", env=environment, cwd=Path(__file__).parents[3]
    )
    metadata = (("authorization", f"Bearer {keys['caller']}"),)

    async def ask(group: str, wait: bool = True) -> grpc.StatusCode:
        """On a connection of its own, so that the kernel chooses a process anew."""
        tensor = {"name": "x", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [1.0]}}
        payload = ModelInferRequest(model_name=group, inputs=[tensor]).SerializeToString()  # type: ignore[list-item]
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            try:
                await channel.unary_unary(INFER)(payload, metadata=metadata, timeout=20, wait_for_ready=wait)
            except grpc.aio.AioRpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    async def listening() -> set[int]:
        children = psutil.Process(process.pid).children()
        found = set()
        for one in children:
            try:
                connections = one.net_connections("tcp")
            except psutil.Error:
                continue
            if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
                found.add(one.pid)
        return found

    async def answered(count: int) -> None:
        """So many answers. A call that met a process before its snapshot, or a dead one, does not count."""
        done = 0
        while done < count:
            done += (await asyncio.gather(*(ask(name) for _ in range(10)))).count(grpc.StatusCode.OK)

    try:
        first = await eventually(listening, is_two, what="two processes on the port")
        await answered(40)
        os.kill(min(first), signal.SIGKILL)
        second = await eventually(listening, lambda found: is_two(found) and min(first) not in found)
        await answered(20)
        slow = [asyncio.create_task(ask(f"{name}-s")) for _ in range(6)]
        await until_asked(lambda: world.stub.seen["slow"], 6)
        process.send_signal(signal.SIGTERM)
        assert set(await asyncio.gather(*slow)) == {grpc.StatusCode.OK}
        assert await asyncio.wait_for(process.wait(), 20) == 0
        assert not any(psutil.pid_exists(pid) for pid in second)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    shipper = Shipper(folder / "spool", Database(postgres.dsn, "router"), ShipperMetrics(lambda: 0), poll_s=0.02)
    await shipper.catch_up()
    await shipper.close()
    rows = await world.rows(f"{name}-s")
    assert [(row["status"], row["protocol"]) for row in rows] == [(200, "open-inference-grpc")] * 6
    assert len(await world.rows(name)) >= 60


def is_two(found: set[int]) -> bool:
    return len(found) == 2


async def until_asked(count: Callable[[], int], wanted: int) -> None:
    async def look() -> int:
        return count()

    looked: Callable[[], Awaitable[int]] = look
    await eventually(looked, lambda found: found >= wanted, what="calls in flight")
