"""The caller of a request, as a dependency that also asks Cedar."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, Request

from shared.identity.authorizer import Action
from shared.identity.identity import Identity
from shared.identity.principal import Principal


async def caller_of(request: Request) -> Principal:
    """Who calls, from the Authorization header. Raises Unauthenticated."""
    known = request.scope.get("mintmark.principal")
    if isinstance(known, Principal):
        return known
    identity: Identity = request.app.state.identity
    return await identity.authenticate(request.headers.get("authorization"))


def require(action: Action, kind: str) -> Any:
    """`Annotated[Principal, require("submit", "asset")]`: the caller, who may do that in its own workspace."""

    async def dependency(request: Request) -> Principal:
        principal = await caller_of(request)
        identity: Identity = request.app.state.identity
        identity.authorizer.require(principal, action, kind)
        return principal

    return Depends(dependency)
