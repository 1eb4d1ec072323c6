"""Wiring of the prompts service, and nothing else."""

from __future__ import annotations

from services.prompts import api, consumers
from services.prompts.handlers import Handlers
from services.prompts.settings import Settings
from services.prompts.store import Store
from shared.artefacts import open_store
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.events.prompts import PromptLabelMoved, PromptPublished
from shared.events.upstream import AssetSubmitted
from shared.identity.identity import Identity
from shared.service import Service


def build(settings: Settings) -> Service:
    """The service, ready to be started."""
    database = Database(settings.dsn, "prompts", pool_size=settings.pool_size)
    handlers = Handlers(database, Store(load("services.prompts")), open_store(settings.platform), utc_now)
    return Service(
        "prompts",
        settings,
        database,
        Identity(settings),
        api.router(handlers),
        consumers.table(handlers),
        says=(AssetSubmitted, PromptLabelMoved, PromptPublished),
    )
