"""What docs/how-to/manage-prompts.md tells people to run is run; and the SDK's client, its server there and gone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import guide
import httpx
import pytest
import pytest_asyncio
from mintmark.client import Problem
from mintmark.prompts import AsyncPrompts, Prompts, Snapshot, SnapshotRefused
from mintmark.settings import Connection

from shared.testing.backing import Backing
from shared.testing.installation import Installation, eventually

pytestmark = [pytest.mark.timeout(170), pytest.mark.asyncio(loop_scope="module")]
PAGE = "manage-prompts.md"
AWAY = Connection(url="http://127.0.0.1:9", api_key="none")


@dataclass
class Served:
    """The service's process, and who may ask it."""

    installation: Installation
    url: str
    key: str
    second: str
    folder: Path

    @property
    def connection(self) -> Connection:
        return Connection(url=self.url, api_key=self.key)

    @property
    def trust(self) -> Path:
        return self.installation.folder / "trust.json"

    async def publish(self, title: str, text: str, **more: object) -> None:
        headers = {"authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers) as http:
            body = {"text": text, "labels": ["production"], **more}
            (await http.post(f"/prompts/v1/prompts/{title}/versions", json=body)).raise_for_status()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("manage")
    installation = await Installation(Backing.of_run(), folder / "installation").prepare()
    key, second = installation.key("user:ada", "owner"), installation.key("user:bob", "approver")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "services", "prompts", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **installation.environment()})  # noqa: ASYNC220
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await eventually(lambda: guide._is_ready(client), bool, what="the prompts service")
        yield Served(installation, f"http://127.0.0.1:{port}", key, second, folder)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)
        await installation.close()


async def test_the_page_does_what_it_says(served: Served) -> None:
    environment = {
        "MINTMARK_URL": served.url, "MINTMARK_API_KEY": served.key, "SECOND_KEY": served.second,
        "MINTMARK_TRUST_FILE": str(served.trust), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }  # fmt: skip
    publish, keep, split, propose, _ = guide.blocks(PAGE, "sh")  # the last: test_prompts_measured.py
    use, offline = guide.blocks(PAGE, "python")
    inside = served.folder / "prompts"

    async def shell(block: str, where: Path) -> str:
        return await guide.run(environment, "bash", "-euo", "pipefail", "-c", f"cd {where}\n{block}")

    async def python(block: str) -> str:
        return await guide.run(environment, "bash", "-c", f"cd {inside} && exec {sys.executable} - <<'END'\n{block}END")

    said = await shell(publish, served.folder)
    assert "+Tell in {{ words }} words" in said and "production: 2 → 1" in said
    assert '"resolved_messages"' in said and "Be {{ mood }} and brief." in said
    used = await python(use)
    assert used.startswith("1 [{'role': 'system', 'content': 'Be kind and brief.\\n'}")
    assert used.rstrip().endswith("- It rained.")
    await shell(keep, inside)
    assert (await python(offline)).split() == ["snapshot", "1"]
    assert "x-mintmark-label" in await shell(split, inside)
    assert '"state":"merged"' in await shell(propose, inside)


async def test_a_prompt_is_kept_refreshed_and_survives_its_server(served: Served) -> None:
    await served.publish("sdk", "one {{ x }}")
    with Prompts(served.connection) as prompts:
        first = await asyncio.to_thread(prompts.get, "sdk")
        assert (first.source, first.compile(x=1)) == ("server", "one 1")
        await served.publish("sdk", "two {{ x }}")
        assert prompts.get("sdk").source == "cache" and prompts.get("sdk").version == 1

        async def refreshed() -> int:
            return (await asyncio.to_thread(prompts.get, "sdk", ttl_s=0)).version

        assert await refreshed() == 1, "the old one is given at once"
        await eventually(refreshed, lambda version: version == 2)
        prompts._http = httpx.Client(base_url=AWAY.url, timeout=1)
        for _ in range(3):
            assert (await asyncio.to_thread(prompts.get, "sdk", ttl_s=0)).version == 2
        with pytest.raises(httpx.TransportError):
            prompts.get("never seen")
        assert prompts.get("never seen", fallback="Hi {{ x }}").compile(x=2) == "Hi 2"


async def test_the_async_client_does_the_same(served: Served) -> None:
    await served.publish("async", "one {{ x }}")
    async with AsyncPrompts(served.connection) as prompts:
        assert (await prompts.get("async")).compile(x=1) == "one 1"
        await served.publish("async", "two {{ x }}")
        assert (await prompts.get("async", ttl_s=0)).version == 1

        async def refreshed() -> int:
            return (await prompts.get("async", ttl_s=0)).version

        await eventually(refreshed, lambda version: version == 2)
        with pytest.raises(Problem) as refused:
            await prompts.get("nobody")
        assert refused.value.status == 404
        fallback = await prompts.get("nobody", fallback=[{"role": "user", "content": "{{ x }}"}])
        assert (fallback.source, fallback.compile(x="y")) == ("fallback", [{"role": "user", "content": "y"}])
        assert await prompts.render("async", x="z") == "two z"
        with pytest.raises(Problem):
            await prompts.render("async", y="z")


async def test_a_snapshot_works_alone_and_is_not_believed_when_it_was_changed(served: Served) -> None:
    await served.publish("kept", "{% if x %}yes{% endif %}", labels=["production", "staging"])
    await served.publish("other", "not labelled so", labels=["edge"])
    file = served.folder / "one.snapshot"
    async with AsyncPrompts(served.connection, trust=served.trust) as prompts:
        made = await prompts.save_snapshot(file, "production", "staging")
    assert made.workspace == "default"
    with Prompts(AWAY, snapshot=file, trust=served.trust) as prompts:
        found = prompts.get("kept", label="staging")
        assert (found.source, found.compile(x=True), prompts.get("kept", version=1).version) == ("snapshot", "yes", 1)
        with pytest.raises(httpx.TransportError):
            prompts.get("other", label="edge")
    envelope = json.loads(file.read_text())
    for change in (
        {"payload": envelope["payload"][:-8] + "AAAAAAA="},
        {"payloadType": "application/json"},
        {"signatures": []},
        {"signatures": [{**envelope["signatures"][0], "keyid": "policy"}]},
        {"signatures": [{**envelope["signatures"][0], "sig": "AAAA"}]},
    ):
        file.write_text(json.dumps({**envelope, **change}))
        with pytest.raises(SnapshotRefused):
            Snapshot.read(file, served.trust)
    with pytest.raises(Problem):
        Prompts(Connection(url=served.url, api_key=served.second + "x")).save_snapshot(file)
