"""What the policy service hears."""

from __future__ import annotations

from services.policy.handlers import Gates, Ledger
from shared.bus.inbox import Consumer, Route
from shared.events import topics
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.registry import AssetRegistered, DatasetRegistered

EVERY_TOPIC = tuple(topic.name for topic in topics() if not topic.name.endswith(".dlq"))


def table(gates: Gates, ledger: Ledger) -> tuple[Consumer, ...]:
    """Two consumers, so that the ledger's work and the gates' never wait for each other."""
    return (
        Consumer(
            "policy",
            (
                Route(AssetRegistered, gates.know_asset),
                Route(DatasetRegistered, gates.know_dataset),
                Route(EvalCompleted, gates.judge),
                Route(EvalFailed, gates.hold),
            ),
        ),
        Consumer("policy.ledger", raw=ledger.record, raw_topics=EVERY_TOPIC),
    )
