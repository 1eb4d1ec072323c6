"""Two servers side by side, a real MLflow and ours, and what a scenario finds at each, in the same plain form."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import mlflow
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from shared.testing.backing import Backing
from shared.testing.installation import Installation

OURS, REAL = "ours", "mlflow"
QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass
class Server:
    """One of the two, as a client sees it."""

    name: str
    uri: str
    token: str | None
    other_token: str | None = None
    reader_token: str | None = None
    installation: Installation | None = None

    @contextmanager
    def chosen(self, token: str | None = None) -> Iterator[MlflowClient]:
        """Inside: mlflow's functions and the client speak to this server."""
        before = os.environ.pop("MLFLOW_TRACKING_TOKEN", None)
        if token or self.token:
            os.environ["MLFLOW_TRACKING_TOKEN"] = token or self.token or ""
        try:
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            yield MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        finally:
            os.environ.pop("MLFLOW_TRACKING_TOKEN", None)
            if before is not None:
                os.environ["MLFLOW_TRACKING_TOKEN"] = before

    def http(self, token: str | None = None) -> httpx.Client:
        """For what the client would never send."""
        key = token or self.token
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.uri, headers=headers, timeout=60)


@dataclass
class Findings:
    """What a scenario found at one server, by the name of each check."""

    client: MlflowClient
    server: Server
    folder: Path
    found: dict[str, Any] = field(default_factory=dict)

    def check(self, name: str, ask: Callable[[], Any]) -> Any:
        """Ask, and keep the answer or the code of the error in a form that two servers can share."""
        assert name not in self.found, f"two checks are called {name}"
        try:
            answer = ask()
        except MlflowException as error:
            self.found[name] = ("refused", error.error_code)
            return None
        except requests.HTTPError as error:  # of files, which the client asks for without reading the error's code
            self.found[name] = ("refused", error.response.status_code)
            return None
        self.found[name] = plain(answer)
        return answer


_TIMES = re.compile(r".*(timestamp|_time|_time_ms)$|^(start_time|end_time)$")
_IDS = re.compile(r"(?<![0-9a-f])(m-)?[0-9a-f]{32}(?![0-9a-f])")
_NUMBERED = re.compile(r"(mlflow-artifacts:)/\d+/")
LEFT_OUT = {
    "user_id", "workspace", "experiment_id", "run_uuid", "model_id", "deployment_job_id", "deployment_job_state",
    "metrics", "model_params", "model_metrics",
}  # fmt: skip
"""Of registry entities: who registered (MLflow does not know), and what stands elsewhere."""


def plain(value: Any) -> Any:
    """A value without what differs from server to server by chance: times, ids, addresses."""
    if value is None or isinstance(value, bool | int | float):
        return "nan" if value != value else value
    if isinstance(value, str):
        text = _IDS.sub(lambda m: f"<{m[1] or ''}id>", value)
        return re.sub(r"https?://[^/\s]+(/registry)?", "<server>", _NUMBERED.sub(r"\1/<experiment>/", text))
    if isinstance(value, bytes | Path):
        return plain(str(value))
    if isinstance(value, dict):
        return {
            str(key): ("<time>" if _TIMES.match(str(key)) and one else plain(one))
            for key, one in value.items()
            if key not in LEFT_OUT
        }
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    if hasattr(value, "__iter__") and hasattr(type(value), "_properties"):
        return plain(dict(value))
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if hasattr(value, "__dict__"):
        return plain({name.lstrip("_"): one for name, one in vars(value).items()})
    return repr(value)


@contextmanager
def both(folder: Path) -> Iterator[dict[str, Server]]:
    """A real server and ours, each a process of its own on a port of its own, ended afterwards."""
    os.environ.update(QUIET)
    installation = Installation(Backing.of_run(), folder / "installation")
    asyncio.run(installation.prepare())
    keys = {
        "owner": installation.key("user:ada", "owner"),
        "other": installation.key("user:eve", "owner", workspace="other"),
        "reader": installation.key("user:rea", "viewer"),
    }
    asyncio.run(_topics(installation))
    (folder / "mlflow").mkdir(parents=True)
    real_port, our_file = _free_port(), folder / "port"
    commands = {
        OURS: (
            [sys.executable, "-m", "services", "registry", "--port", "0", "--port-file", str(our_file)],
            {**os.environ, **installation.environment()},
        ),
        REAL: (
            [
                sys.executable, "-m", "mlflow", "server",
                "--host", "127.0.0.1", "--workers", "1", "--port", str(real_port),
                "--backend-store-uri", f"sqlite:///{folder}/mlflow/mlflow.db",
                "--artifacts-destination", str(folder / "mlflow" / "artifacts"),
            ],
            {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        ),
    }  # fmt: skip
    processes = {}
    try:
        for name, (command, environment) in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                # A session of its own: the real server starts workers, which must end with it.
                processes[name] = subprocess.Popen(
                    command, env=environment, stdout=log, stderr=log, start_new_session=True
                )
        ours = f"http://127.0.0.1:{_port_of(our_file, processes[OURS])}"
        _answers(f"{ours}/readyz", processes[OURS], folder / "ours.log")
        real = f"http://127.0.0.1:{real_port}"
        _answers(f"{real}/health", processes[REAL], folder / "mlflow.log")
        yield {
            OURS: Server(OURS, f"{ours}/registry", keys["owner"], keys["other"], keys["reader"], installation),
            REAL: Server(REAL, real, None),
        }
    finally:
        for process in processes.values():
            _end(process)
        asyncio.run(installation.close())


async def _topics(installation: Installation) -> None:
    await installation.make_topics()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _port_of(file: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None and time.monotonic() < deadline, "the registry did not start"
        time.sleep(0.05)
    return int(file.read_text())


def _answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(10)
            break
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
