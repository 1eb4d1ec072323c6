"""What docs/how-to/call-a-group.md tells people to run is run, as it stands there, against real processes; and a router
that is killed in the middle of a batch leaves it to the next one."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from router_story import NAMES, ROWS, Traffic, asset, decided, deploy, named, statement, traffic

from services.router.gateway.testing.recorded import GREETING
from services.router.gateway.testing.stub import Stub, served
from shared.events.base import AssetRef
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(170)
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "call-a-group.md"
GROUPS = "/router/v1/groups"


@asynccontextmanager
async def a_router(installation: Installation, key: str, gateway: str, **more: str) -> AsyncIterator[Any]:
    """A router's process and a client of it; it may be dead at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(  # noqa: ASYNC220 - starting takes a millisecond
        [sys.executable, "-m", "services", "router", "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, **installation.environment(), "MINTMARK_ROUTER_GATEWAY_URL": gateway, **more},
    )
    headers = {"authorization": f"Bearer {key}"}
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client:
            await eventually(lambda: is_ready(client), bool, what="the router")
            yield process, client
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


async def is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def make_screening(installation: Installation, client: httpx.AsyncClient, live: Traffic) -> None:
    version = live.load(asset(1, "screening"), 5)
    await deploy(installation, client, version, endpoint=live.server.url)
    made = await client.post(GROUPS, json={"name": "screening", "champion": named(version)})
    assert made.status_code == 201, made.text
    await live.until_group("screening")


async def make_assistant(installation: Installation, client: httpx.AsyncClient, upstream: int) -> None:
    """As connect-a-provider.md says it."""
    provider = {
        "name": "acme",
        "kind": "openai-compatible",
        "base_url": f"http://127.0.0.1:{upstream}/openai-compatible/greeting",
    }
    assert (await client.post("/router/v1/providers", json=provider)).status_code == 201
    version = AssetRef(urn="mm:vendor-model/assistant", version=1, digest=sha256(b"assistant"))
    await installation.publish(decided(version, "approved", statement(installation, version)), source="mintmark/policy")
    champion = {**named(version), "upstream": {"provider": "acme", "model": "large"}}
    made = await eventually(
        lambda: client.post(GROUPS, json={"name": "assistant", "champion": champion}),
        lambda answer: answer.status_code == 201,
        what="the approval",
    )
    assert made.status_code == 201


async def test_what_the_guide_says_answers_and_leaves_rows(installation: Installation, tmp_path: Path) -> None:
    owner = installation.key("user:owner", "owner")
    await installation.make_topics()
    async with traffic(installation, owner) as live, served(Stub()) as upstream:
        gateway = str(live.http.base_url).rstrip("/")
        async with a_router(installation, owner, gateway) as (_, client):
            await make_screening(installation, client, live)
            await make_assistant(installation, client, upstream)
            await live.until_group("assistant")
            environment = {
                "MINTMARK_URL": str(client.base_url).rstrip("/"), "MINTMARK_GATEWAY_URL": gateway,
                "MINTMARK_GATEWAY_GRPC_URL": live.grpc, "MINTMARK_API_KEY": owner,
            }  # fmt: skip
            chat, over_http, over_grpc, followed = blocks("python")
            (begun,) = blocks("sh")
            assert (await run(environment, tmp_path, sys.executable, "-c", chat)).count(GREETING) == 3
            by_http = await run(environment, tmp_path, sys.executable, "-c", over_http)
            by_grpc = await run(environment, tmp_path, sys.executable, "-c", over_grpc)
            assert by_http.removeprefix("http ") == by_grpc.removeprefix("grpc ")
            assert '"state":"queued"' in await run(environment, tmp_path, "sh", "-ec", begun)
            said = await run(environment, tmp_path, sys.executable, "-c", followed)
            assert said.startswith("done 2 of 2 with 1 errors"), said
            assert GREETING in said and '"custom_id":"q-2"' in said and "field-refused" in said

            async def rows(group: str, count: int) -> list[dict[str, Any]]:
                async def look() -> list[dict[str, Any]]:
                    found: list[dict[str, Any]] = (await client.get(f"{GROUPS}/{group}/inferences")).json()["items"]
                    return found

                return await eventually(look, lambda items: len(items) == count, what=f"{count} rows")

            asked = await rows("screening", 2)
            assert {row["unit"] for row in asked} == {"patient-7"} and {row["status"] for row in asked} == {200}
            await rows("assistant", 4)  # three by hand, one by the batch, whose other row is no request


async def test_a_batch_outlives_the_router_that_began_it(installation: Installation) -> None:
    owner = installation.key("user:owner", "owner")
    await installation.make_topics()
    quick = {"MINTMARK_ROUTER_BATCH_LEASE_S": "2", "MINTMARK_ROUTER_BATCH_POLL_S": "0.1"}
    count, window = 400, 4
    async with traffic(installation, owner) as live:
        gateway = str(live.http.base_url).rstrip("/")
        async with a_router(installation, owner, gateway, **quick) as (process, client):
            await make_screening(installation, client, live)
            lines = [
                {"id": f"p{n}", **dict(zip(NAMES, map(float, ROWS[n % len(ROWS)]), strict=True))} for n in range(count)
            ]
            data = b"\n".join(map(orjson.dumps, lines))
            put = await client.put(f"/router/v1/batch-files/{sha256(data)}", content=data)
            assert put.status_code == 201, put.text
            body = {"input": sha256(data), "format": "jsonl", "shape": "features", "concurrency": window}
            begun = await client.post(f"{GROUPS}/screening/batches", json=body)
            assert begun.status_code == 202, begun.text
            path = begun.headers["location"]

            async def look() -> dict[str, Any]:
                found: dict[str, Any] = (await client.get(path)).json()
                return found

            await eventually(look, lambda job: job["recorded"] >= 20, what="the first rows")
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait, 10)
        async with a_router(installation, owner, gateway, **quick) as (_, client):
            job = await eventually(
                look_at(client, path), lambda job: job["state"] == "done", what="the end of the batch"
            )
            assert (job["total"], job["recorded"], job["failed"]) == (count, count, 0), job
            answers = (await client.get(f"/router/v1/batch-files/{job['output']}")).text.splitlines()
            assert [orjson.loads(line)["id"] for line in answers] == [line["id"] for line in lines]
            assert all(0 < orjson.loads(line)["outputs"]["probability"] < 1 for line in answers)
            twice = await surplus(client, count)
            assert 0 <= twice <= window, f"{twice} rows were asked a second time"


def look_at(client: httpx.AsyncClient, path: str) -> Any:
    async def look() -> dict[str, Any]:
        found: dict[str, Any] = (await client.get(path)).json()
        return found

    return look


async def surplus(client: httpx.AsyncClient, expected: int) -> int:
    """How many more rows the group has than the batch, once all are in."""

    async def look() -> int:
        found, token = 0, None
        while True:
            query = {"max_results": "200", **({"page_token": token} if token else {})}
            page = (await client.get(f"{GROUPS}/screening/inferences", params=query)).json()
            found, token = found + len(page["items"]), page.get("next_page_token")
            if not token:
                return found

    return await eventually(look, lambda rows: rows >= expected, what="the rows") - expected


async def run(environment: dict[str, str], folder: Path, *command: str) -> str:
    """With nothing of Mintmark to import."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**kept, **environment},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
