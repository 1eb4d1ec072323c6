"""What the router hears."""

from __future__ import annotations

from services.router.handlers import Deployments, Feedback
from shared.bus.inbox import Consumer, Route
from shared.events.deployer import DeployCompleted, DeployWithdrawn
from shared.events.policy import ApprovalDecided, ClassificationChanged
from shared.events.upstream import FeedbackReceived


def table(deployments: Deployments, feedback: Feedback) -> tuple[Consumer, ...]:
    """Two consumers, so that a flood of feedback never keeps a deployment or a rejection waiting."""
    return (
        Consumer(
            "router",
            (
                Route(DeployCompleted, deployments.completed),
                Route(DeployWithdrawn, deployments.withdrawn),
                Route(ApprovalDecided, deployments.decided),
                Route(ClassificationChanged, deployments.classified),
            ),
        ),
        Consumer("router.feedback", (Route(FeedbackReceived, feedback.received),)),
    )
