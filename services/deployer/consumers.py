"""What the deployer hears."""

from __future__ import annotations

from services.deployer.handlers import Handlers
from shared.bus.inbox import Consumer, Route
from shared.events.policy import ApprovalDecided, GateDecided
from shared.events.registry import AssetRegistered
from shared.events.router import GroupChanged
from shared.events.upstream import DeployRequested


def table(handlers: Handlers) -> tuple[Consumer, ...]:
    """Requests by themselves, since whoever sent an invalid one is answered."""
    return (
        Consumer(
            "deployer",
            (
                Route(AssetRegistered, handlers.know_asset),
                Route(GateDecided, handlers.know_gate),
                Route(ApprovalDecided, handlers.know_approval),
                Route(GroupChanged, handlers.know_traffic),
            ),
        ),
        Consumer("deployer.requests", (Route(DeployRequested, handlers.requested),), refuse=handlers.refuse_invalid),
    )
