"""`python -m services.router.gateway.shipper`: one shipper for the gateways of a machine, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop

from services.router.gateway import garbage
from services.router.gateway.http_server import JSON_HEADER, HttpServer, Limits, Request, refuse
from services.router.gateway.shipper.metrics import ShipperMetrics
from services.router.gateway.shipper.settings import ShipperSettings
from services.router.gateway.shipper.shipper import Shipper, ship_until
from services.router.gateway.spool.writer import size_of
from shared.db.database import Database
from shared.errors import MintmarkError, NotFound
from shared.telemetry import logs

log = logging.getLogger("mintmark.shipper")


async def run(settings: ShipperSettings) -> None:
    """Ship and tell how it goes, then drain."""
    folder = settings.spool_folder
    metrics = ShipperMetrics(lambda: sum(size_of(path) for path in folder.glob("*/*.rows")))
    shipper = Shipper(folder, Database(settings.dsn, "router"), metrics, poll_s=settings.poll_s)

    def handle(request: Request) -> None:
        path = request.path.partition(b"?")[0]
        if path == b"/livez":
            request.connection.answer(request, 200, JSON_HEADER, b'{"live":true}')
        elif path == b"/readyz":
            status = 200 if shipper.connected else 503
            request.connection.answer(
                request, status, JSON_HEADER, b'{"ready":%b}' % (b"true" if status == 200 else b"false")
            )
        elif path == b"/metrics":
            headers = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
            request.connection.answer(request, 200, headers, metrics.render())
        else:
            refuse(request, NotFound("There is no such path; the shipper serves /livez, /readyz and /metrics."))

    server = HttpServer(handle, Limits(request_bytes=1024, read_timeout_s=5, idle_timeout_s=75, connections=100))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    port = await server.start(settings.host, settings.port)
    log.info("shipper listens", extra={"host": settings.host, "port": port, "folder": str(folder)})
    garbage.look_seldom()
    if not await ship_until(shipper, stop, settings.drain_s):
        log.warning("rows are left in the spools; the next shipper takes them", extra={"folder": str(folder)})
    await server.drain(1)


def main() -> int:
    settings = ShipperSettings()
    logs.start(settings.platform.log_level)
    try:
        uvloop.run(run(settings))
    except (MintmarkError, OSError) as error:
        print(f"mintmark shipper: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
