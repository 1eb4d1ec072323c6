"""What the importers' stories stand on: a registry, and the command line that imports into it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from guide import served
from mintmark.client import Client
from mintmark.importers.found import Reader
from mintmark.importers.running import Running, Summary
from mintmark.settings import Connection
from registry_story import Registry, registry

from shared.testing.installation import Installation


@dataclass
class Catalog:
    """A registry that the command line reaches."""

    registry: Registry
    url: str
    key: str

    async def bring(self, *arguments: str, code: int = 0, **environment: str) -> dict[str, Any]:
        """`mintmark import … --json`: what it says. It must end with `code`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mintmark.cli.main", "import", *arguments, "--json",
            env={**os.environ, "MINTMARK_URL": self.url, "MINTMARK_API_KEY": self.key, **environment},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate()
        assert process.returncode == code, (process.returncode, output.decode()[-3000:], errors.decode()[-3000:])
        found: dict[str, Any] = json.loads(output) if output.strip() else {"error": errors.decode()}
        return found

    async def import_(self, make: Callable[[], Reader], *, dry_run: bool = False, key: str | None = None) -> Summary:
        """The same without a process of its own."""

        def run() -> Summary:
            with Client(Connection(url=self.url, api_key=key or self.key)) as client:
                return Running(client, make(), dry_run=dry_run).run(lambda title: True)

        return await asyncio.to_thread(run)

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        answer = await self.registry.client.get(f"/registry/v1{path}", params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@asynccontextmanager
async def catalog(installation: Installation, *roles: str) -> AsyncIterator[Catalog]:
    """The registry, started and served; whoever imports has these roles."""
    key = installation.key("user:ops", *(roles or ("operator",)))
    async with registry(installation) as it, served(installation, "registry") as url:
        yield Catalog(it, url, key)
