"""What the demo's chapters stand on: who acts, how one asks, and how a step is told."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import httpx
import uuid_utils
from pipeline import Kafka
from rich.console import Console

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


@dataclass
class World:
    """Everything the story carries along."""

    http: httpx.AsyncClient
    gateway: httpx.AsyncClient
    kafka: Kafka
    keys: dict[str, str]
    traceparent: str
    group: str
    model: str
    dataset: str
    began: float = field(default_factory=time.monotonic)
    step: int = 0

    @property
    def trace_id(self) -> str:
        return self.traceparent.split("-")[1]

    def headers(self, who: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[who]}", "traceparent": self.traceparent}

    async def call(self, who: str, method: str, path: str, expect: int | None = None, **more: Any) -> Any:
        """One HTTP call as one of the people; the JSON of the answer."""
        headers = {**self.headers(who), **more.pop("headers", {})}
        answer = await self.http.request(method, path, headers=headers, **more)
        if expect is not None and answer.status_code != expect:
            fail(f"{method} {path} answered {answer.status_code}, not {expect}: {answer.text[:500]}")
        if expect is None and answer.is_error:
            fail(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

    def say(self, title: str) -> None:
        """A new step."""
        self.step += 1
        console.print(f"\n[bold]{self.step:2}. {title}[/bold]  [dim]{time.monotonic() - self.began:.1f} s[/dim]")


def fail(why: str) -> NoReturn:
    """End the demo: the road is broken here."""
    console.print(f"[red bold]the demo fails here:[/] {why}", markup=True)
    sys.exit(1)


def tell(text: str) -> None:
    console.print(f"    {text}", markup=True)


def interval(measure: dict[str, Any]) -> str:
    return f"{measure['value']:.4f} [{measure['low']:.4f}, {measure['high']:.4f}]"


def make_key(principal: str, *roles: str) -> str:
    """An API key by the command line, as an administrator makes one."""
    mintmark = shutil.which("mintmark") or str(Path(sys.executable).with_name("mintmark"))
    command = [mintmark, "keys", "create", principal, *(part for role in roles for part in ("--role", role))]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        fail(f"{' '.join(command)}: {made.stderr.strip()}")
    return str(json.loads(made.stdout)["api_key"])


async def submit(world: World, data: dict[str, Any]) -> dict[str, Any]:
    """`asset.submitted` on Kafka, signed; the answer is `asset.registered`, or the demo ends."""
    submission = str(uuid_utils.uuid7())
    urn = f"mm:{data['kind']}/{data['name']}"
    answer = world.kafka.expect("asset.registered", lambda found: found["submission_id"] == submission)
    refused = world.kafka.expect("asset.refused", lambda found: found["submission_id"] == submission)
    await world.kafka.publish("asset.submitted.v1", urn, {"submission_id": submission, **data}, world.traceparent)
    done, _ = await asyncio.wait({answer, refused}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    if refused in done:
        fail(f"the submission was refused: {refused.result()}")
    if answer not in done:
        fail("no answer to asset.submitted within 60 s")
    refused.cancel()
    return dict(answer.result())


async def until_known(look: Callable[[], Awaitable[Any]], what: str) -> None:
    """Wait until a service's read model has heard of something."""
    for _ in range(200):
        if what in json.dumps(await look()):
            return
        await asyncio.sleep(0.05)
    fail(f"{what} did not become known within 10 s")


def matching(version: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    return lambda data: data["asset"]["urn"] == version["urn"] and data["asset"]["version"] == version["version"]


async def etag_of(world: World) -> str:
    answer = await world.http.get(f"/router/v1/groups/{world.group}", headers=world.headers("bea"))
    return str(answer.headers["etag"])


def version_of(header: str) -> str:
    """`x-mintmark-version` is `urn@number`, or the number alone."""
    return header.rpartition("@")[2]


def now() -> str:
    return datetime.now(UTC).isoformat()


def named(name: str, number: int) -> str:
    """The demo may run again: each run takes names of its own."""
    return name if number == 1 else f"{name}-{number}"


async def first_free(http: httpx.AsyncClient, headers: dict[str, str]) -> int:
    """Which run this is: the first whose names are not taken yet."""
    for number in range(1, 1000):
        answer = await http.get(f"/registry/v1/assets/dataset/{named('census-2015', number)}", headers=headers)
        if answer.status_code == 404:
            return number
        if answer.is_error:
            fail(f"the registry answered {answer.status_code}: {answer.text[:300]}")
    return fail("a thousand runs are enough")
