"""Wiring of the registry, and nothing else."""

from __future__ import annotations

from services.registry import api, consumers
from services.registry.handlers import Handlers
from services.registry.handlers.artefacts import Artefacts
from services.registry.handlers.reading import Reading
from services.registry.handlers.registration import Registration
from services.registry.settings import Settings
from services.registry.store import Store
from shared.artefacts import open_store
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.events.registry import AssetChanged, AssetRefused, AssetRegistered, DatasetRegistered
from shared.identity.identity import Identity
from shared.service import Service


def build(settings: Settings) -> Service:
    """The registry, ready to be started."""
    database = Database(settings.dsn, "registry", pool_size=settings.pool_size)
    store = Store(load("services.registry"))
    artefacts = Artefacts(database, store, open_store(settings.platform), utc_now)
    handlers = Handlers(
        artefacts,
        Registration(database, store, artefacts, utc_now, require_proof=settings.require_proof),
        Reading(database, store),
    )
    return Service(
        "registry",
        settings,
        database,
        Identity(settings),
        api.router(handlers),
        consumers.table(handlers),
        says=(AssetChanged, AssetRefused, AssetRegistered, DatasetRegistered),
    )
