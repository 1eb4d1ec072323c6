"""Wiring of the router's control plane; the gateway is a process of its own (`gateway/`)."""

from __future__ import annotations

from services.router import api, consumers
from services.router.approval import approvers
from services.router.batches.domain import Job
from services.router.batches.run import Runner
from services.router.batches.store import BatchStore
from services.router.comparison.ledger import Ledger
from services.router.gateway.addresses import Permitted, Resolver
from services.router.gateway.sealing import MasterKey, master_key_of
from services.router.gateway.tickets import Tickets
from services.router.handlers import (
    Batches,
    Comparisons,
    Deployments,
    Feedback,
    Groups,
    Inferences,
    Providers,
    Ramps,
    Sections,
)
from services.router.handlers.archives import Archives
from services.router.handlers.deletions import Deletions
from services.router.handlers.erasures import Erasures
from services.router.handlers.keys import GroupKeyring
from services.router.handlers.measuring import Measuring
from services.router.providers.store import ProviderStore
from services.router.ramps.store import RampStore
from services.router.settings import Settings
from services.router.store import Store
from services.router.tables.store import TableStore
from services.router.worker import BatchWorker, Comparer, DayKeeper, Measurer, RampDriver, TableKeeper
from shared.artefacts import open_store
from shared.clock import Clock, utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.events.router import (
    BudgetExceeded,
    GroupChanged,
    GroupMeasured,
    GroupPromoted,
    GroupRolledBack,
    GuardrailTripped,
    InferenceLogged,
    ProviderChanged,
)
from shared.events.upstream import FeedbackReceived
from shared.identity.identity import Identity, signing_key, trusted_keys
from shared.identity.principal import Principal
from shared.service import Service

SAYS = (
    BudgetExceeded,
    FeedbackReceived,
    GroupChanged,
    GroupMeasured,
    GroupPromoted,
    GroupRolledBack,
    GuardrailTripped,
    InferenceLogged,
    ProviderChanged,
)


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
    measuring = Measuring(database, store, ledger, utc_now, settings.measured_every_s)
    ramps = Ramps(database, store, ledger, RampStore(load("services.router.ramps")), groups, utc_now)
    batches = batches_of(settings, database, store, master_key, utc_now)
    keyring = GroupKeyring(tables, master_key)
    sections = Sections(database, store, groups, keyring)
    archives = Archives(database, store, tables, open_store(settings.platform), utc_now)
    signer = signing_key(settings.signing_key_file) if settings.signing_key_file is not None else None
    erasures = Erasures(database, tables, archives, keyring, utc_now, signer)
    deletions = Deletions(database, store, tables, groups, archives, utc_now, settings.deletion_settle_s)
    inferences = Inferences(database, store, tables, keyring)
    feedback = Feedback(database, store, utc_now, require_proof=settings.require_proof)
    return Service(
        "router",
        settings,
        database,
        Identity(settings),
        api.router(
            deployments,
            groups,
            inferences,
            feedback,
            comparisons,
            ramps,
            providers,
            sections,
            batches,
            archives,
            erasures,
            deletions,
        ),
        consumers.table(deployments, feedback),
        (
            DayKeeper(database, tables, archives, utc_now, settings.days_poll_s),
            TableKeeper(database, tables, deletions, settings.tables_poll_s),
            Comparer(database, ledger, utc_now, settings.compare_poll_s),
            Measurer(measuring, settings.compare_poll_s),
            RampDriver(ramps, settings.ramp_poll_s),
            BatchWorker(batches, settings.batch_poll_s, settings.batch_jobs),
        ),
        says=SAYS,
        uploads=("/router/v1/batch-files/",),
    )


def batches_of(settings: Settings, database: Database, store: Store, master: MasterKey | None, clock: Clock) -> Batches:
    """Where there is no master key, batches can be looked at and not begun."""
    batch_store, artefacts = BatchStore(load("services.router.batches")), open_store(settings.platform)
    runner = None
    if master is not None:
        tickets = Tickets(master, clock)

        async def issue(job: Job) -> str:
            return await tickets.issue(Principal(job.who, job.workspace, frozenset(job.roles)))

        url = settings.gateway_url or settings.platform.gateway_url
        runner = Runner(
            database, batch_store, artefacts, issue, clock, gateway_url=url, lease_s=settings.batch_lease_s,
            input_bytes=settings.batch_input_bytes, rows=settings.batch_rows,
        )  # fmt: skip
    return Batches(database, store, batch_store, artefacts, runner, clock)
