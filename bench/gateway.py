"""`make bench-gateway`: ours and its peers in front of the same stub, interleaved, by the same load generator.

Generator (wrk, one thread), gateway and stub share this machine. Ours is asked by the Open Inference Protocol, the
others by OpenAI chat, with bodies of about the same size; the stub answers both at once. Three things of ours are
measured: every row durable (gateway, shipper and Postgres all at work), the same with 1,000 groups of 3 versions in the
snapshot, and without rows (a gateway whose rows go nowhere, which is no setting, only this bench).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench import peers, report
from bench.peers import Missing, Peer
from deploy.local.cluster import PostgresCluster
from deploy.local.ports import Ports
from deploy.local.processes import ProcessTable
from services.router.domain import log_table
from services.router.gateway.approvals import APPROVAL_MEDIA_TYPE
from shared.db.database import Database
from shared.db.migrate import migrate, of_service
from shared.db.provision import provision
from shared.identity.dsse import sign
from shared.identity.keys import ApiKey, append
from shared.ids import new_id

INFER = json.dumps(
    {"inputs": [{"name": name, "datatype": "FP64", "shape": [1, 1], "data": [42.0]} for name in ("AGEP", "MAR")]}
).encode()  # fmt: skip
ANSWERS = {
    "/v1/chat/completions": json.dumps(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "bench", "choices": [{"index": 0,
         "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
         "usage": {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}}
    ).encode(),
    "/infer": json.dumps(
        {"model_name": "bench", "model_version": "5", "outputs": [
            {"name": "probability", "datatype": "FP64", "shape": [1, 1], "data": [0.75]},
            {"name": "label", "datatype": "INT64", "shape": [1, 1], "data": [1]}]}
    ).encode(),
}  # fmt: skip
WITHOUT_ROWS = "ours, without rows"
DURABLE = "ours, every row durable"
TWO = "ours, durable, 2 processes"
TWO_WITHOUT = "ours, without rows, 2 processes"
MANY = "ours, durable, 1,000 groups"


class Ours:
    """Postgres, and gateways of ours in front of the stub."""

    def __init__(self, folder: Path, stub_port: int) -> None:
        self.folder = folder
        self.stub_url = f"http://127.0.0.1:{stub_port}"
        self.policy = Ed25519PrivateKey.generate()
        (folder / "logs").mkdir()
        (folder / "postgres").mkdir()
        table = ProcessTable(folder / "processes.json", folder / "logs")
        self.cluster = PostgresCluster(folder / "postgres", table, port=Ports.free().postgres, admin_password="s")
        self.dsn = self.cluster.admin_dsn.replace("mintmark_admin", "mintmark_router")
        self.key, record = ApiKey.generate("user:bench", ["caller"], "default")
        append(folder / "keys.json", record)
        raw = self.policy.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        (folder / "trust.json").write_text(json.dumps({"policy": base64.b64encode(raw).decode()}))
        self.processes: list[subprocess.Popen[bytes]] = []

    async def prepare(self) -> None:
        self.cluster.start()
        await provision(self.cluster.admin_dsn, {"router": self.dsn})
        await migrate(Database(self.dsn, "router"), of_service("router"))
        await self.make_groups(["bench"], 1)

    async def connect(self) -> asyncpg.Connection:
        settings = {"search_path": "router", "mintmark.workspace": "*"}
        return await asyncpg.connect(self.dsn, server_settings=settings)

    async def make_groups(self, names: list[str], versions: int) -> None:
        db = await self.connect()
        async with db.transaction():
            for name in names:
                digests = [f"sha256:{number:064x}" for number in range(1, versions + 1)]
                urn = f"mm:model/{name}"
                for number, digest in enumerate(digests, start=1):
                    statement = {"type": "approval", "workspace": "default", "decision": "approved",
                                 "asset": {"urn": urn, "version": number, "digest": digest}}  # fmt: skip
                    signed = sign(json.dumps(statement).encode(), APPROVAL_MEDIA_TYPE, self.policy, "policy")
                    await db.execute(
                        "INSERT INTO served_version (workspace, urn, version, digest, deployment_id, target, endpoint,"
                        " model_name, statement, signature, completed_at)"
                        " VALUES ('default', $1, $2, $3, $4, 'local', $5, 'bench', $6, $7, now())",
                        urn, number, digest, new_id(), self.stub_url, signed.to_json().decode(),
                        json.dumps({"inputs": [{"name": "AGEP", "datatype": "FP64", "shape": [-1, 1]},
                                               {"name": "MAR", "datatype": "FP64", "shape": [-1, 1]}]}),
                    )  # fmt: skip
                share = 10_000 // (versions + 1)
                challengers = [
                    {"urn": urn, "version": number, "digest": digests[number - 1],
                     "buckets": [[(number - 2) * share, (number - 1) * share]]}
                    for number in range(2, versions + 1)
                ]  # fmt: skip
                await db.execute(
                    "INSERT INTO model_group (workspace, name, log_table, revision, created_at)"
                    " VALUES ('default', $1, $2, 1, now())", name, log_table(name),
                )  # fmt: skip
                await db.execute(
                    "INSERT INTO group_revision (workspace, group_name, revision, change, champion_urn,"
                    " champion_version, champion_digest, challengers, who, why, at)"
                    " VALUES ('default', $1, 1, 'created', $2, 1, $3, $4, 'user:bench', 'bench', now())",
                    name, urn, digests[0], json.dumps(challengers),
                )  # fmt: skip
            await db.execute("SELECT create_inference_log($1, 'default')", names[0])
        await db.close()

    def environment(self, folder: str, port: int) -> dict[str, str]:
        return {
            "PYTHONPATH": str(peers.ROOT),
            "MINTMARK_ROUTER_DSN": self.dsn,
            "MINTMARK_DATA": str(self.folder),
            "MINTMARK_TRUST_FILE": str(self.folder / "trust.json"),
            "MINTMARK_KEYS_FILE": str(self.folder / "keys.json"),
            "MINTMARK_GATEWAY_FOLDER": str(self.folder / folder),
            "MINTMARK_GATEWAY_PORT": str(port),
            "MINTMARK_GATEWAY_GRPC_PORT": "0",
            "MINTMARK_SHIPPER_PORT": "0",
        }

    def gateway(self, name: str, port: int, *, rows: bool = True, processes: int = 1) -> Peer:
        command = [sys.executable, "-m", *(["services.router.gateway"] if rows else ["bench.gateway", "--serve"])]
        environment = self.environment("with-rows" if rows else "without-rows", port)
        process = peers.start(command, name, {**environment, "MINTMARK_GATEWAY_PROCESSES": str(processes)})
        self.processes.append(process)
        headers = {"authorization": f"Bearer {self.key}"}
        peer = Peer(name, f"http://127.0.0.1:{port}/v2/models/bench/infer", process, INFER, headers)
        return peers.until_it_answers(peer, 30)

    def shipper(self) -> None:
        command = [sys.executable, "-m", "services.router.gateway.shipper"]
        self.processes.append(peers.start(command, "shipper", self.environment("with-rows", 0)))

    async def rows(self) -> int:
        db = await self.connect()
        try:
            return int(await db.fetchval(f"SELECT count(*) FROM {log_table('bench')}"))
        finally:
            await db.close()

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()
        self.cluster.stop("immediate")


def serve_without_rows() -> None:
    """A gateway whose rows go nowhere; as many processes on its port as are asked for."""
    others = int(os.environ.pop("MINTMARK_GATEWAY_PROCESSES", "1")) - 1
    started = [subprocess.Popen([sys.executable, "-m", "bench.gateway", "--serve"]) for _ in range(others)]
    try:
        _serve_without_rows()
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def _serve_without_rows() -> None:
    from services.router.gateway.__main__ import main
    from services.router.gateway.spool import writer

    def nowhere(spool: writer.SpoolWriter, data: bytes) -> None:
        """Rows are rendered and answers wait for their turn's other rows, as ever; nothing is written."""

    writer.SpoolWriter._write = nowhere  # type: ignore[method-assign]
    sys.exit(main())


