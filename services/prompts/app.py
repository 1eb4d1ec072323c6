"""Wiring of the prompts service, and nothing else."""

from __future__ import annotations

from services.prompts import api, consumers, langfuse
from services.prompts.api.paths import WholeParts
from services.prompts.fetching import Counting, FetchFront, Memory
from services.prompts.handlers import Handlers
from services.prompts.handlers.evidence import EvidenceHandlers
from services.prompts.handlers.following import Following
from services.prompts.handlers.importing import Importing
from services.prompts.handlers.labels import Labels
from services.prompts.handlers.proposals import Proposals
from services.prompts.handlers.publishing import Publishing
from services.prompts.handlers.reading import Reading
from services.prompts.handlers.snapshots import Snapshots
from services.prompts.handlers.splits import Splits
from services.prompts.handlers.usage import Usages
from services.prompts.rendering import Rendering
from services.prompts.settings import Settings
from services.prompts.store import Store
from shared.artefacts import open_store
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.events.prompts import PromptLabelMoved, PromptPublished
from shared.events.upstream import AssetSubmitted, EvalRequested
from shared.identity.identity import Identity, signing_key
from shared.service import Service


def build(settings: Settings) -> Service:
    """The service, ready to be started."""
    database = Database(settings.dsn, "prompts", pool_size=settings.pool_size)
    store, identity = Store(load("services.prompts")), Identity(settings)
    rendering = Rendering(settings.rendering_processes)
    memory, counting = Memory(database, store), Counting(database, store, utc_now)
    labels = Labels(database, store, identity.authorizer, utc_now)
    reading = Reading(database, store, rendering)
    publishing = Publishing(database, store, open_store(settings.platform), rendering, labels, utc_now)
    key = signing_key(settings.signing_key_file) if settings.signing_key_file else None
    handlers = Handlers(
        publishing,
        labels,
        reading,
        Splits(database, store, utc_now),
        Usages(database, store, utc_now),
        Snapshots(database, store, key, utc_now),
        Proposals(database, store, publishing, labels, utc_now),
        EvidenceHandlers(database, store, reading, utc_now),
        Following(store, utc_now),
        Importing(database, store, publishing, labels, utc_now),
    )
    service = Service(
        "prompts",
        settings,
        database,
        identity,
        api.router(handlers),
        consumers.table(handlers),
        (rendering, memory, counting),
        says=(AssetSubmitted, EvalRequested, PromptLabelMoved, PromptPublished),
    )
    service.app.include_router(langfuse.router(handlers))
    service.app.add_middleware(WholeParts, prefix=f"{api.PREFIX}/")
    service.edge = FetchFront(service.edge, memory, counting, identity)
    return service
