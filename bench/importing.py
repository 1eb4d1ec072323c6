"""`make bench-importing`: an MLflow server with 200 models, imported twice; the second time nothing changes.

MLflow's own server (one worker, SQLite), the registry, Postgres, Kafka and the importer share this machine. The
importer is the command line's, in a process of its own; what counts is from its start to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench import report
from deploy.local.infrastructure import start_infrastructure
from shared.testing.backing import ADMIN_DSN, BOOTSTRAP, Backing
from shared.testing.installation import Installation

API = "/api/2.0/mlflow"
GOAL_S = 60


@contextmanager
def process(command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process and what it starts, ended afterwards."""
    running = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")


def fill(url: str, models: int, versions: int) -> None:
    """Models with some versions each, of which the second is deleted; aliases, tags and stages."""
    with httpx.Client(base_url=url, timeout=60) as client:

        def post(path: str, method: str = "POST", **body: Any) -> None:
            client.request(method, f"{API}/{path}", json=body).raise_for_status()

        for number in range(models):
            name = f"model {number:04}"
            post("registered-models/create", name=name, tags=[{"key": "team", "value": f"t{number % 7}"}])
            for version in range(1, versions + 1):
                source = f"s3://models/{number}/{version}"
                post("model-versions/create", name=name, source=source, tags=[{"key": "n", "value": str(version)}])
            if versions > 2:
                post("model-versions/delete", "DELETE", name=name, version="2")
            stage = {"version": "1", "stage": "Production", "archive_existing_versions": False}
            post("model-versions/transition-stage", name=name, **stage)
            post("registered-models/alias", name=name, alias="champion", version="1")


def bring(source: str, url: str, key: str) -> dict[str, Any]:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "mintmark.cli.main", "import", "mlflow", source, "--json"],
        env={**os.environ, "MINTMARK_URL": url, "MINTMARK_API_KEY": key},
        capture_output=True,
        check=True,
    )
    seconds, found = time.perf_counter() - began, json.loads(done.stdout)
    counted = [found[kind].get(outcome, 0) for kind in ("assets", "versions") for outcome in ("created", "changed")]
    return {
        "models": sum(found["assets"].values()),
        "versions": sum(found["versions"].values()),
        "seconds": round(seconds, 2),
        "changes": sum(counted),
        "need a decision": len(found["rows"]) if sum(counted) == 0 else 0,
    }


async def prepared(folder: Path) -> tuple[Installation, str]:
    installation = await Installation(Backing.of_run(), folder / "installation").prepare()
    key = installation.key("user:bench", "operator")
    await installation.make_topics()
    return installation, key


def measure(models: int, versions: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        installation, key = asyncio.run(prepared(folder))
        ours, theirs = free_port(), free_port()
        mlflow = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(theirs), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files"),
        ]  # fmt: skip
        registry = [sys.executable, "-m", "services", "registry", "--host", "127.0.0.1", "--port", str(ours)]
        source, url = f"http://127.0.0.1:{theirs}", f"http://127.0.0.1:{ours}"
        with (
            process(mlflow, DO_NOT_TRACK="true", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
            process(registry, **installation.environment()),
        ):
            wait_for(f"{source}/health")
            wait_for(f"{url}/readyz")
            began = time.perf_counter()
            fill(source, models, versions)
            rows = [{"what": "filling MLflow", "seconds": round(time.perf_counter() - began, 2)}]
            for what in ("first import", "second import"):
                rows.append({"what": what, **bring(source, url, key)})
        asyncio.run(installation.close())
    first, second = rows[1:]
    first["goal"] = "met" if first["seconds"] < GOAL_S and first["changes"] > 0 else "MISSED"
    second["goal"] = "met" if second["seconds"] < GOAL_S and second["changes"] == 0 else "MISSED"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.importing", description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--versions", type=int, default=4, help="of each; the second is deleted again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        infrastructure = start_infrastructure(Path(folder), throwaway=True)
        try:
            os.environ[BOOTSTRAP], os.environ[ADMIN_DSN] = infrastructure.kafka_bootstrap, infrastructure.admin_dsn
            rows = measure(options.models, options.versions)
        finally:
            infrastructure.stop()
    report.write("importing", rows, {"goal": f"each import in less than {GOAL_S} s, the second changes nothing"})


if __name__ == "__main__":
    main()
