"""What the evaluator hears."""

from __future__ import annotations

from services.evaluator.handlers import Handlers
from shared.bus.inbox import Consumer, Route
from shared.events.policy import DatasetApproved
from shared.events.registry import AssetRegistered, DatasetRegistered
from shared.events.upstream import EvalRequested


def table(handlers: Handlers) -> tuple[Consumer, ...]:
    """Every handler only notes the work; workers do it."""
    return (
        Consumer(
            "evaluator",
            (
                Route(DatasetRegistered, handlers.know_dataset),
                Route(DatasetApproved, handlers.dataset_decided),
                Route(AssetRegistered, handlers.asset_registered),
                Route(EvalRequested, handlers.requested),
            ),
        ),
    )
