"""`make bench-prompts`: fetching prompts at a steady rate from one process of the prompts service.

Requests are sent when they are due, whether or not earlier ones were answered, and latency counts from when they were
due: a server that falls behind cannot hide it. Generator (uvloop, one process, requests encoded beforehand), service,
Postgres and Kafka share this machine. While it is measured, a label moves ten times a second, as it would not in life.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvloop

from bench import report
from deploy.local.infrastructure import start_infrastructure
from shared.testing.backing import Backing
from shared.testing.installation import Installation

PROMPTS = 1_000
LENGTH = 2_000
GOAL_MS, GOAL_RATE = 10.0, 2_000


class Connection(asyncio.Protocol):
    """One keep-alive connection; answers come in the order of the requests."""

    def __init__(self) -> None:
        self._due: deque[float] = deque()
        self._rest = b""
        self._transport: Any = None
        self.latencies: list[float] = []
        self.statuses: dict[bytes, int] = {}

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        self._due.append(due)
        self._transport.write(request)

    @property
    def in_flight(self) -> int:
        return len(self._due)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._rest += data
        while True:
            head = self._rest.find(b"\r\n\r\n")
            if head < 0:
                return
            at = self._rest.find(b"content-length: ", 0, head)
            length = int(self._rest[at + 16 : self._rest.find(b"\r\n", at)]) if at >= 0 else 0
            if len(self._rest) < head + 4 + length:
                return
            status = self._rest[9:12]
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self._rest = self._rest[head + 4 + length :]
            self.latencies.append((now - self._due.popleft()) * 1000)


async def drive(port: int, requests: list[bytes], rate: int, seconds: float, connections: int) -> dict[str, Any]:
    """Send at a steady rate; latencies in milliseconds from when each request was due."""
    loop = asyncio.get_running_loop()
    made = [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(connections)]
    began = time.perf_counter()
    total, sent = int(rate * seconds), 0
    late = 0.0
    while sent < total:
        now = time.perf_counter()
        due_count = min(total, int((now - began) * rate) + 1)
        while sent < due_count:
            due = began + sent / rate
            late = max(late, now - due)
            made[sent % connections].send(requests[sent % len(requests)], due)
            sent += 1
        await asyncio.sleep(max(0.0, began + sent / rate - time.perf_counter()))
    while any(one.in_flight for one in made):
        await asyncio.sleep(0.01)
    spent = time.perf_counter() - began
    statuses: dict[str, int] = {}
    for one in made:
        for status, count in one.statuses.items():
            statuses[status.decode()] = statuses.get(status.decode(), 0) + count
    latencies = [latency for one in made for latency in one.latencies]
    found = {"per_s": round(total / spent), **report.summary(latencies), "max_ms": round(max(latencies), 1)}
    return {**found, "generator_late_ms": round(late * 1000, 1), "statuses": statuses}


def request(path: str, key: str, etag: str | None = None) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "host: bench", f"authorization: Bearer {key}", "x-mintmark-application: bench"]
    lines += [f"if-none-match: {etag}"] if etag else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def fill(client: httpx.AsyncClient, count: int) -> None:
    """Prompts with two versions of which one is in production."""

    async def one(number: int) -> None:
        for version in ("old", "new"):
            text = f"{version} {{{{ question }}}} " + "x" * LENGTH
            body = {"text": text, "labels": ["production"]}
            (await client.post(f"/prompts/v1/prompts/prompt-{number}/versions", json=body)).raise_for_status()

    for start in range(0, count, 16):
        await asyncio.gather(*(one(number) for number in range(start, min(count, start + 16))))


async def move(client: httpx.AsyncClient) -> int:
    """Move a label to and fro, ten times a second, until cancelled."""
    path, count = "/prompts/v1/prompts/prompt-0/labels/production", 0
    try:
        while True:
            body = {"version": 1 + count % 2, "reason": "bench"}
            (await client.put(path, json=body, headers={"if-match": "*"})).raise_for_status()
            count += 1
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return count


async def run(prompts: int, seconds: float, rates: list[int]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mintmark-bench-"))
    infrastructure = start_infrastructure(folder, throwaway=True)
    installation = await Installation(
        Backing(infrastructure.kafka_bootstrap, infrastructure.admin_dsn), folder / "installation"
    ).prepare()
    key = installation.key("user:bench", "owner")
    await installation.make_topics()
    port_file = folder / "port"
    command = [sys.executable, "-m", "services", "prompts", "--port", "0", "--port-file", str(port_file)]
    process = subprocess.Popen(command, env={**os.environ, **installation.environment()})  # noqa: ASYNC220
    try:
        while not port_file.exists():
            await asyncio.sleep(0.05)
        port = int(port_file.read_text())
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.1)
            await fill(client, prompts)
            await measure(client, process, port, key, prompts, seconds, rates)
    finally:
        process.terminate()
        process.wait(30)
        await installation.close()
        infrastructure.stop()


async def measure(
    client: httpx.AsyncClient,
    process: subprocess.Popen[bytes],
    port: int,
    key: str,
    prompts: int,
    seconds: float,
    rates: list[int],
) -> None:
    names = random.Random(7).choices(range(prompts), k=20_000)
    etags = {}
    for number in set(names):
        path = f"/prompts/v1/prompts/prompt-{number}?label=production"
        etags[number] = (await client.get(path)).headers["etag"]
    kinds = {
        "fetch": [request(f"/prompts/v1/prompts/prompt-{one}?label=production", key) for one in names],
        "fetch, 304": [request(f"/prompts/v1/prompts/prompt-{one}?label=production", key, etags[one]) for one in names],
        "fetch by Langfuse's route": [request(f"/prompts/api/public/v2/prompts/prompt-{one}", key) for one in names],
    }
    own = psutil.Process(process.pid)
    rows, notes = [], {"goal": f"p99 < {GOAL_MS:g} ms at {GOAL_RATE:,}/s", "prompts": prompts}
    for rate in rates:
        for kind, requests in kinds.items():
            await drive(port, requests, rate, 1.0, 64)
            mover = asyncio.create_task(move(client))
            before = sum(own.cpu_times()[:2])
            found = await drive(port, requests, rate, seconds, 64)
            spent = sum(own.cpu_times()[:2]) - before
            mover.cancel()
            moved = await mover
            cpu_us = round(spent * 1e6 / found["n"], 1)
            rows.append({"what": kind, "rate": rate, **found, "cpu_us": cpu_us, "labels_moved": moved})
            print(rows[-1], flush=True)
    at_goal = [row["p99_ms"] for row in rows if row["rate"] == GOAL_RATE]
    notes["met"] = bool(at_goal) and max(at_goal) < GOAL_MS
    notes["from label move to new answer, ms"] = await staleness(client)
    report.write("prompts", rows, notes)


async def staleness(client: httpx.AsyncClient) -> float:
    """Median time from the answer to a label's move to an answer with the new version."""
    path, waits = "/prompts/v1/prompts/prompt-1", []
    for count in range(50):
        version = 1 + count % 2
        body = {"version": version, "reason": "bench"}
        await client.put(f"{path}/labels/production", json=body, headers={"if-match": "*"})
        began = time.perf_counter()
        while (await client.get(path, params={"label": "production"})).json()["version"] != version:
            await asyncio.sleep(0)
        waits.append((time.perf_counter() - began) * 1000)
    return round(report.percentile(waits, 0.5), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rates", default="2000,4000")
    arguments = parser.parse_args()
    uvloop.run(run(arguments.prompts, arguments.seconds, [int(rate) for rate in arguments.rates.split(",")]))


if __name__ == "__main__":
    main()
