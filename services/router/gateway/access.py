"""Who calls: asked of `shared.identity` once, and remembered for a second, so that the hot path only looks it up."""

from __future__ import annotations

import time

from services.router.gateway.tickets import SCHEME, Tickets
from shared.identity import Principal
from shared.identity.identity import Identity

REMEMBER_S = 1.0  # a revoked key lives this much longer at most; the key ring itself looks at its file once a second
MOST_CALLERS = 10_000


class Access:
    """Callers by the value of their Authorization header. Only proven callers are remembered."""

    def __init__(self, identity: Identity, tickets: Tickets | None = None) -> None:
        self._identity = identity
        self._tickets = tickets
        self._known: dict[bytes, tuple[Principal, float]] = {}

    def recall(self, authorization: bytes) -> Principal | None:
        """The caller, if proven within the last second."""
        found = self._known.get(authorization)
        return found[0] if found is not None and time.monotonic() < found[1] else None

    async def identify(self, authorization: bytes) -> Principal:
        """Prove the caller. Raises Unauthenticated, Unavailable."""
        if self._tickets is not None and authorization.startswith(SCHEME):
            principal = await self._tickets.open(authorization)
        else:
            principal = await self._identity.authenticate(authorization.decode("latin-1"))
        if len(self._known) >= MOST_CALLERS:
            self._known.clear()
        self._known[authorization] = (principal, time.monotonic() + REMEMBER_S)
        return principal

    def require_inference(self, principal: Principal) -> None:
        """Raises Forbidden unless the policies in force let the caller ask groups of its own workspace."""
        self._identity.authorizer.require(principal, "infer", "group")
