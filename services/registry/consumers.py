"""What the registry hears."""

from __future__ import annotations

from services.registry.handlers import Handlers
from shared.bus.inbox import Consumer, Route
from shared.events.upstream import AssetSubmitted


def table(handlers: Handlers) -> tuple[Consumer, ...]:
    """Submissions by themselves, since whoever sent an invalid one is answered."""
    registration = handlers.registration
    return (Consumer("registry", (Route(AssetSubmitted, registration.submitted),), refuse=registration.refuse_invalid),)
