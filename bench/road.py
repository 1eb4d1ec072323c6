"""`make bench-road`: 1,000 assets through the whole chain, from asset.submitted to deploy.completed.

Each is a model of its own with a trivial golden set: registered, evaluated, judged, approved by a second person over
HTTP, bundled, signed, loaded by the model server. Everything on this machine, as `mintmark up` runs it. Stages overlap:
evaluating and judging begin while versions are still being registered. With each stage stand the CPU milliseconds an
asset that every process spent from the stage's start to its end, which says what it is limited by.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import lightgbm
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import AIOKafkaConsumer
from mintmark.events import CloudEvent, publish, signed, structured

from bench import report

MINTMARK = str(Path(sys.executable).with_name("mintmark"))
GOLDEN_ROWS = 500
APPROVERS = 8
ENDS = {"registered": "asset.registered", "evaluated": "eval.completed", "judged": "gate.decided"}


@dataclass
class Heard:
    """When each asset's events came, and everything that should not have come."""

    at: dict[str, dict[str, float]] = field(default_factory=dict)
    assets: dict[str, dict[str, Any]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def take(self, topic: str, data: dict[str, Any]) -> None:
        if topic in ("asset.refused", "eval.failed", "deploy.failed"):
            self.wrong.append(f"{topic}: {data['code']}: {data['reason']}")
            return
        asset = data["asset"]
        if topic == "asset.registered":
            self.assets[asset["urn"]] = asset
        self.at.setdefault(topic, {}).setdefault(asset["urn"], time.perf_counter())

    async def all_of(self, topic: str, count: int, within_s: float = 1800) -> float:
        """The moment of the last one; raises when something failed or nothing came for long."""
        deadline = time.perf_counter() + within_s
        while len(self.models(topic)) < count:
            if self.wrong:
                raise SystemExit(f"the road is broken: {self.wrong[0]} (and {len(self.wrong) - 1} more)")
            if time.perf_counter() > deadline:
                raise SystemExit(f"{len(self.models(topic))} of {count} {topic} after {within_s} s")
            await asyncio.sleep(0.02)
        return max(self.models(topic).values())

    def models(self, topic: str) -> dict[str, float]:
        return {urn: at for urn, at in self.at.get(topic, {}).items() if urn.startswith("mm:model/")}


def mintmark(*arguments: str) -> str:
    done = subprocess.run([MINTMARK, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def golden() -> bytes:
    """500 rows whose label is the sign of x, with some noise."""
    random = np.random.default_rng(7)
    x = random.normal(size=GOLDEN_ROWS)
    label = (x + random.normal(scale=0.3, size=GOLDEN_ROWS) > 0).astype(int)
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": x, "label": label}), sink)
    return sink.getvalue()


def tiny_model(number: int) -> bytes:
    """A LightGBM model of five small trees, with bytes of its own: no cache on the road knows it already."""
    x = np.linspace(-3, 3, 2000).reshape(-1, 1)
    data = lightgbm.Dataset(x, (x[:, 0] > number / 10_000).astype(int), feature_name=["x"])
    parameters = {"objective": "binary", "num_leaves": 4, "verbose": -1, "num_threads": 1, "seed": number}
    text: str = lightgbm.train(parameters, data, 5).model_to_string()
    return text.encode()


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


async def listen(bootstrap: str, heard: Heard, ready: asyncio.Event) -> None:
    topics = [*ENDS.values(), "asset.refused", "eval.failed", "deploy.completed", "deploy.failed", "dataset.approved"]
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    ready.set()
    try:
        async for record in consumer:
            heard.take(record.topic, structured(record.headers, record.key, record.value)["data"])
    finally:
        await consumer.stop()


@dataclass
class Stages:
    """One row a stage: how long, how many assets a second, and what CPU it took where."""

    count: int
    data: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cpu = self._first = cpu_of(self.data)

    def ended(self, name: str, began: float, at: float) -> None:
        """The stage's last event came at `at`. Its CPU is what was used since the stage before it ended."""
        now = cpu_of(self.data)
        self._add(name, at - began, self._cpu, now)
        self._cpu = now

    def whole(self, began: float, at: float) -> None:
        self._add("whole road", at - began, self._first, self._cpu)

    def _add(self, name: str, seconds: float, before: dict[str, float], now: dict[str, float]) -> None:
        row = {"step": name, "seconds": round(seconds, 1), "assets_per_s": round(self.count / max(seconds, 1e-9), 1)}
        spent = {process: now[process] - before.get(process, 0.0) for process in now}
        self.rows.append(row | {f"{process}_cpu_ms": round(s / self.count * 1e3, 1) for process, s in spent.items()})


async def run(count: int, url: str, bootstrap: str, keys: dict[str, str], data: str) -> list[dict[str, Any]]:
    heard, ready = Heard(), asyncio.Event()
    listening = asyncio.create_task(listen(bootstrap, heard, ready))
    await ready.wait()
    headers = {name: {"authorization": f"Bearer {key}"} for name, key in keys.items()}
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        dataset = await registered_dataset(http, bootstrap, keys, headers, heard)
        models = [tiny_model(number) for number in range(count)]
        for model in models:
            await http.put(f"/registry/v1/artefacts/{digest_of(model)}", content=model, headers=headers["pipeline"])
        stages, began = Stages(count, data), time.perf_counter()
        await publish(bootstrap, [submission(n, model, dataset, keys["pipeline"]) for n, model in enumerate(models)])
        stages.ended("submitted", began, time.perf_counter())
        for name, topic in ENDS.items():
            stages.ended(name, began, await heard.all_of(topic, count))
        approving = time.perf_counter()
        await approve_all(http, headers["bea"], list(heard.assets.values()))
        approved = time.perf_counter()
        stages.ended("approved", approving, approved)
        await publish(
            bootstrap, [deployment(asset, keys["bea"]) for asset in heard.assets.values() if "model" in asset["urn"]]
        )
        deployed = await heard.all_of("deploy.completed", count)
        stages.ended("deployed", approved, deployed)
        stages.whole(began, deployed)
    listening.cancel()
    return stages.rows


async def registered_dataset(
    http: httpx.AsyncClient, bootstrap: str, keys: dict[str, str], headers: dict[str, dict[str, str]], heard: Heard
) -> dict[str, Any]:
    content = golden()
    await http.put(f"/registry/v1/artefacts/{digest_of(content)}", content=content, headers=headers["pipeline"])
    file = {
        "path": "golden.parquet",
        "digest": digest_of(content),
        "size": len(content),
        "rows": GOLDEN_ROWS,
        "split": "golden",
    }
    manifest = {"files": [file], "label": "label", "source": "made by the benchmark", "licence": "none"}
    data = {"submission_id": str(uuid4()), "kind": "dataset", "name": "trivial", "manifest": manifest}
    event = CloudEvent.make("asset.submitted.v1", "mm:dataset/trivial", data, source="bench/road")
    await publish(bootstrap, [signed(event, keys["pipeline"])])
    while "mm:dataset/trivial" not in heard.assets:
        await asyncio.sleep(0.02)
    path, body = "/policy/v1/datasets/trivial/versions/1/approval", {"decision": "approved", "reason": "made here"}
    while (await http.post(path, json=body, headers=headers["bea"])).status_code == 404:
        await asyncio.sleep(0.05)
    return heard.assets.pop("mm:dataset/trivial")


def submission(number: int, model: bytes, dataset: dict[str, Any], key: str) -> CloudEvent:
    name = f"m{number:05}"
    data = {
        "submission_id": str(uuid4()),
        "kind": "model",
        "name": name,
        "artefact": {"digest": digest_of(model), "format": "lightgbm", "size": len(model)},
        "task": "classification",
        "signature": {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 1]}], "outputs": []},
        "golden_set": {"urn": dataset["urn"], "version": dataset["version"]},
    }
    return signed(CloudEvent.make("asset.submitted.v1", f"mm:model/{name}", data, source="bench/road"), key)


