"""What docs/how-to/connect-a-provider.md tells people to run is run, as it stands there, against real processes."""

from __future__ import annotations

import sys

import httpx
import pytest
from guide import blocks, router_process, run
from router_story import decided, statement, traffic

from services.router.gateway.testing.recorded import GREETING, INPUT, OUTPUT
from services.router.gateway.testing.stub import Stub, served
from shared.events.base import AssetRef
from shared.ids import sha256
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(170)
GUIDE = "connect-a-provider.md"
KEY = "sk-of-the-guide-0123456789"
ROWS = "/router/v1/groups/assistant/inferences"


async def test_what_the_guide_says_answers_and_leaves_rows(installation: Installation) -> None:
    owner = installation.key("user:owner", "owner")
    stub = Stub()
    async with (
        router_process(installation, owner) as client,
        served(stub) as upstream,
        traffic(installation, owner) as live,
    ):
        environment = {
            "MINTMARK_URL": str(client.base_url).rstrip("/"),
            "MINTMARK_GATEWAY_URL": str(live.http.base_url).rstrip("/"),
            "MINTMARK_API_KEY": owner,
            "PROVIDER_URL": f"http://127.0.0.1:{upstream}/openai-compatible/greeting",
            "PROVIDER_KEY": KEY,
        }
        await follow(installation, client, live.http, environment)
    assert all(one.headers[b"authorization"] == f"Bearer {KEY}".encode() for one in stub.seen)
    assert KEY not in "".join(path.read_text() for path in (live.log, installation.folder / "gateway/snapshot.json"))


async def follow(
    installation: Installation, client: httpx.AsyncClient, gateway: httpx.AsyncClient, environment: dict[str, str]
) -> None:
    provider, group, rows = blocks(GUIDE, "sh")
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
    (python,) = blocks(GUIDE, "python")
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


async def is_approved(client: httpx.AsyncClient) -> bool:
    """By a group of its own, since nothing lists approvals."""
    champion = {"urn": "mm:vendor-model/assistant", "version": 1, "upstream": {"provider": "acme", "model": "m"}}
    answer = await client.post("/router/v1/groups", json={"name": "probe", "champion": champion})
    return answer.status_code == 201
