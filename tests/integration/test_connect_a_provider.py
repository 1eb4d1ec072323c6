"""What docs/how-to/connect-a-provider.md tells people to run is run, as it stands there, against real processes."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from router_story import decided, statement, traffic

from services.router.gateway.testing.recorded import GREETING, INPUT, OUTPUT
from services.router.gateway.testing.stub import Stub, served
from shared.events.base import AssetRef
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(170)
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "connect-a-provider.md"
KEY = "sk-of-the-guide-0123456789"
ROWS = "/router/v1/groups/assistant/inferences"


async def test_what_the_guide_says_answers_and_leaves_rows(installation: Installation) -> None:
    owner = installation.key("user:owner", "owner")
    await installation.make_topics()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    router = subprocess.Popen(  # noqa: ASYNC220 - starting takes a millisecond
        [sys.executable, "-m", "services", "router", "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, **installation.environment()},
    )
    headers = {"authorization": f"Bearer {owner}"}
    stub = Stub()
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client,
            served(stub) as upstream,
        ):
            await eventually(lambda: is_ready(client), bool, within_s=60, what="the router")
            async with traffic(installation, owner) as live:
                environment = {
                    "MINTMARK_URL": str(client.base_url).rstrip("/"),
                    "MINTMARK_GATEWAY_URL": str(live.http.base_url).rstrip("/"),
                    "MINTMARK_API_KEY": owner,
                    "PROVIDER_URL": f"http://127.0.0.1:{upstream}/openai-compatible/greeting",
                    "PROVIDER_KEY": KEY,
                }
                await follow(installation, client, live.http, environment)
    finally:
        router.terminate()
        await asyncio.to_thread(router.wait, 30)
    assert all(one.headers[b"authorization"] == f"Bearer {KEY}".encode() for one in stub.seen)
    assert KEY not in "".join(path.read_text() for path in (live.log, installation.folder / "gateway/snapshot.json"))


async def follow(
    installation: Installation, client: httpx.AsyncClient, gateway: httpx.AsyncClient, environment: dict[str, str]
) -> None:
    provider, group, rows = blocks("sh")
    assert '"key":{"set_at"' in await run(environment, "sh", "-ec", provider)
    for number in (2, 1):
        version = AssetRef(urn="mm:vendor-model/assistant", version=number, digest=sha256(f"{number}".encode()))
        await installation.publish(
            decided(version, "approved", statement(installation, version)), source="mintmark/policy"
        )
    await eventually(lambda: is_approved(client), bool, what="the approval")
    assert '"revision":2' in await run(environment, "sh", "-ec", group)

    async def look() -> int:
        return (await gateway.get("/v2/models/assistant/ready")).status_code

    await eventually(look, lambda status: status == 200, within_s=5, what="the group at the gateway")
    (python,) = blocks("python")
    said = await run(environment, sys.executable, "-c", python)
    assert said.count(GREETING) == 2 and "response.completed" in said, said

    async def read() -> list[dict[str, object]]:
        found: list[dict[str, object]] = (await client.get(ROWS)).json()["items"]
        return found

    found = await eventually(read, lambda items: len(items) == 3, within_s=10, what="three rows")
    assert {row["status"] for row in found} == {200}
    assert "customer-7" in await run(environment, "sh", "-ec", rows)
    streamed = [row for row in found if row["unit"] != "customer-7"]
    whole = (await client.get(f"{ROWS}/{streamed[0]['request_id']}")).json()
    assert (whole["input_tokens"], whole["output_tokens"]) == (INPUT, OUTPUT), whole
    assert whole["ttft_ms"] > 0
    assert {whole["protocol"], whole["requester"], whole["attempts"]} <= {"responses", "messages", "user:owner", 1}


async def is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def is_approved(client: httpx.AsyncClient) -> bool:
    """By a group of its own, since nothing lists approvals."""
    champion = {"urn": "mm:vendor-model/assistant", "version": 1, "upstream": {"provider": "acme", "model": "m"}}
    answer = await client.post("/router/v1/groups", json={"name": "probe", "champion": champion})
    return answer.status_code == 201


async def run(environment: dict[str, str], *command: str) -> str:
    """With nothing of Mintmark to import."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        *command, env={**kept, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