@contextmanager
def kept_awake() -> Iterator[None]:
    """Every core spins at the lowest priority, so that none sleeps between two requests and all else goes first.

    With one connection each hop would wait for a virtual core to wake, some 30 us that are the machine's and not the
    measured system's; whoever happens to have a busy neighbour (a shipper, a database) would look faster than others.
    """
    spin = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    spinners = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def load(peer: Peer, connections: int, seconds: float) -> dict[str, float]:
    """wrk's figures: requests per second, p50 and p99 in milliseconds, errors."""
    script = peers.BENCH / "config" / "load.lua"
    script.parent.mkdir(parents=True, exist_ok=True)
    headers = {"content-type": "application/json", **peer.headers}
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    script.write_text("\n".join(['wrk.method = "POST"', f"wrk.body = [==[{peer.body.decode()}]==]", *lines]))
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("bench-gateway: wrk is not there: install it (Debian: apt install wrk)")
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script), peer.url]
    before = _cpu_s(peer)
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = _cpu_s(peer) - before
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return {
        "per_s": float(_found(r"Requests/sec:\s+([\d.]+)", said)),
        "p50_ms": _milliseconds(_found(r"^ +50%\s+(\S+)", said)),
        "p99_ms": _milliseconds(_found(r"^ +99%\s+(\S+)", said)),
        "errors": float(errors[1]) if errors else 0.0,
        "cpu_us": spent * 1e6 / max(1, int(_found(r"(\d+) requests in", said))),
    }


def _cpu_s(peer: Peer) -> float:
    """What the peer's processes have used of a processor so far; unlike rates, it hardly minds what else runs here."""
    if peer.process is None:
        return 0.0
    first = psutil.Process(peer.process.pid)
    return sum(sum(one.cpu_times()[:2]) for one in (first, *first.children(recursive=True)))


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.M)
    if match is None:
        raise SystemExit(f"wrk said something unexpected: {text}")
    return match[1]


