"""What the router hears."""

from __future__ import annotations

from services.router.handlers import Deployments
from shared.bus.inbox import Consumer, Route
from shared.events.deployer import DeployCompleted
from shared.events.policy import ApprovalDecided


def table(deployments: Deployments) -> tuple[Consumer, ...]:
    """One consumer for what decides about traffic."""
    return (
        Consumer(
            "router",
            (Route(DeployCompleted, deployments.completed), Route(ApprovalDecided, deployments.decided)),
        ),
    )
