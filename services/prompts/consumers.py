"""What the prompts service hears: what became of its submissions, what policy says of them, how they were measured."""

from __future__ import annotations

from services.prompts.handlers import Handlers
from shared.bus.inbox import Consumer, Route
from shared.events.evaluator import EvalCompleted, EvalFailed
from shared.events.policy import ApprovalDecided, GateDecided, PolicyPublished, WaiverSigned
from shared.events.registry import AssetRefused, AssetRegistered
from shared.events.router import GroupMeasured


def table(handlers: Handlers) -> tuple[Consumer, ...]:
    following = handlers.following
    return (
        Consumer(
            "prompts",
            (
                Route(AssetRegistered, following.registered),
                Route(AssetRefused, following.refused),
                Route(PolicyPublished, following.policy),
                Route(GateDecided, following.gated),
                Route(ApprovalDecided, following.approved),
                Route(WaiverSigned, following.waived),
                Route(EvalCompleted, following.evaluated),
                Route(EvalFailed, following.evaluation_failed),
                Route(GroupMeasured, following.group_measured),
            ),
        ),
    )
