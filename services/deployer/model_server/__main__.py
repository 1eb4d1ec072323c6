"""The model server's process: options in, a listening socket, and an orderly end on SIGTERM."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop

from services.deployer.model_server.http import Connection, Server
from services.deployer.model_server.oip import OpenInference
from services.deployer.model_server.repository import Repository
from shared.errors import SignatureRefused
from shared.identity.dsse import read_trust_file

log = logging.getLogger("services.deployer.model_server")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.deployer.model_server", description=__doc__)
    parser.add_argument("--repository", type=Path, required=True, help="folder for bundles and what is loaded")
    parser.add_argument(
        "--trust",
        type=Path,
        default=os.environ.get("MINTMARK_TRUST_FILE"),
        help="trust file; its keys `deployer` and `deployer-…` may sign bundles (default: $MINTMARK_TRUST_FILE)",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one and prints it")
    parser.add_argument("--port-file", type=Path, help="the port is written here once the server listens")
    parser.add_argument("--token-file", type=Path, help="loading and unloading needs the token in this file")
    parser.add_argument("--max-body-bytes", type=int, default=8 << 20, help="of an inference request")
    parser.add_argument("--drain-s", type=float, default=10.0, help="so long may requests in flight take after SIGTERM")
    options = parser.parse_args(arguments)
    if options.trust is None:
        parser.error("whose bundles to load? give --trust or MINTMARK_TRUST_FILE")
    return options


async def serve(options: argparse.Namespace) -> None:
    trusted = {k: v for k, v in read_trust_file(options.trust).items() if k == "deployer" or k.startswith("deployer-")}
    if not trusted:
        raise SystemExit(f"{options.trust} names no key `deployer`, so that no bundle could ever be loaded; add it")
    token = options.token_file.read_text().strip() if options.token_file else None
    executor = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="predict")
    loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="load")
    repository = Repository(options.repository, trusted, loader)
    app = OpenInference(repository, trusted, executor, options.max_body_bytes, token)
    server = Server(app)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        listener = await loop.create_server(lambda: Connection(server), options.host, options.port, backlog=1024)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise SystemExit(f"cannot listen on {where} ({error.strerror}); choose another --port") from error
    port = listener.sockets[0].getsockname()[1]
    print(f"listening on http://{options.host}:{port}", flush=True)
    if options.port_file:
        options.port_file.with_suffix(".part").write_text(str(port))
        options.port_file.with_suffix(".part").replace(options.port_file)
    background = [asyncio.create_task(server.sweep()), asyncio.create_task(_reload(repository, app, stop))]
    await stop.wait()
    log.info("stopping: %d connections open", len(server.connections))
    app.ready = False
    listener.close()
    for task in background:
        task.cancel()
    if cut := await server.drain(options.drain_s):
        log.error("%d connections were cut: their requests took longer than %.0f s", cut, options.drain_s)
    executor.shutdown(wait=False, cancel_futures=True)
    loader.shutdown(wait=False, cancel_futures=True)


async def _reload(repository: Repository, app: OpenInference, stop: asyncio.Event) -> None:
    try:
        await repository.reload()
        app.ready = True
    except Exception:
        log.exception("what was loaded before could not be loaded again")
        stop.set()


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    options = _options(sys.argv[1:])
    try:
        uvloop.run(serve(options))
    except (SignatureRefused, OSError) as error:
        raise SystemExit(f"the model server cannot start: {error}") from error


if __name__ == "__main__":
    main()
