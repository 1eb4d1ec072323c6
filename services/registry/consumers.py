"""What the registry hears."""

from __future__ import annotations

from services.registry.handlers import Handlers
from shared.bus.inbox import Consumer, Route
from shared.events.deployer import DeployCompleted, DeployFailed, DeployWithdrawn
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import (
    ApprovalDecided,
    ClassificationChanged,
    DatasetApproved,
    GateDecided,
    PolicyPublished,
    WaiverSigned,
)
from shared.events.prompts import PromptPublished
from shared.events.router import GroupChanged, GroupMeasured, GroupPromoted, GroupRolledBack
from shared.events.upstream import AssetSubmitted, RunCompleted, TrainingRequested


def table(handlers: Handlers) -> tuple[Consumer, ...]:
    """Submissions by themselves, since whoever sent an invalid one is answered; then what others say of assets."""
    registration, following = handlers.registration, handlers.following
    return (
        Consumer(
            "registry",
            (
                Route(AssetSubmitted, registration.submitted),
                Route(TrainingRequested, handlers.intents.training_requested),
            ),
            refuse=registration.refuse_invalid,
        ),
        Consumer(
            "registry.lineage",
            (
                Route(RunCompleted, following.run_completed),
                Route(PromptPublished, following.prompt_published),
                Route(EvalCompleted, following.evaluated),
                Route(EvalFailed, following.evaluation_failed),
                Route(GateDecided, following.gated),
                Route(ApprovalDecided, following.approved),
                Route(WaiverSigned, following.waived),
                Route(PolicyPublished, following.policy_published),
                Route(DatasetApproved, following.dataset_approved),
                Route(ClassificationChanged, following.classified),
                Route(DeployCompleted, following.deployed),
                Route(DeployFailed, following.deployment_failed),
                Route(DeployWithdrawn, following.deployment_withdrawn),
                Route(GroupChanged, following.group_changed),
                Route(GroupPromoted, following.group_promoted),
                Route(GroupRolledBack, following.group_promoted),
                Route(GroupMeasured, following.group_measured),
            ),
        ),
    )
