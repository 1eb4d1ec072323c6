"""`python -m services [names…]`: one service, some, or all of them in one process, behind one front address."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from shared.errors import MintmarkError
from shared.events import SERVICES
from shared.http import problems
from shared.http.edge import App, Receive, Scope, Send
from shared.service import Service, operations
from shared.telemetry import logs, traces

log = logging.getLogger("mintmark")

ELSEWHERE = {"/api/v1/lineage": "registry", "/api/v1/lineage/batch": "registry"}
"""Addresses that a client of another's protocol insists on: OpenLineage's joins its own to the front's."""


def build(name: str) -> Service:
    """The service, wired from the environment."""
    settings = import_module(f"services.{name}.settings").Settings()
    service: Service = import_module(f"services.{name}.app").build(settings)
    return service


class Front:
    """Hands each request to the service that its path names; the rest is about the process as a whole."""

    def __init__(self, services: list[Service]) -> None:
        self._edges: dict[str, App] = {service.name: service.edge for service in services}
        self._own = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self._own.include_router(operations(services))
        problems.install(self._own)

        @self._own.get("/", include_in_schema=False)
        async def index() -> JSONResponse:
            return JSONResponse(
                {
                    "services": {name: f"/{name}/v1" for name in self._edges},
                    "openapi": [f"/{name}/openapi.json" for name in self._edges],
                }
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first, _, rest = scope.get("path", "").removeprefix("/").partition("/")
        edge = self._edges.get(ELSEWHERE.get(scope.get("path", "").rstrip("/"), first))
        if edge is None:
            await self._own(scope, receive, send)
            return
        if rest in ("openapi.json", "asyncapi.json", "livez", "readyz", "metrics") or rest.startswith("schemas/"):
            scope = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        await edge(scope, receive, send)


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers: this process drains more than HTTP."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(names: list[str], host: str, port: int, port_file: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT, then drain. `port_file` gets the port that was bound, once it answers."""
    gc.disable()  # what is loaded stays, so that looking for garbage among it was a tenth of the start
    try:
        services = [build(name) for name in names]
    finally:
        gc.enable()
    # One service alone serves the same paths as behind the front.
    server = Server(
        uvicorn.Config(
            Front(services),
            host=host,
            port=port,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=10,
            access_log=False,
            server_header=False,
        )
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    serving = asyncio.create_task(server.serve())
    try:
        if port_file is not None:
            await _write_port(server, serving, port_file)
        await asyncio.gather(*(service.start() for service in services))
        gc.collect()
        gc.freeze()  # what was loaded stays: looking through it at every full collection cost a tenth of a request
        log.info("serving", extra={"services": names, "host": host, "port": port})
        await asyncio.wait({serving, asyncio.create_task(stopping.wait())}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        await asyncio.gather(*(service.stop() for service in services))
        log.info("stopped", extra={"services": names})


async def _write_port(server: Server, serving: asyncio.Task[None], file: Path) -> None:
    """Whoever started this process with port 0 reads here where it answers; the file is whole or not there."""
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(str(server.servers[0].sockets[0].getsockname()[1]))
        unfinished.replace(file)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SERVICES, []], help="services to run; all without a name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8700, help="0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="file that the port is written to once it answers")
    arguments = parser.parse_args()
    names = arguments.names or list(SERVICES)
    # httpx brings its command line along where click and rich are installed, and does without where they are not.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    logs.start()
    traces.start(names[0] if len(names) == 1 else "platform")
    try:
        import uvloop

        uvloop.run(run(names, arguments.host, arguments.port, arguments.port_file))
    except MintmarkError as error:
        log.error("cannot run", extra={"code": error.code, "error": str(error)})
        print(f"mintmark: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
