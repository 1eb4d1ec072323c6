"""The registry: every AI asset of a workspace, its immutable versions, where they point, and what hangs on them.

Owns: assets, versions, artefacts held, submissions, aliases and stages as logs, lineage. Schema `registry`.
"""

OWNS = (
    "asset",
    "version",
    "term",
    "submission",
    "vouched",
    "artefact",
    "alias_move",
    "stage_move",
    "edge",
    "finding",
    "model_group",
)
HEARS = (
    "approval.decided",
    "asset.submitted",
    "classification.changed",
    "dataset.approved",
    "deploy.completed",
    "deploy.failed",
    "deploy.withdrawn",
    "eval.completed",
    "eval.failed",
    "gate.decided",
    "group.changed",
    "group.promoted",
    "group.rolled_back",
    "prompt.published",
    "run.completed",
    "waiver.signed",
)
SAYS = ("asset.changed", "asset.refused", "asset.registered", "dataset.registered")
