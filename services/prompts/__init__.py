"""Prompts: immutable numbered versions with typed variables, and labels that point at them.

Owns: prompts, their versions with all that they include, labels and their splits as logs, proposals, bindings, who
fetches what. Schema `prompts`. A published version is submitted to the registry, where it takes the same road as every
asset; what evaluator and policy say of it is kept here, so that protected labels move to none that was not let through.
"""

OWNS = (
    "approval",
    "binding",
    "closure",
    "comparison",
    "evidence",
    "label_move",
    "label_split",
    "live_figures",
    "prompt",
    "prompt_version",
    "proposal",
    "proposal_step",
    "protection",
    "usage",
    "verdict",
    "waiver",
)
HEARS = (
    "approval.decided",
    "asset.refused",
    "asset.registered",
    "eval.completed",
    "eval.failed",
    "gate.decided",
    "group.measured",
    "policy.published",
    "waiver.signed",
)
SAYS = ("asset.submitted", "eval.requested", "prompt.label_moved", "prompt.published")
