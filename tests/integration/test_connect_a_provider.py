"""What connect-a-provider.md, guard-a-group.md and route-traffic.md tell people to run is run, as it stands there.

One installation for the three: a vendor's model is registered, let through by two people's waiver and an approval of
the policy service's own, asked through the gateway, then guarded; and a group of real models is routed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from guide import blocks, run, services_process
from router_story import NAMES, ROWS, Traffic, asset, deploy, named, traffic

from services.router.gateway.testing.recorded import GREETING, INPUT, OUTPUT
from services.router.gateway.testing.stub import Stub, served
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(170)
KEY = "sk-of-the-guide-0123456789"
INFERENCES = "/router/v1/groups/assistant/inferences"


@dataclass
class Reader:
    """Who reads the pages and does what they say, in a folder of their own."""

    installation: Installation
    client: httpx.AsyncClient
    live: Traffic
    environment: dict[str, str]
    folder: Path

    async def follow(self, *lines: str) -> str:
        """What the page's blocks print, one after the other in one shell."""
        return await run(self.environment, "sh", "-ec", "\n".join([f"cd '{self.folder}'", *lines]))


async def test_what_the_guides_say_is_so(installation: Installation, tmp_path: Path) -> None:
    owner = installation.key("user:owner", "owner")
    bea, mia = installation.key("user:bea", "approver"), installation.key("user:mia", "release-manager")
    stub = Stub()
    async with (
        services_process(installation, owner, "registry", "policy", "router") as client,
        served(stub) as upstream,
        traffic(installation, owner) as live,
    ):
        environment = {
            "MINTMARK_URL": str(client.base_url).rstrip("/"),
            "MINTMARK_GATEWAY_URL": str(live.http.base_url).rstrip("/"),
            "MINTMARK_API_KEY": owner,
            "APPROVER_KEY": bea,
            "MANAGER_KEY": mia,
            "PROVIDER_URL": f"http://127.0.0.1:{upstream}/openai-compatible/greeting",
            "PROVIDER_KEY": KEY,
        }
        reader = Reader(installation, client, live, environment, tmp_path)
        await connect_a_provider(reader)
        await guard_a_group(reader)
        await route_traffic(reader)
    assert all(one.headers[b"authorization"] == f"Bearer {KEY}".encode() for one in stub.seen)
    assert KEY not in "".join(path.read_text() for path in (live.log, installation.folder / "gateway/snapshot.json"))


async def connect_a_provider(reader: Reader) -> None:
    client, gateway, environment = reader.client, reader.live.http, reader.environment
    provider, versions, group, rows = blocks("connect-a-provider.md", "sh")
    assert '"key":{"set_at"' in await reader.follow(provider)
    said = await reader.follow(versions)
    assert said.count('"status":"signed"') == 2 and said.count('"decision":"approved"') == 2, said
    await eventually(lambda: is_approved(client), bool, what="the approval")
    assert '"revision":2' in await reader.follow(group)

    async def look() -> int:
        return (await gateway.get("/v2/models/assistant/ready")).status_code

    await eventually(look, lambda status: status == 200, what="the group at the gateway")
    (python,) = blocks("connect-a-provider.md", "python")
    said = await run(environment, sys.executable, "-c", python)
    assert said.count(GREETING) == 2 and "response.completed" in said, said

    async def read() -> list[dict[str, object]]:
        found: list[dict[str, object]] = (await client.get(INFERENCES)).json()["items"]
        return found

    found = await eventually(read, lambda items: len(items) == 3, what="three rows")
    assert {row["status"] for row in found} == {200}
    assert "customer-7" in await reader.follow(rows)
    streamed = [row for row in found if row["unit"] != "customer-7"]
    whole = (await client.get(f"{INFERENCES}/{streamed[0]['request_id']}")).json()
    assert (whole["input_tokens"], whole["output_tokens"]) == (INPUT, OUTPUT), whole
    assert whole["ttft_ms"] > 0
    assert {whole["protocol"], whole["requester"], whole["attempts"]} <= {"responses", "messages", "user:owner", 1}


async def guard_a_group(reader: Reader) -> None:
    setup, guards, ask, caps = blocks("guard-a-group.md", "sh")
    said = await reader.follow(setup, guards)
    assert '"name":"injection"' in said, said
    refused = await eventually(lambda: reader.follow(ask), lambda said: "guardrail-tripped" in said, what="the guards")
    assert refused.startswith("HTTP/1.1 400 ") and "injection;on=input;outcome=blocked;ms=" in refused, refused
    assert '"usd":"250"' in await reader.follow(setup, caps)


async def route_traffic(reader: Reader) -> None:
    """The page's models, its second region (the same model server under a provider's name), and a request."""
    client, live = reader.client, reader.live
    one, two, small = asset(1, "census"), asset(2, "census"), asset(4, "census-small")
    for rounds, version in enumerate((one, two, small), 3):
        live.load(version, rounds)
    await deploy(reader.installation, client, one, two, small, endpoint=live.server.url)
    made = await client.post("/router/v1/groups", json={"name": "live", "champion": named(one)})
    assert made.status_code == 201, made.text
    region = {"name": "census-eu-west", "kind": "oip", "base_url": live.server.url}
    assert (await client.post("/router/v1/providers", json=region)).status_code == 201
    await live.until_group("live")
    inputs = [
        {"name": name, "datatype": "FP64", "shape": [1, 1], "data": [float(value)]}
        for name, value in zip(NAMES, ROWS[0], strict=True)
    ]
    await asyncio.to_thread((reader.folder / "request.json").write_text, json.dumps({"inputs": inputs}))
    setup, weigh, section, why = blocks("route-traffic.md", "sh")
    assert '"revision":2' in await reader.follow(setup, weigh)
    assert '"name":"beta testers"' in await reader.follow(setup, section)
    said = await eventually(lambda: reader.follow(setup, why), lambda said: '"beta testers"' in said, what="the rule")
    told = json.loads(said)
    assert (told["served"]["version"], told["rule"]) == (2, "beta testers"), said


async def is_approved(client: httpx.AsyncClient) -> bool:
    """By a group of its own, since nothing lists approvals; the second one, which is said last."""
    champion = {"urn": "mm:vendor-model/assistant", "version": 2, "upstream": {"provider": "acme", "model": "m"}}
    answer = await client.post("/router/v1/groups", json={"name": "probe", "champion": champion})
    return answer.status_code == 201
