"""Wiring of the registry, and nothing else."""

from __future__ import annotations

from services.registry import api, consumers
from services.registry.handlers import Handlers
from services.registry.handlers.artefacts import Artefacts
from services.registry.handlers.following import Following
from services.registry.handlers.pointers import Pointers
from services.registry.handlers.reading import Reading
from services.registry.handlers.registration import Registration
from services.registry.settings import Settings
from services.registry.sources import Sources
from services.registry.store import Store
from services.registry.worker import Fetching
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
    sources = Sources(
        roots=settings.source_roots,
        buckets=settings.source_buckets,
        hosts=settings.source_hosts,
        s3_endpoint=settings.platform.s3_endpoint,
    )
    artefacts = Artefacts(
        database, store, open_store(settings.platform), sources, utc_now, settings.platform.max_upload_bytes
    )
    registration = Registration(database, store, artefacts, utc_now, require_proof=settings.require_proof)
    handlers = Handlers(
        artefacts,
        registration,
        Pointers(database, store, utc_now),
        Following(store, utc_now),
        Reading(database, store, utc_now),
    )
    return Service(
        "registry",
        settings,
        database,
        Identity(settings),
        api.router(handlers),
        consumers.table(handlers),
        (Fetching(database, store, artefacts, registration, utc_now, settings.fetch_timeout_s),),
        says=(AssetChanged, AssetRefused, AssetRegistered, DatasetRegistered),
        uploads=("/registry/v1/artefacts/",),
    )