def deployment(asset: dict[str, Any], key: str) -> CloudEvent:
    data = {"request_id": str(uuid4()), "asset": asset, "target": "local"}
    return signed(CloudEvent.make("deploy.requested.v1", asset["urn"], data, source="bench/road"), key)


async def approve_all(http: httpx.AsyncClient, headers: dict[str, str], assets: list[dict[str, Any]]) -> None:
    waiting = iter(assets)

    async def approver() -> None:
        for asset in waiting:
            body = {"asset": asset, "decision": "approved", "reason": "measured by the benchmark"}
            answer = await http.post("/policy/v1/approvals", json=body, headers=headers)
            if answer.status_code != 201:
                raise SystemExit(f"approving {asset['urn']} answered {answer.status_code}: {answer.text[:300]}")

    await asyncio.gather(*(approver() for _ in range(APPROVERS)))


def cpu_of(data: str) -> dict[str, float]:
    """CPU seconds that each part of this installation (and this process, which asks and listens) used so far."""
    found = dict.fromkeys(("bench", "kafka", "postgres", "services", "scoring", "gateway", "model_server"), 0.0)
    found["bench"] = time.process_time()
    for process in psutil.process_iter():
        try:
            name = _part(process, data)
            if name:
                times = process.cpu_times()
                found[name] += times.user + times.system
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _part(process: psutil.Process, data: str) -> str | None:
    """Which part of the installation in that folder the process is; None for all others on this machine."""
    command = " ".join(process.cmdline())
    if process.name() == "java":
        return "kafka" if data in command else None
    if process.name() == "postgres":
        server = process if "-D" in command else process.parent()
        return "postgres" if server is not None and data in " ".join(server.cmdline()) else None
    parts = {
        "-m services --host": "services",
        "spawn_main": "scoring",
        "-m services.router.gateway": "gateway",
        "-m services.deployer.model_server": "model_server",
    }
    name = next((part for shown, part in parts.items() if shown in command), None)
    return name if name and process.environ().get("MINTMARK_DATA") == data else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=int, default=1000)
    count = parser.parse_args().assets
    with tempfile.TemporaryDirectory(prefix="mintmark-bench-") as folder:
        data = str(Path(folder) / "data")
        os.environ["MINTMARK_DATA"] = data
        mintmark("up", "--port", "0")
        try:
            exports = dict(line.removeprefix("export ").split("=", 1) for line in mintmark("env").splitlines())
            keys = {
                name: key(who, role)
                for name, who, role in (
                    ("pipeline", "pipeline:bench", "publisher"),
                    ("bea", "user:bea", "release-manager"),
                )
            }
            time.sleep(1.2)
            url, bootstrap = (exports[name].strip("'") for name in ("MINTMARK_URL", "MINTMARK_KAFKA_BOOTSTRAP"))
            rows = asyncio.run(run(count, url, bootstrap, keys, data))
        finally:
            mintmark("down")
    report.write("road", rows, {"limited by": limit(rows[-1]), "load average at the end": str(os.getloadavg())})


def limit(whole: dict[str, Any]) -> str:
    """How much of the machine the whole road used, and who used most of it."""
    spent = {name.removesuffix("_cpu_ms"): ms for name, ms in whole.items() if name.endswith("_cpu_ms")}
    cores, per_asset_ms = os.cpu_count() or 1, sum(spent.values())
    share = per_asset_ms * whole["assets_per_s"] / 1000 / cores
    first = ", ".join(f"{name} {spent[name]:.0f}" for name in sorted(spent, key=spent.__getitem__, reverse=True)[:4])
    return f"{share:.0%} of {cores} cores were in use by {per_asset_ms:.0f} ms CPU an asset ({first})"


def key(principal: str, role: str) -> str:
    made: str = json.loads(mintmark("keys", "create", principal, "--role", role))["api_key"]
    return made


if __name__ == "__main__":
    main()
