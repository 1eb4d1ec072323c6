"""Wiring of the deployer."""

from __future__ import annotations

from services.deployer import api, consumers
from services.deployer.handlers import Handlers
from services.deployer.lapsed import Lapsed
from services.deployer.rollout import Rollout
from services.deployer.settings import Settings
from services.deployer.store import Store
from services.deployer.worker import Deployments
from shared.artefacts import open_store
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.events.deployer import DeployCompleted, DeployFailed, DeployProgressed, DeployWithdrawn
from shared.identity.identity import Identity, signing_key, trusted_keys
from shared.service import Service

SAYS = (DeployCompleted, DeployFailed, DeployProgressed, DeployWithdrawn)


def build(settings: Settings) -> Service:
    """The service; raises KeyUnreadable without a signing key, since no target takes an unsigned bundle."""
    database = Database(settings.dsn, "deployer", pool_size=max(settings.pool_size, settings.concurrency + 4))
    store = Store(load("services.deployer"))
    # Only policy says what is approved: no other key of the trust file may.
    trusted = {name: key for name, key in trusted_keys(settings.platform.trust_file).items() if name == "policy"}
    handlers = Handlers(database, store, utc_now, unverified=settings.unverified)
    key = signing_key(settings.signing_key_file)
    rollout = Rollout(database, store, open_store(settings.platform), utc_now, key, trusted, settings)
    return Service(
        "deployer",
        settings,
        database,
        Identity(settings),
        api.router(handlers),
        consumers.table(handlers),
        (Deployments(database, store, rollout, Lapsed(database, store, utc_now), settings, handlers.waiting),),
        says=SAYS,
    )
