"""Wiring of the evaluator, and nothing else."""

from __future__ import annotations

from services.evaluator import api, consumers
from services.evaluator.handlers import Handlers
from services.evaluator.settings import Settings
from services.evaluator.store import Store
from services.evaluator.worker import Evaluations
from shared.artefacts import open_store
from shared.clock import utc_now
from shared.db.database import Database
from shared.db.queries import load
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.identity.identity import Identity
from shared.service import Service


def build(settings: Settings) -> Service:
    """The evaluator, ready to be started."""
    database = Database(settings.dsn, "evaluator", pool_size=settings.pool_size)
    artefacts = open_store(settings.platform)
    handlers = Handlers(database, Store(load("services.evaluator")), settings, utc_now)
    return Service(
        "evaluator",
        settings,
        database,
        Identity(settings),
        api.router(handlers, artefacts),
        consumers.table(handlers),
        (Evaluations(handlers, artefacts, settings),),
        says=(EvalCompleted, EvalFailed),
    )
