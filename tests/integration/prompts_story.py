"""A prompts service that the tests of one module share: people with keys, and the few calls that every story makes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from shared.testing.backing import Backing
from shared.testing.installation import Installation

PEOPLE = {
    "ada": ("default", "owner"),
    "bob": ("default", "owner"),
    "viewer": ("default", "viewer"),
    "publisher": ("default", "publisher"),
    "eve": ("other", "owner"),
}


def at(title: str, rest: str = "") -> str:
    """The address of a prompt."""
    return f"/prompts/v1/prompts/{quote(title, safe='')}{rest}"


@dataclass
class World:
    """One running service; tests keep apart by the titles that they take."""

    installation: Installation
    keys: dict[str, str] = field(default_factory=dict)
    people: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    @property
    def ada(self) -> httpx.AsyncClient:
        return self.people["ada"]

    async def publish(self, title: str, text: str = "Say {{ x }}", **more: Any) -> dict[str, Any]:
        answer = await self.ada.post(at(title, "/versions"), json={"text": text, **more})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def label(self, title: str, label: str, version: int) -> dict[str, Any]:
        """Move a label, whatever its state."""
        headers = {"if-match": "*"}
        answer = await self.ada.put(at(title, f"/labels/{label}"), json={"version": version}, headers=headers)
        assert answer.status_code == 200, answer.text
        moved: dict[str, Any] = answer.json()
        return moved

    async def code(self, title: str, body: dict[str, Any], rest: str = "/versions") -> str:
        """The code of the refusal."""
        answer = await self.ada.post(at(title, rest), json=body)
        assert answer.status_code in (400, 403, 404, 409, 413, 422), (answer.status_code, answer.text)
        return str(answer.json()["code"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("prompts")
    made = World(await Installation(Backing.of_run(), folder / "installation").prepare())
    for who, (workspace, role) in PEOPLE.items():
        made.keys[who] = made.installation.key(f"user:{who}", role, workspace=workspace)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(made.installation.close)
        await made.installation.start("prompts")
        for who, key in made.keys.items():
            made.people[who] = await stack.enter_async_context(made.installation.client("prompts", key))
        yield made
