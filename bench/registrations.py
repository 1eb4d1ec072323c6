"""`make bench-registrations`: versions registered by MLflow's own route, in MLflow's server and in ours.

Both are one process with one worker, on one Postgres (as `mintmark up` starts it, with its disk's promises kept), asked
by the same client with the same bytes: `POST …/model-versions/create` over connections that stay open, first by one
client, then by 32. The client is a bare one, since MLflow's own takes more than a millisecond of CPU a call and would
be what is measured; both answer its requests as they do any. Ours also writes what search finds a version by and an
event, and its relay publishes that to Kafka meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx

from bench import report
from deploy.local.infrastructure import start_infrastructure
from shared.db.provision import provision
from shared.identity.keys import ApiKey, append

ROUTE = "/api/2.0/mlflow/model-versions/create"
MODELS = 200
WARM = 200
OURS, THEIRS = "Mintmark", "MLflow"


class Server:
    """One of the two: where it answers, and how it is spoken to."""

    def __init__(self, name: str, port: int, prefix: str, key: str | None) -> None:
        self.name = name
        self.port = port
        self.prefix = prefix
        self.headers = {"authorization": f"Bearer {key}"} if key else {}

    def request(self, number: int) -> bytes:
        """One registration, as bytes of HTTP."""
        body = json.dumps(
            {
                "name": f"model-{number % MODELS}",
                "source": f"s3://models/credit/{number}",
                "run_id": "",
                "tags": [{"key": "team", "value": "risk"}, {"key": "number", "value": str(number)}],
                "description": "a gradient boosted tree of the credit team",
            }
        )
        headers = {"host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **self.headers}.items())
        return f"POST {self.prefix}{ROUTE} HTTP/1.1\r\n{lines}\r\n{body}".encode()

    def make_models(self) -> None:
        address = f"http://127.0.0.1:{self.port}{self.prefix}/api/2.0/mlflow/registered-models/create"
        with httpx.Client(headers=self.headers, timeout=60) as client:
            for number in range(MODELS):
                client.post(address, json={"name": f"model-{number}"}).raise_for_status()


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or self._answer is None:
            return
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        if len(body) >= length:
            self._buffer = b""
            if not head.startswith(b"HTTP/1.1 200"):
                self._answer.set_exception(SystemExit((head + body)[:1000].decode()))
            else:
                self._answer.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SystemExit("the server closed the connection"))

    async def ask(self, request: bytes) -> None:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answer


async def measured(server: Server, clients: int, count: int, start: int) -> list[float]:
    """Milliseconds of each registration, and how long all of them took as the last value."""
    loop = asyncio.get_running_loop()
    numbers = iter(range(start, start + count))
    taken: list[float] = []

    async def one() -> None:
        _, client = await loop.create_connection(Client, "127.0.0.1", server.port)
        for number in numbers:
            request = server.request(number)
            began = time.perf_counter()
            await client.ask(request)
            taken.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return [*taken, time.perf_counter() - began]


def row(server: Server, clients: int, count: int, start: int) -> dict[str, Any]:
    *taken, took = asyncio.run(measured(server, clients, count, start))
    return {"server": server.name, "clients": clients, "per_s": round(count / took, 1), **report.summary(taken)}


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server with whatever it starts, ended afterwards."""
    with log.open("wb") as file:
        running = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        yield running
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)


def answers(url: str, running: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        if running.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(log.read_text()[-3000:])
        try:
            if httpx.get(url, timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.2)


async def databases(admin: str, ours: str) -> None:
    connection = await asyncpg.connect(admin)
    try:
        await connection.execute("CREATE DATABASE mlflow")
    finally:
        await connection.close()
    await provision(admin, {"registry": ours})


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def at(dsn: str, **parts: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(**parts))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.registrations", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2_000, help="versions by each number of clients, ours")
    parser.add_argument("--theirs", type=int, default=600, help="the same of MLflow, which takes longer")
    parser.add_argument("--only", choices=("ours", "theirs"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="mintmark-bench-") as name:
        folder = Path(name)
        infrastructure = start_infrastructure(folder / "infrastructure")
        try:
            admin = infrastructure.admin_dsn
            host = urlsplit(admin).netloc.rpartition("@")[2]
            ours = at(admin, netloc=f"mintmark_registry:bench@{host}")
            asyncio.run(databases(admin, ours))
            if options.only != "ours":
                rows += theirs(folder, admin, options)
            if options.only != "theirs":
                rows += of_ours(folder, ours, infrastructure.kafka_bootstrap, options.count)
        finally:
            infrastructure.stop()
    notes: dict[str, Any] = {}
    if not options.only:
        by = {(one["server"], one["clients"]): one for one in rows}
        faster = by[THEIRS, 1]["p50_ms"] / by[OURS, 1]["p50_ms"]
        notes["times faster, 1 client"] = f"{faster:.1f} (goal 4)"
        many = by[OURS, 32]["per_s"] / by[THEIRS, 32]["per_s"]
        notes["times as many, 32 clients"] = f"{many:.1f} (goal 10)"
    report.write("registrations", rows, notes)


def theirs(folder: Path, admin: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    port, log = free_port(), folder / "mlflow.log"
    store = at(admin, scheme="postgresql+psycopg2", path="/mlflow")
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with process(command, environment, log) as running:
        answers(f"http://127.0.0.1:{port}/health", running, log)
        return measure(Server(THEIRS, port, "", None), options.theirs)


def of_ours(folder: Path, dsn: str, bootstrap: str, count: int) -> list[dict[str, Any]]:
    key, record = ApiKey.generate("user:bench", ("owner",))
    append(folder / "keys.json", record)
    port, log = free_port(), folder / "registry.log"
    environment = {
        **os.environ,
        "MINTMARK_REGISTRY_DSN": dsn,
        "MINTMARK_KAFKA_BOOTSTRAP": bootstrap,
        "MINTMARK_DATA": str(folder / "data"),
        "MINTMARK_KEYS_FILE": str(folder / "keys.json"),
        "MINTMARK_LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "services", "registry", "--port", str(port)]
    with process(command, environment, log) as running:
        answers(f"http://127.0.0.1:{port}/readyz", running, log)
        return measure(Server(OURS, port, "/registry", key), count)


def measure(server: Server, count: int) -> list[dict[str, Any]]:
    server.make_models()
    asyncio.run(measured(server, 4, WARM, 0))
    return [row(server, 1, count // 2, WARM), row(server, 32, count, WARM + count)]


if __name__ == "__main__":
    main()