def _milliseconds(text: str) -> float:
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("s", 1000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


async def run(rounds: int, seconds: float, wanted: set[str]) -> None:
    notes: dict[str, Any] = {}
    found: list[Peer] = []
    free = list(dict(Ports.free()).values())
    stub = peers.stub(free[0], ANSWERS)
    with tempfile.TemporaryDirectory(prefix="mintmark-bench-", ignore_cleanup_errors=True) as name:
        ours = Ours(Path(name), free[0])
        try:
            await ours.prepare()
            ours.shipper()
            found.append(ours.gateway(DURABLE, free[1]))
            found.append(ours.gateway(WITHOUT_ROWS, free[2], rows=False))
            found.append(ours.gateway(TWO, free[-1], processes=2))
            found.append(ours.gateway(TWO_WITHOUT, free[-2], rows=False, processes=2))
            for number, (peer, begin) in enumerate(peers.PEERS.items()):
                if peer not in wanted:
                    continue
                try:
                    found.append(begin(free[3 + number], free[0]))
                except Missing as error:
                    notes[f"missing: {peer}"] = str(error)
                    print(f"{peer} is missing: {error}")
            measured = await measure(ours, found, stub, rounds, seconds, notes)
            before = statistics.median(one["per_s"] for one in measured[DURABLE, 32])
            await ours.make_groups([f"group-{number}" for number in range(1_000)], 3)
            await asyncio.sleep(10)  # each gateway verifies 3,000 signatures
            many = [load(found[0], 32, seconds) for _ in range(rounds)]
            share = statistics.median(one["per_s"] for one in many) / before
            notes["1,000 groups x 3 versions in the snapshot"] = f"{share:.2f} of the rate with one group"
            conclude(measured, notes)
        finally:
            for one in found:
                one.end()
            ours.end()
            stub.end()


async def measure(
    ours: Ours, found: list[Peer], stub: Peer, rounds: int, seconds: float, notes: dict[str, Any]
) -> dict[tuple[str, int], list[dict[str, float]]]:
    """Every system in turn, `rounds` times; the median of the rounds counts."""
    direct = Peer(
        "stub alone", stub.url.replace("/v1/chat/completions", "/v2/models/bench/versions/1/infer"), body=INFER
    )
    measured: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    asked = 0
    for number in range(rounds):
        for connections in (1, 32):
            for peer in (direct, *found):
                with kept_awake() if connections == 1 else nullcontext():
                    figures = load(peer, connections, seconds)
                measured[peer.name, connections].append(figures)
                print(f"round {number + 1}: {peer.name}, {connections} connections: {figures}", flush=True)
                if peer.name == DURABLE:
                    asked += 1
                    began, expected = time.monotonic(), None
                    while (now := await ours.rows()) != expected:
                        expected = now
                        await asyncio.sleep(0.2)
                    notes["seconds until the last row of a full-speed run was in Postgres"] = round(
                        time.monotonic() - began - 0.2, 1
                    )
    notes["rows in Postgres at the end"] = await ours.rows()
    return measured


def conclude(measured: dict[tuple[str, int], list[dict[str, float]]], notes: dict[str, Any]) -> None:
    """Medians, ratios, and the issue's goals beside them."""

    def median(name: str, connections: int, figure: str) -> float | None:
        rounds = measured.get((name, connections))
        return statistics.median(one[figure] for one in rounds) if rounds else None

    names = list(dict.fromkeys(name for name, _ in measured))
    bare = median("stub alone", 1, "p50_ms") or 0.0
    rows: list[dict[str, Any]] = []
    for name in names:
        p50 = median(name, 1, "p50_ms")
        rows.append(
            {
                "system": name,
                "added_p50_us_c1": None if p50 is None else round((p50 - bare) * 1000),
                "per_s_c32": round(median(name, 32, "per_s") or 0),
                "p99_ms_c32": median(name, 32, "p99_ms"),
                "cpu_us_c32": round(median(name, 32, "cpu_us") or 0, 1),
                "errors": sum(one["errors"] for one in (*measured[name, 1], *measured[name, 32])),
            }
        )
    rate: dict[str, float] = {row["system"]: row["per_s_c32"] for row in rows}
    for name, peer, goal in (
        (DURABLE, "tensorzero, logging off", 2.5),
        (DURABLE, "litellm, 1 worker", 50.0),
        (DURABLE, "haproxy, 1 thread", 0.4),
        (WITHOUT_ROWS, "haproxy, 1 thread", 0.6),
        (DURABLE, "envoy, concurrency 1", None),
        (TWO, "tensorzero, logging off", None),
        (TWO_WITHOUT, "tensorzero, logging off", None),
        (TWO_WITHOUT, "haproxy, 1 thread", None),
    ):
        if rate.get(peer):
            aim = f" (goal {goal})" if goal else ""
            notes[f"{name} / {peer}"] = f"{rate[name] / rate[peer]:.2f}{aim}"
    report.write("gateway", rows, notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--peers", default=",".join(peers.PEERS))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_without_rows()
    asyncio.run(run(arguments.rounds, arguments.seconds, set(filter(None, arguments.peers.split(",")))))


if __name__ == "__main__":
    main()
