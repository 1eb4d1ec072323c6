"""Tickets: by which a worker of the router asks the gateway in the name of whoever began a batch.

A ticket is sealed by the master key that router and gateway share, so that neither needs another secret, and holds
whose request it is for some minutes. What it may do is judged by the gateway at each request, as for any caller.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TypeVar

import orjson

from services.router.errors import SealBroken
from services.router.gateway.sealing import Belonging, MasterKey, Sealed, Sealer, Secret
from shared.clock import Clock
from shared.errors import Unauthenticated
from shared.identity.principal import Principal

SCHEME = b"Batch "
OF = "batch:ticket"
"""What is sealed; no provider can have the name, so that neither passes for the other."""
VALID = timedelta(minutes=10)
RENEW_BEFORE = timedelta(minutes=5)
MOST_KNOWN = 1000

K = TypeVar("K")
V = TypeVar("V")


class Tickets:
    """Issues and opens tickets; both remember, since a KMS may have to be asked."""

    def __init__(self, master: MasterKey, clock: Clock) -> None:
        self._sealer = Sealer(master)
        self._clock = clock
        self._issued: dict[Principal, tuple[str, datetime]] = {}
        self._opened: dict[bytes, tuple[Principal, datetime]] = {}

    async def issue(self, principal: Principal) -> str:
        """The value of an Authorization header, good for some minutes. Raises SealBroken."""
        found = self._issued.get(principal)
        if found is not None and self._clock() < found[1] - RENEW_BEFORE:
            return found[0]
        until = self._clock() + VALID
        held = orjson.dumps({"id": principal.id, "roles": sorted(principal.roles), "until": until.timestamp()})
        secret = Secret(base64.b64encode(held).decode())
        sealed = await asyncio.to_thread(self._sealer.seal, secret, Belonging(principal.workspace, OF))
        outer = orjson.dumps({"workspace": principal.workspace, **asdict(sealed)})
        ticket = SCHEME.decode() + base64.b64encode(outer).decode()
        _remember(self._issued, principal, (ticket, until))
        return ticket

    async def open(self, authorization: bytes) -> Principal:
        """Whose request it is. Raises Unauthenticated."""
        found = self._opened.get(authorization)
        if found is None:
            try:
                outer = orjson.loads(base64.b64decode(authorization[len(SCHEME) :], validate=True))
                workspace = str(outer.pop("workspace"))
                secret = await asyncio.to_thread(self._sealer.open, Sealed(**outer), Belonging(workspace, OF))
                held = orjson.loads(base64.b64decode(secret.reveal(), validate=True))
                principal = Principal(held["id"], workspace, frozenset(held["roles"]))
                until = datetime.fromtimestamp(held["until"], self._clock().tzinfo)
            except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, SealBroken):
                raise Unauthenticated("The batch's ticket cannot be opened here.") from None
            found = (principal, until)
            _remember(self._opened, authorization, found)
        if self._clock() >= found[1]:
            raise Unauthenticated("The batch's ticket is too old.")
        return found[0]


def _remember(known: dict[K, V], key: K, value: V) -> None:
    if len(known) >= MOST_KNOWN:
        known.clear()
    known[key] = value
