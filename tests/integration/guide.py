"""Runs what the pages of docs/how-to tell people to run, as it stands there, against real processes."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn

from shared.testing.installation import Installation, eventually

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


def blocks(page: str, language: str) -> list[str]:
    """The page's code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)


async def run(environment: dict[str, str], *command: str) -> str:
    """What the command prints, with nothing of Mintmark to import; it must end well."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        *command, env={**kept, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@asynccontextmanager
async def served(installation: Installation, service: str) -> AsyncIterator[str]:
    """A service that runs in this process, on a port that curl reaches: its URL."""
    config = uvicorn.Config(installation.services[service].edge, port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: asyncio.sleep(0, server.started), bool, what=service)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def router_process(installation: Installation, key: str, **settings: str) -> AsyncIterator[httpx.AsyncClient]:
    """The router as a process of its own, on a port that curl reaches; a client of it with `key`."""
    async with services_process(installation, key, "router", **settings) as client:
        yield client


@asynccontextmanager
async def services_process(
    installation: Installation, key: str, *names: str, **settings: str
) -> AsyncIterator[httpx.AsyncClient]:
    """The same of several services in one process, under one address."""
    await installation.make_topics()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    router = subprocess.Popen(  # noqa: ASYNC220 - starting takes a millisecond
        [sys.executable, "-m", "services", *names, "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, **installation.environment(), **settings},
    )
    try:
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            await eventually(lambda: _is_ready(client), bool, what=" and ".join(names))
            yield client
    finally:
        router.terminate()
        await asyncio.to_thread(router.wait, 30)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False
