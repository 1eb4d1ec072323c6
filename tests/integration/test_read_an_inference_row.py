"""What docs/how-to/read-an-inference-row.md tells people to run is run, as it stands there, against real processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet
import pytest
from router_story import NAMES, ROWS, Traffic, asset, deploy, named, traffic

from services.router.gateway.rows import COLUMN_NAMES
from services.router.tables.filters import COLUMNS
from shared.testing.installation import Installation, eventually

pytestmark = pytest.mark.timeout(170)
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "read-an-inference-row.md"
TABLE = "/router/v1/groups/live/inferences"


def test_the_guide_tells_of_every_column() -> None:
    told = {name for line in GUIDE.read_text().splitlines() if line.startswith("| `") for name in
            re.findall(r"`([a-z_]+)`", line.split("|")[1])}  # fmt: skip
    assert told == set(COLUMN_NAMES)
    assert set(COLUMN_NAMES) - {"workspace"} == COLUMNS


async def test_what_the_guide_says_is_so(installation: Installation, tmp_path: Path) -> None:
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
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client:
            await eventually(lambda: is_ready(client), bool, what="the router")
            async with traffic(installation, owner) as live:
                version = live.load(asset(1), 3)
                await deploy(installation, client, version, endpoint=live.server.url)
                made = await client.post("/router/v1/groups", json={"name": "live", "champion": named(version)})
                assert made.status_code == 201, made.text
                await live.until_group("live")
                environment = {"MINTMARK_URL": str(client.base_url).rstrip("/"), "MINTMARK_API_KEY": owner}
                await follow(client, live, environment, tmp_path)
    finally:
        router.terminate()
        await asyncio.to_thread(router.wait, 30)


async def follow(client: httpx.AsyncClient, live: Traffic, environment: dict[str, str], folder: Path) -> None:
    find, export, less, erase, archives = (adapted(block) for block in blocks("sh"))
    for number, unit in enumerate(("ada", "bo", "ada")):
        assert (await live.ask("live", number, unit)).status_code == 200
    assert (await live.http.post("/v2/models/live/infer", json={"inputs": "?"})).status_code >= 400
    await until_rows(client, 4)
    found, failed, before = documents(await run(environment, folder, find))
    assert {row["unit"] for row in found["items"]} == {"ada"}
    assert len(failed["items"]) == 1 and failed["items"][0]["error_code"]
    assert before["items"] == []

    await run(environment, folder, export)
    assert pyarrow.parquet.read_table(folder / "live.parquet").num_rows == 3

    assert '"retention_days":90' in await run(environment, folder, less)
    await eventually(lambda: hashes(client, live), bool, what="a hashed unit")

    (receipt,) = documents(await run(environment, folder, erase))
    (gone,) = receipt["receipt"]["payload"]["groups"]
    assert gone["rows"] >= 3 and receipt["receipt"]["envelope"]["signatures"][0]["keyid"] == "router"
    left = (await client.get(TABLE)).json()["items"]
    assert [row["unit"] for row in left if row["status"] == 200] == ["bo"]
    assert documents(await run(environment, folder, archives))[0]["items"] == []


def adapted(block: str) -> str:
    """The guide's feature is one of its own reader's model; here the model has other ones."""
    value = float(ROWS[0][0])
    return block.replace("features.AGEP>40", f'features."{NAMES[0]}">={value - 1e-6}').replace(
        "features.AGEP", f"features.{NAMES[0].split()[0]}"
    )


async def hashes(client: httpx.AsyncClient, live: Traffic) -> bool:
    await live.ask("live", 5, "ada")
    items = (await client.get(TABLE, params={"max_results": 5})).json()["items"]
    return any(row["unit"].startswith("hmac-sha256:") for row in items)


async def until_rows(client: httpx.AsyncClient, count: int) -> None:
    async def look() -> int:
        return len((await client.get(TABLE)).json()["items"])

    await eventually(look, lambda found: found >= count, what=f"{count} rows")


async def is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def run(environment: dict[str, str], folder: Path, script: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "sh", "-ec", script, env={**os.environ, **environment}, cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def documents(text: str) -> list[Any]:
    """JSON documents that follow each other."""
    decoder, found, place = json.JSONDecoder(), [], 0
    while place < len(text):
        value, place = decoder.raw_decode(text, place)
        found.append(value)
        while place < len(text) and text[place].isspace():
            place += 1
    return found


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
