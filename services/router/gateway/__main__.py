"""`python -m services.router.gateway`: the data plane, one process or several on one port, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

import uvloop

from services.router.gateway import garbage
from services.router.gateway.app import Gateway
from services.router.gateway.settings import GatewaySettings
from shared.errors import MintmarkError
from shared.identity.identity import Identity, trusted_keys
from shared.telemetry import logs

log = logging.getLogger("mintmark.gateway")

APPROVAL_SIGNER = "policy"
RESTART_S = 0.5


async def run(settings: GatewaySettings) -> None:
    """Serve, then drain. Raises MintmarkError when a key file cannot be read."""
    trusted = trusted_keys(settings.platform.trust_file)
    approvers = {name: key for name, key in trusted.items() if name == APPROVAL_SIGNER}
    if not approvers:
        log.warning("no key may sign approvals, so nothing is served: set MINTMARK_TRUST_FILE to one with `policy`")
    gateway = Gateway(settings, Identity(settings), approvers)
    stop = asyncio.Event()
    on_stop(stop.set)
    await gateway.start()
    garbage.look_seldom()
    await stop.wait()
    await gateway.stop()


async def supervise(settings: GatewaySettings) -> None:
    """Several gateways on one port; one that dies is started again, and its spool is the shipper's."""
    with ExitStack() as held:
        environment = {
            **os.environ,
            "MINTMARK_GATEWAY_PROCESSES": "1",
            "MINTMARK_GATEWAY_REUSE_PORT": "true",
            "MINTMARK_GATEWAY_PORT": str(_hold(held, settings.host, settings.port)),
        }
        if settings.grpc_port is not None:
            environment["MINTMARK_GATEWAY_GRPC_PORT"] = str(_hold(held, settings.host, settings.grpc_port))
        stop = asyncio.Event()
        on_stop(stop.set)
        await asyncio.gather(*(_keep_one(environment, stop) for _ in range(settings.processes)))


def _hold(held: ExitStack, host: str, port: int) -> int:
    """The port, bound and never listened on: it only settles which one it is, when that is 0."""
    one = held.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((host, port))
    return int(one.getsockname()[1])


async def _keep_one(environment: dict[str, str], stop: asyncio.Event) -> None:
    """A gateway process, and another one after it, until all are to end."""
    stopping = asyncio.create_task(stop.wait())
    while not stop.is_set():
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.router.gateway", env=environment)
        ended = asyncio.create_task(process.wait())
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.send_signal(signal.SIGTERM)
        code = await ended
        if not stop.is_set():
            log.error("a gateway process ended and is started again", extra={"pid": process.pid, "code": code})
            await asyncio.sleep(RESTART_S)
    stopping.cancel()


def on_stop(call: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, call)


def main() -> int:
    settings = GatewaySettings()
    logs.start(settings.platform.log_level)
    try:
        uvloop.run(supervise(settings) if settings.processes > 1 else run(settings))
    except (MintmarkError, OSError) as error:
        print(f"mintmark gateway: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
