"""`make bench-streams`: what a gateway process weighs with 2,000 server-sent event streams open at once.

OpenAI chat streams of an OpenAI-compatible provider, which here is a small server of this bench: each stream says a
token every second. All streams are open together before any ends; every one must bring all its tokens and be a row.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import uvloop

from bench import peers, report
from bench.gateway import Ours
from deploy.local.ports import Ports
from services.router.gateway.approvals import APPROVAL_MEDIA_TYPE
from shared.identity.dsse import sign

GROUP = "streams"
URN = f"mm:vendor-model/{GROUP}"
DIGEST = "sha256:" + "5" * 64
GOAL_MIB = 400
OPENING_A_TURN = 50


class Teller(asyncio.Protocol):
    """A provider: whatever is asked is answered by a stream, a token each time that `tick` is called."""

    def __init__(self, streams: set[Teller]) -> None:
        self._streams = streams
        self._asked = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not its subclasses

    def data_received(self, data: bytes) -> None:
        self._asked += data
        head, _, body = self._asked.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
        if head and len(body) >= length:
            self._asked = b""
            self._write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            self._streams.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._streams.discard(self)

    def tick(self, number: int) -> None:
        self._event({"role": "assistant", "content": f"token {number} "}, None)

    def end(self) -> None:
        self._event({}, "stop")
        self._chunk(b"data: [DONE]\n\n")
        self._write(b"0\r\n\r\n")
        self._streams.discard(self)

    def _event(self, delta: dict[str, str], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        self._chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def _write(self, data: bytes) -> None:
        self._transport.write(data)


async def group_of(ours: Ours, provider: str) -> None:
    """A group whose champion that provider answers for."""
    said = {"type": "approval", "workspace": "default", "decision": "approved",
            "asset": {"urn": URN, "version": 1, "digest": DIGEST}}  # fmt: skip
    statement = sign(json.dumps(said).encode(), APPROVAL_MEDIA_TYPE, ours.policy, "policy").to_json().decode()
    hosted = {"urn": URN, "version": 1, "digest": DIGEST, "provider": "teller", "model": "m", "statement": statement}
    db = await ours.connect()
    async with db.transaction():
        await db.execute(
            "INSERT INTO provider (workspace, name, configuration, created_at, changed_at, changed_by)"
            " VALUES ('default', 'teller', $1, now(), now(), 'user:bench')",
            json.dumps({"kind": "openai-compatible", "base_url": provider}),
        )
        await db.execute(
            "INSERT INTO model_group (workspace, name, log_table, revision, created_at)"
            " VALUES ('default', $1, $2, 1, now())", GROUP, f"inference_log_{GROUP}",
        )  # fmt: skip
        await db.execute(
            "INSERT INTO group_revision (workspace, group_name, revision, change, champion_urn, champion_version,"
            " champion_digest, hosted, who, why, at) VALUES ('default', $1, 1, 'created', $2, 1, $3, $4,"
            " 'user:bench', 'bench', now())", GROUP, URN, DIGEST, json.dumps([hosted]),
        )  # fmt: skip
        await db.execute("SELECT create_inference_log($1, 'default')", GROUP)
    await db.close()


async def read(port: int, key: str, opened: asyncio.Semaphore) -> int:
    """One client: how many bytes its whole stream had."""
    body = json.dumps({"model": GROUP, "stream": True, "messages": [{"role": "user", "content": "Count."}]}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer %b\r\n"
        b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
        % (key.encode(), len(body), body)
    )
    first = await reader.read(65_536)
    if not first.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"bench-streams: {first[:500]!r}")
    opened.release()
    data = first + await reader.read(-1)
    writer.close()
    return data.count(b"token")


def resident_mib(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


async def run(count: int, ticks: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * count + 512)), hard))
    free = list(dict(Ports.free()).values())
    streams: set[Teller] = set()
    peers.BENCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mintmark-bench-", ignore_cleanup_errors=True) as name:
        ours = Ours(Path(name), free[0])
        try:
            await ours.prepare()
            server = await asyncio.get_running_loop().create_server(
                lambda: Teller(streams), "127.0.0.1", 0, backlog=4096
            )
            await group_of(ours, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
            environment = ours.environment("with-rows", free[1]) | {"MINTMARK_ROUTER_PROVIDER_NETWORKS": "127.0.0.1"}
            gateway = peers.start([sys.executable, "-m", "services.router.gateway"], "streams", environment)
            ours.processes.append(gateway)
            ours.shipper()
            await until_it_serves(free[1], ours.key)
            idle = resident_mib(gateway.pid)
            opened, begun = asyncio.Semaphore(0), time.monotonic()
            readers: list[asyncio.Task[int]] = []
            while len(readers) < count:
                most = min(OPENING_A_TURN, count - len(readers))
                readers += [asyncio.create_task(read(free[1], ours.key, opened)) for _ in range(most)]
                while len(streams) < len(readers):
                    await asyncio.sleep(0.005)
            for teller in tuple(streams):
                teller.tick(0)
            for _ in range(count):
                await opened.acquire()
            seconds = time.monotonic() - begun
            at_once = resident_mib(gateway.pid)
            for number in range(1, ticks):
                for teller in tuple(streams):
                    teller.tick(number)
                await asyncio.sleep(1)
            most_mib = resident_mib(gateway.pid)
            for teller in tuple(streams):
                teller.end()
            tokens = await asyncio.gather(*readers)
            if set(tokens) != {ticks}:
                raise SystemExit(f"bench-streams: streams brought {sorted(set(tokens))} tokens, not {ticks} each")
            rows = await rows_of(ours, count)
        finally:
            ours.end()
    figures = {
        "streams": count,
        "open_within_s": round(seconds, 1),
        "idle_mib": round(idle),
        "open_mib": round(at_once),
        "after_tokens_mib": round(most_mib),
        "kib_a_stream": round((most_mib - idle) * 1024 / count, 1),
        "rows": rows,
    }
    goal = f"{max(at_once, most_mib):.0f} MiB (goal: under {GOAL_MIB} MB with 2,000)"
    report.write("streams", [{"what": "open SSE streams", **figures}], {"resident, all open": goal})


async def until_it_serves(port: int, key: str) -> None:
    for _ in range(600):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            request = f"GET /v2/models/{GROUP}/ready HTTP/1.1\r\nhost: b\r\nauthorization: Bearer {key}\r\n\r\n"
            writer.write(request.encode())
            said = await reader.readline()
            writer.close()
            if b" 200 " in said:
                return
        except OSError:
            pass
        await asyncio.sleep(0.05)
    raise SystemExit("bench-streams: the gateway does not serve within 30 s")


async def rows_of(ours: Ours, count: int) -> int:
    """How many rows there are, once they are all there or five seconds are over."""
    found = 0
    db = await ours.connect()
    for _ in range(50):
        found = await db.fetchval(f"SELECT count(*) FROM inference_log_{GROUP} WHERE status = 200")
        if found >= count:
            break
        await asyncio.sleep(0.1)
    await db.close()
    return int(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--tokens", type=int, default=5)
    arguments = parser.parse_args()
    uvloop.run(run(arguments.streams, arguments.tokens))


if __name__ == "__main__":
    main()
