"""Client of Mintmark: publish signed events, call the services, read what they say."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mintmark.client import Client, Problem
    from mintmark.events import CloudEvent, publish, signed
    from mintmark.settings import Connection

__all__ = ["Client", "CloudEvent", "Connection", "Problem", "publish", "signed"]

_HOMES = {
    "Client": "mintmark.client",
    "CloudEvent": "mintmark.events",
    "Connection": "mintmark.settings",
    "Problem": "mintmark.client",
    "publish": "mintmark.events",
    "signed": "mintmark.events",
}


def __getattr__(name: str) -> Any:
    """Each from its module when it is first asked for (PEP 562): half of the commands never call over HTTP."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if f"{__name__}.{name}" in _HOMES.values():
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
