"""Wiring of the router's control plane; the gateway is a process of its own (`gateway/`)."""

from __future__ import annotations

from services.router import api, consumers
from services.router.approval import approvers
from services.router.comparison.ledger import Ledger
from services.router.gateway.addresses import Permitted, Resolver
from services.router.gateway.sealing import master_key_of
from services.router.handlers import Comparisons, Deployments, Feedback, Groups, Inferences, Providers, Ramps, Sections
from services.router.providers.store import ProviderStore
from services.router.ramps.store import RampStore
from services.router.settings import Settings
from services.router.store import Store
from services.router.tables.store import TableStore
from services.router.worker import Comparer, DayKeeper, RampDriver, ViewKeeper
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.events.router import GroupChanged, GroupPromoted, GroupRolledBack, InferenceLogged
from shared.events.upstream import FeedbackReceived
from shared.identity.identity import Identity, trusted_keys
from shared.service import Service

SAYS = (FeedbackReceived, GroupChanged, GroupPromoted, GroupRolledBack, InferenceLogged)


def build(settings: Settings) -> Service:
    """The service; raises KeyUnreadable when the trust file is there and cannot be read, Invalid, AddressRefused."""
    database = Database(settings.dsn, "router", pool_size=settings.pool_size)
    store = Store(load("services.router"))
    ledger = Ledger(load("services.router.comparison"))
    tables = TableStore(load("services.router.tables"))
    trusted = approvers(trusted_keys(settings.platform.trust_file))
    provider_store = ProviderStore(load("services.router.providers"))
    resolver = Resolver(Permitted.of(settings.provider_networks.split(",")))
    master_key = master_key_of(settings.master_key_file, settings.master_key_kms)
    providers = Providers(database, provider_store, master_key, resolver, utc_now)
    groups = Groups(database, store, ledger, providers, trusted, utc_now)
    deployments = Deployments(database, store, groups, trusted, utc_now)
    comparisons = Comparisons(database, store, ledger, utc_now)
    ramps = Ramps(database, store, ledger, RampStore(load("services.router.ramps")), groups, utc_now)
    sections = Sections(database, store, groups)
    feedback = Feedback(database, store, utc_now, require_proof=settings.require_proof)
    return Service(
        "router",
        settings,
        database,
        Identity(settings),
        api.router(
            deployments, groups, Inferences(database, store, tables), feedback, comparisons, ramps, providers, sections
        ),
        consumers.table(deployments, feedback),
        (
            DayKeeper(database, tables, settings.days_poll_s),
            ViewKeeper(database, tables, settings.views_poll_s),
            Comparer(database, ledger, utc_now, settings.compare_poll_s),
            RampDriver(ramps, settings.ramp_poll_s),
        ),
        says=SAYS,
    )
