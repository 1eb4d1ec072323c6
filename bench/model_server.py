"""Our model server beside MLServer and the KServe SDK: the same LightGBM model, the same client, one process each.

    python -m bench.model_server --mlserver VENV/bin/python --kserve VENV/bin/python

Peers are measured when a python that has them is named (`pip install mlserver mlserver-lightgbm`; `pip install kserve
lightgbm`). Every server runs with OMP_NUM_THREADS=1 and no access log. Latency is p50 over one connection, throughput
over 32; client and server share the machine, so figures compare with each other only. Writes JSON, prints a table.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvloop

from bench import report
from services.deployer.bundle import build
from services.deployer.model_server.testing import KEY, breast_cancer, lightgbm_bundle, write_trust_file

FEATURES, ROUNDS, CONNECTIONS = 16, 100, 32
ROUNDS_OF_MEASURING = 2
"""Every server in turn, so often; the better figure of each counts, since a shared machine only ever adds time."""
HERE = Path(__file__).resolve().parent
OURS = "services.deployer.model_server"

KSERVE = """
import sys, lightgbm
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
class LightGBM(Model):
    def load(self):
        self.model, self.ready = lightgbm.Booster(model_file=sys.argv.pop()), True
        return True
    def predict(self, payload, headers=None, response_headers=None):
        score = self.model.predict(payload.inputs[0].as_numpy(), num_threads=1)
        output = InferOutput("predict", list(score.shape), "FP64", data=score.tolist())
        return InferResponse(payload.id, self.name, [output])
model = LightGBM("tumour")
model.load()
ModelServer(workers=1, enable_grpc=False, access_log_format=None).start([model])
"""

UVICORN = """
import sys, asyncio, inspect, uvicorn
from services.deployer.model_server import oip, http, __main__ as process
def serve_asgi(server):
    app = server.app
    async def asgi(scope, receive, send):
        if scope["type"] != "http":
            return
        request = http.Request(scope["method"], scope["path"])
        try:
            taken = app.begin(request)
            request.sink = None if isinstance(taken, int) else taken
            while True:
                message = await receive()
                if request.sink is None:
                    request.body += message["body"]
                else:
                    request.sink.write(message["body"])
                if not message.get("more_body"):
                    break
            answer = app.handle(request)
            if inspect.iscoroutine(answer):
                answer = await answer
        except http.HttpError as error:
            answer = http.error_response(error)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer.body)).encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
    return asgi
async def serve(options):
    from concurrent.futures import ThreadPoolExecutor
    trusted = process.read_trust_file(options.trust)
    pool = ThreadPoolExecutor(2)
    app = oip.OpenInference(process.Repository(options.repository, trusted, pool), trusted, pool, 8 << 20, None)
    app.ready = True
    config = uvicorn.Config(serve_asgi(http.Server(app)), port=options.port, log_level="warning", access_log=False)
    await uvicorn.Server(config).serve()
