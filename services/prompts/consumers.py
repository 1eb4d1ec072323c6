"""What the prompts service hears: what became of its submissions."""

from __future__ import annotations

from services.prompts.handlers import Handlers
from shared.bus.inbox import Consumer, Route
from shared.events.registry import AssetRefused, AssetRegistered


def table(handlers: Handlers) -> tuple[Consumer, ...]:
    return (Consumer("prompts", (Route(AssetRegistered, handlers.registered), Route(AssetRefused, handlers.refused))),)
