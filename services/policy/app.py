"""Wiring of the policy service."""

from __future__ import annotations

from services.policy import api, consumers
from services.policy.handlers import Approvals, Gates, Ledger, Waivers
from services.policy.settings import Settings
from services.policy.store import LedgerStore, Store, WaiverStore
from services.policy.worker import Sealer
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.events.policy import ApprovalDecided, DatasetApproved, GateDecided, PolicyPublished, WaiverSigned
from shared.identity.identity import Identity, signing_key
from shared.service import Service

SAYS = (ApprovalDecided, DatasetApproved, GateDecided, PolicyPublished, WaiverSigned)


def build(settings: Settings) -> Service:
    """The service; raises KeyUnreadable without a signing key, since an unsigned approval lets nothing through."""
    database = Database(settings.dsn, "policy", pool_size=settings.pool_size)
    queries, key = load("services.policy"), signing_key(settings.signing_key_file)
    store, waiver_store = Store(queries), WaiverStore(queries)
    gates = Gates(database, store, waiver_store, utc_now, settings.unverified_author)
    approvals = Approvals(database, store, utc_now, key, settings.unverified_author, settings.approval_days)
    waivers = Waivers(database, store, waiver_store, gates, utc_now, key)
    ledger = Ledger(database, LedgerStore(queries, utc_now), utc_now, key)
    return Service(
        "policy",
        settings,
        database,
        Identity(settings),
        api.router(gates, approvals, waivers, ledger),
        consumers.table(gates, ledger),
        (Sealer(ledger),),
        says=SAYS,
    )