process.serve = serve
process.main()
"""

INLINE = f"from {OURS} import oip; oip.INLINE_S = %s; from {OURS}.__main__ import main; main()"


@dataclass
class Contender:
    name: str
    command: list[str]
    url: str
    imports: list[str]
    """The command whose time is the cost of importing, without serving anything."""
    body: dict[str, Any]
    folder: Path
    after_start: Callable[[], None] = lambda: None
    figures: dict[str, float] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlserver", help="a python that has mlserver and mlserver-lightgbm")
    parser.add_argument("--kserve", help="a python that has kserve and lightgbm")
    parser.add_argument("--seconds", type=float, default=5.0, help="of throughput measurement each")
    parser.add_argument("--models", type=int, default=1000, help="so many models in one process of ours; 0 for none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        contenders = ours(folder)
        if options.mlserver:
            contenders.append(mlserver(folder, options.mlserver))
        if options.kserve:
            contenders.append(kserve(folder, options.kserve))
        for _ in range(ROUNDS_OF_MEASURING):
            for contender in contenders:
                measure(contender, options.seconds)
        many = thousand(folder, options.models) if options.models else {}
    notes = {"model": f"LightGBM, {FEATURES} features, {ROUNDS} trees", "load average at the end": str(os.getloadavg())}
    notes |= {f"many models: {name}": f"{figure:.4g}" for name, figure in many.items()}
    if max(scores := [contender.figures["score"] for contender in contenders]) - min(scores) > 1e-12:
        raise SystemExit(f"the servers do not agree on the score ({scores}), so their figures compare nothing")
    rows = [{"server": contender.name} | contender.figures for contender in contenders]
    print(f"written to {report.write('model_server', rows, notes)}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def infer_body(**more: Any) -> dict[str, Any]:
    rows, _, _ = breast_cancer(FEATURES)
    tensor = {"name": "input", "shape": [1, FEATURES], "datatype": "FP64", "data": rows[0].tolist()}
    return {"id": "bench", "inputs": [tensor], **more}  # the KServe SDK answers 500 to a request without an id


def ours(folder: Path) -> list[Contender]:
    trust = write_trust_file(folder / "trust.json", deployer=KEY)
    bundle, _ = lightgbm_bundle(folder / "bundle", "tumour", rounds=ROUNDS, features=FEATURES)
    plain = infer_body(parameters={"explain": False})
    variants: list[tuple[str, list[str], dict[str, Any]]] = [
        ("ours, score only", ["-m", OURS], plain),
        ("ours, score only, in a thread", ["-c", INLINE % 0], plain),
        ("ours behind uvicorn (raw ASGI), score only", ["-c", UVICORN], plain),
        ("ours, with SHAP values", ["-m", OURS], infer_body()),
        ("ours, with SHAP values, on the event loop", ["-c", INLINE % 60], infer_body()),
    ]
    found = []
    for i, (name, how, body) in enumerate(variants):
        port, repository = free_port(), folder / f"repository-{i}"
        command = [sys.executable, *how, "--repository", str(repository), "--trust", str(trust), "--port", str(port)]
        base = f"http://127.0.0.1:{port}/v2"

        def load(base: str = base) -> None:
            httpx.put(f"{base}/repository/bundles/{bundle.digest}", content=bundle.path.read_bytes()).raise_for_status()
            parameters = {"parameters": {"bundle": bundle.digest}}
            httpx.post(f"{base}/repository/models/tumour/load", json=parameters, timeout=60).raise_for_status()

        imports = [sys.executable, "-c", f"import {OURS}.__main__, {OURS}.models.lightgbm_text"]
        found.append(Contender(name, command, f"{base}/models/tumour/infer", imports, body, folder, load))
    return found


def mlserver(folder: Path, python: str) -> Contender:
    _, booster = lightgbm_bundle(folder / "mlserver", rounds=ROUNDS, features=FEATURES)
    booster.save_model(str(folder / "mlserver" / "model.bst"))
    port = free_port()
    settings: dict[str, Any] = {
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
    }
    settings |= {"host": "127.0.0.1", "debug": False}
    model = {
        "name": "tumour",
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "parameters": {"uri": "./model.bst"},
    }
    (folder / "mlserver" / "settings.json").write_text(json.dumps(settings))
    (folder / "mlserver" / "model-settings.json").write_text(json.dumps(model))
    start = "import sys; from mlserver.cli.main import main; sys.argv = ['mlserver', 'start', '.']; main()"
    url = f"http://127.0.0.1:{port}/v2/models/tumour/infer"
    imports = [python, "-c", "import mlserver.cli.main, mlserver.server, mlserver_lightgbm"]
    return Contender("MLServer", [python, "-c", start], url, imports, infer_body(), folder / "mlserver")


def kserve(folder: Path, python: str) -> Contender:
    _, booster = lightgbm_bundle(folder / "kserve", rounds=ROUNDS, features=FEATURES)
    booster.save_model(str(folder / "kserve" / "model.txt"))
    port = free_port()
    command = [python, "-c", KSERVE, "--http_port", str(port), str(folder / "kserve" / "model.txt")]
    imports = [python, "-c", "import kserve, lightgbm"]
    url = f"http://127.0.0.1:{port}/v2/models/tumour/infer"
    return Contender("KServe SDK", command, url, imports, infer_body(), folder)


def started(contender: Contender) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    with (contender.folder / "log").open("ab") as log:
        process = subprocess.Popen(contender.command, stdout=log, stderr=log, cwd=contender.folder, env=environment)
    live = contender.url.split("/v2")[0] + "/v2/health/live"
    deadline = time.monotonic() + 90
    client = httpx.Client()  # one for all: making a client costs 30 ms of the processor that the server starts on
    while True:
        try:
            if client.get(live).status_code == 200:
                return process
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{contender.name} did not start; its log: {log_of(contender)}")
        time.sleep(0.02)


def log_of(contender: Contender) -> str:
    return (contender.folder / "log").read_text()[-3000:]


def measure(contender: Contender, seconds: float) -> None:
    figures: dict[str, float] = {}
    begun = time.perf_counter()
    subprocess.run(contender.imports, check=True, cwd=HERE.parent, capture_output=True)
    figures["import_s"] = time.perf_counter() - begun
    begun = time.perf_counter()
    process = started(contender)
    try:
        contender.after_start()
        first = httpx.post(contender.url, json=contender.body, timeout=30)
        if first.status_code != 200:
            raise SystemExit(f"{contender.name} answers {first.text[:500]}; its log: {log_of(contender)}")
        figures["start_to_first_answer_s"] = time.perf_counter() - begun
        figures["score"] = first.json()["outputs"][0]["data"][0]
        request = raw_request(contender)
        run_hammer(request, contender.url, CONNECTIONS, 1.0)  # warm
        latencies = run_hammer(request, contender.url, 1, 2.0)
        figures["p50_us_c1"] = statistics.median(latencies) * 1e6
        begun = time.perf_counter()
        latencies = run_hammer(request, contender.url, CONNECTIONS, seconds)
        figures["requests_per_s_c32"] = len(latencies) / (time.perf_counter() - begun)
        figures["p99_ms_c32"] = sorted(latencies)[int(len(latencies) * 0.99)] * 1e3
        figures["rss_mib"] = resident_mib(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for name, figure in figures.items():
        better = max if name == "requests_per_s_c32" else min
        contender.figures[name] = better(figure, contender.figures.get(name, figure))


def raw_request(contender: Contender) -> bytes:
    body = json.dumps(contender.body).encode()
    path = "/" + contender.url.split("/", 3)[3]
    return b"POST %b HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        path.encode(), len(body), body,
    )  # fmt: skip


class Asker(asyncio.Protocol):
    """Sends the request, waits for the whole answer, sends it again."""

    def __init__(self, request: bytes, deadline: float, latencies: list[float]) -> None:
        self.request, self.deadline, self.latencies = request, deadline, latencies
        self.buffer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(self.buffer[:300].decode()))
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) < length:
            return
        now = time.perf_counter()
        self.latencies.append(now - self.sent_at)
        self.buffer = b""
        if now < self.deadline:
            self.ask()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("the server closed the connection"))


async def hammer(request: bytes, url: str, connections: int, seconds: float) -> list[float]:
    host, port = url.split("/")[2].split(":")
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    askers = [
        await loop.create_connection(lambda: Asker(request, deadline, latencies), host, int(port))
        for _ in range(connections)
    ]
    await asyncio.gather(*(asker.done for _, asker in askers))
    for transport, _ in askers:
        transport.close()
    return latencies


def run_hammer(request: bytes, url: str, connections: int, seconds: float) -> list[float]:
    return uvloop.run(hammer(request, url, connections, seconds))


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def thousand(folder: Path, models: int) -> dict[str, float]:
    """One process with so many models of 20 trees: memory and load time a model, and the restart after a kill -9."""
    trust = write_trust_file(folder / "trust.json", deployer=KEY)
    port = free_port()
    base = f"http://127.0.0.1:{port}/v2"
    command = [sys.executable, "-m", OURS, "--repository", str(folder / "many"), "--trust", str(trust)]
    contender = Contender("many", [*command, "--port", str(port)], f"{base}/models/x/infer", [], {}, folder)
    first, _ = lightgbm_bundle(folder / "many-bundles", "m", rounds=20)
    text = {"model.txt": folder / "many-bundles" / "model.txt"}
    named = [
        first.manifest.model_copy(update={"asset": f"mm:model/m{i}", "model_name": f"m{i}"}) for i in range(models)
    ]
    bundles = [build(folder / "many-bundles", manifest, text, KEY) for manifest in named]
    process = started(contender)
    figures: dict[str, float] = {"models": models}
    with httpx.Client(base_url=base, timeout=60) as client:
        loads = []
        for i, bundle in enumerate(bundles):
            begun = time.perf_counter()
            client.put(f"/repository/bundles/{bundle.digest}", content=bundle.path.read_bytes()).raise_for_status()
            body = {"parameters": {"bundle": bundle.digest}}
            client.post(f"/repository/models/m{i}/load", json=body).raise_for_status()
            loads.append(time.perf_counter() - begun)
            if i == 0:
                figures["rss_mib_with_one"] = resident_mib(process.pid)
        figures["load_ms_p50"] = statistics.median(loads) * 1e3
        figures["rss_mib_with_all"] = resident_mib(process.pid)
    process.kill()
    process.wait()
    begun = time.perf_counter()
    process = started(contender)
    with httpx.Client(base_url=base) as client:
        while client.get("/health/ready").status_code != 200:
            time.sleep(0.05)
    figures["restart_after_kill_s"] = time.perf_counter() - begun
    process.terminate()
    process.wait(30)
    return figures


if __name__ == "__main__":
    main()
