"""`python -m services.router.gateway`: one data plane process, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop

from services.router.gateway.app import Gateway
from services.router.gateway.settings import GatewaySettings
from shared.errors import MintmarkError
from shared.identity.identity import Identity, trusted_keys
from shared.telemetry import logs

log = logging.getLogger("mintmark.gateway")

APPROVAL_SIGNER = "policy"


async def run(settings: GatewaySettings) -> None:
    """Serve, then drain. Raises MintmarkError when a key file cannot be read."""
    trusted = trusted_keys(settings.platform.trust_file)
    approvers = {name: key for name, key in trusted.items() if name == APPROVAL_SIGNER}
    if not approvers:
        log.warning("no key may sign approvals, so nothing is served: set MINTMARK_TRUST_FILE to one with `policy`")
    gateway = Gateway(settings, Identity(settings), approvers)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await gateway.start()
    await stop.wait()
    await gateway.stop()


def main() -> int:
    settings = GatewaySettings()
    logs.start(settings.platform.log_level)
    try:
        uvloop.run(run(settings))
    except (MintmarkError, OSError) as error:
        print(f"mintmark gateway: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
